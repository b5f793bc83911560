// What goes wrong inside Farcall is counted, and the application's call goes on.
import assert from 'node:assert/strict'
import http from 'node:http'
import { afterEach, mock, test } from 'node:test'
import farcall from '../index.js'
import nativeModule from '../lib/native.js'
import { plain } from './support/sim.mjs'

farcall.install()
const native = nativeModule.native()
afterEach(() => mock.restoreAll())

const get = () => new Promise((resolve, reject) => {
  http.get(plain + '/scenario/ok', (response) => {
    response.setEncoding('utf8').on('data', resolve)
  }).on('error', reject)
})

for (const name of /** @type {const} */ (['begin', 'head', 'settle', 'connected', 'nameScope'])) {
  test(`an addon that fails in ${name} fails no call`, async () => {
    const before = farcall.status().problems.count
    mock.method(native, name, () => { throw new Error(`${name} is broken`) })
    // A fresh connection, and a scope that has no number yet.
    await farcall.withCustomer('acme', async () => {
      assert.equal(await (await fetch(plain + '/scenario/ok', { headers: { connection: 'close' } })).text(), '{"scenario":"ok"}')
      assert.equal(await get(), '{"scenario":"ok"}')
    })
    mock.restoreAll()
    const { count, last } = farcall.status().problems
    assert(count > before)
    assert.equal(last, `Error: ${name} is broken`)
    assert(farcall.status().counters.node_hook_errors > 0)
  })
}
