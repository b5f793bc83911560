'use strict'
// Puts and delivers calls that take a credential by a callback: as who does not know it, as who does, and as who only
// registers it.
const farcall = require('../../index.js')

const [part, url] = process.argv.slice(2)
const { outbox } = farcall
farcall.install({ service: 'credential' })

async function main () {
  if (part === 'stranger') {
    const first = await outbox.put({ method: 'POST', url, body: 'first', headers: { 'x-api-key': outbox.callback('vault') } })
    const usual = await outbox.put({ method: 'POST', url, body: 'usual' })
    await usual.done({ timeoutMs: 60_000 })
    const { state, attempts } = await outbox.item(first.id)
    if (state !== 'pending' || attempts !== 0) throw new Error(`${state}, ${attempts}`)
    return
  }
  outbox.credential('vault', () => 'sk_vault')
  if (part === 'knows' && (await outbox.wait(1)).state !== 'delivered') throw new Error('it was not delivered')
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
