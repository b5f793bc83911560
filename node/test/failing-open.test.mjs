// What goes wrong inside Farcall is counted, and the application's call goes on.
import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
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

/** What may break: the addon, and what a hook itself relies on. */
const breakages = /** @type {const} */ ({
  'the addon does not take calls': [native, 'account'],
  'the addon does not take customers': [native, 'nameScope'],
  'the scope cannot be read': [AsyncLocalStorage.prototype, 'getStore']
})

for (const [name, [object, method]] of Object.entries(breakages)) {
  test(`no call fails because ${name}`, async () => {
    const before = farcall.status().problems.count
    await farcall.withCustomer(name, async () => {
      mock.method(/** @type {any} */ (object), method, () => { throw new Error(name) })
      // A connection of its own, so that its times are read as well.
      const response = await fetch(plain + '/scenario/ok', { headers: { connection: 'close' } })
      assert.equal(await response.text(), '{"scenario":"ok"}')
      assert.equal(await get(), '{"scenario":"ok"}')
      await farcall.flush()
    })
    mock.restoreAll()
    const { count, last } = farcall.status().problems
    assert(count > before)
    assert.equal(last, `Error: ${name}`)
    assert(farcall.status().counters.node_hook_errors > 0)
  })
}
