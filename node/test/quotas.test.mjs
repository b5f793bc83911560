// Who used a vendor's quota, where no rule decides: the calls of this program are nobody else's, from the first on.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import farcall from '../index.js'
import nativeModule from '../lib/native.js'
import { clients } from './support/again.mjs'
import { scratchDirectory } from './support/scratch.mjs'

const LIMIT = 1000
const scratch = scratchDirectory('quotas')
process.env.FARCALL_HOME = join(scratch, 'home')
process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
/** The one states what is left, as it is known to; of the other that is said, too, and it is silent. */
const hosts = { stating: '127.0.0.1', silent: 'localhost' }
writeFileSync(process.env.FARCALL_CONFIG, Object.entries(hosts).map(([name, host]) => `
[[vendor]]
name = "${name}"
label = "${name}"
hosts = ["${host}"]
limit = [{ policy = "hourly", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1h" }]
`).join(''))

/** What the vendor counted that states something. */
let counted = 0
const server = http.createServer((request, response) => {
  if (request.headers.host?.startsWith(hosts.stating)) {
    counted += 1
    response.setHeader('X-Limit', LIMIT)
    response.setHeader('X-Left', LIMIT - counted)
    response.setHeader('X-Reset', 3600)
  }
  request.resume().on('end', () => response.end('well'))
}).listen(0)
await once(server, 'listening')
const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())

farcall.install({ service: 'quotas-test' })
after(() => {
  server.close()
  server.closeAllConnections()
  assert.deepEqual(farcall.status().problems, { count: 0, last: null })
})

const stating = `http://${hosts.stating}:${port}/v1/things`
const silent = `http://${hosts.silent}:${port}/v1/things`

/** How the report says that the vendor's quota is used. */
async function used () {
  await farcall.flush()
  const { rows } = /** @type {{ rows: any[] }} */ (await farcall.report(/** @type {any} */ ('quotas')))
  const { left, own, foreign } = rows.find((row) => row.vendor === 'stating') ?? {}
  return { left, own, foreign }
}

/**
 * How many calls the engine is told of while they are under way.
 *
 * @param {() => Promise<unknown>} calls
 */
async function begun (calls) {
  const addon = nativeModule.native()
  const { begin } = addon
  let count = 0
  addon.begin = (request) => {
    count += 1
    return begin(request)
  }
  try {
    await calls()
  } finally {
    addon.begin = begin
  }
  return count
}

/** @type {Record<string, (url: string) => Promise<unknown>>} */
const all = { fetch: async (url) => (await fetch(url)).text(), ...clients }

test('whatever its client, a call is ours from the first on, though no rule is there and none was refused', async () => {
  const before = counted
  for (const [name, ask] of Object.entries(all)) {
    for (let call = 0; call < 3; call += 1) await ask(stating)
    const { own, foreign } = await used()
    assert.deepEqual({ own, foreign }, { own: counted, foreign: 0 }, name)
  }
  assert.equal(counted - before, 3 * Object.keys(all).length)
})

test('so are calls under way at once, and those of a worker thread', async () => {
  await Promise.all(Object.values(all).flatMap((ask) => [1, 2, 3, 4].map(() => ask(stating))))
  const worker = new Worker(`
    const farcall = require(${JSON.stringify(fileURLToPath(new URL('../index.js', import.meta.url)))})
    farcall.install()
    Promise.all([1, 2, 3].map(() => fetch(${JSON.stringify(stating)}).then((response) => response.text())))
      .then(() => farcall.flush())
  `, { eval: true })
  await once(worker, 'exit')
  assert.deepEqual(await used(), { left: LIMIT - counted, own: counted, foreign: 0 })
})

test('what somebody else asks of the vendor is not', async () => {
  const before = await used()
  counted += 25
  await (await fetch(stating)).text()
  assert.deepEqual(await used(), { left: before.left - 26, own: before.own + 1, foreign: 25 })
})

test('a vendor that says nothing after all is looked at no longer', async () => {
  const ask = async () => (await fetch(silent)).text()
  const several = async () => {
    for (let call = 0; call < 16; call += 1) await ask()
  }
  assert.equal(await begun(several), 16)
  const end = Date.now() + 60_000
  // Whom to look at is asked once a second.
  while (await begun(ask) > 0) {
    assert(Date.now() < end, 'it is looked at for ever')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  assert.equal(await begun(several), 0)
})
