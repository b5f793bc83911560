// What runs in the asynchronous context of an attempt: the rules hold for it, and the application finds its own there.
import assert from 'node:assert/strict'
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after, test } from 'node:test'
import farcall from '../index.js'
import { scratchDirectory } from './support/scratch.mjs'

const scratch = scratchDirectory('within')
process.env.FARCALL_HOME = join(scratch, 'home')
process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[resilience]]
match = { customer = "retried" }
attempts = 3
backoff = "1ms..2ms"
retry_on = ["503"]

[[quota]]
match = { customer = "paced" }
limit = "1 requests / 50ms"
burst = 1
max_wait = "120s"
shared = "process"

[[cache]]
match = { customer = "kept" }
ttl = "1h"
`)

let failures = 0
const server = http.createServer((_, response) => {
  if (failures > 0) failures -= 1
  else return response.end('fine')
  response.writeHead(503).end()
}).listen(0, '127.0.0.1')
await once(server, 'listening')
after(() => { server.close(); server.closeAllConnections() })
const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
const url = `http://127.0.0.1:${port}/`

// Something of the application's below fetch that has more to do when the attempt is over.
/** @type {(() => Promise<Response>) | undefined} */
let later
const { fetch: below } = globalThis
globalThis.fetch = async (...args) => {
  later ??= AsyncResource.bind(() => fetch(url))
  return below(...args)
}
farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

test('what an attempt has started, and outlives it, is a call of its own to which rules apply', async () => {
  await farcall.withCustomer('retried', async () => (await fetch(url)).text())
  failures = 1
  const response = await /** @type {() => Promise<Response>} */ (later)()
  assert.deepEqual([response.status, await response.text(), failures], [200, 'fine', 0])
})

for (const customer of ['retried', 'paced', 'kept']) {
  test(`an application finds its own context where a call comes back (${customer})`, async () => {
    const storage = new AsyncLocalStorage()
    /** @type {[number, unknown][]} */
    const seen = []
    await farcall.withCustomer(customer, () => Promise.all([1, 2, 3].map((n) => storage.run(n, async () => {
      const response = await fetch(url + customer)
      seen.push([n, storage.getStore()])
      await response.text()
      seen.push([n, storage.getStore()])
      await new Promise((resolve, reject) => {
        http.get(url + customer, (response) => {
          seen.push([n, storage.getStore()])
          response.on('data', () => seen.push([n, storage.getStore()])).on('end', resolve)
        }).on('error', reject)
      })
      seen.push([n, storage.getStore()])
    }))))
    assert.deepEqual(seen.filter(([n, store]) => n !== store), [])
    assert(seen.length >= 15)
  })
}
