// Of equal calls of http one asks, and the others wait for its answer: no longer than each waits for one of its own.
import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import axios from 'axios'
import { answerOf, hangs, obey, says, vendor } from './support/again.mjs'
import { until } from './support/ledger.mjs'

obey(`
[[cache]]
match = {}
coalesce = "60s"

[[resilience]]
match = {}
deadline = "50s"
`)

/** @param {http.ClientRequest} request */
const bodyOf = async (request) => (await answerOf(request)).body

/**
 * Clients that wait for so many milliseconds, each told so as its users do it; 0 for as long as it takes.
 *
 * @type {Record<string, (url: string, ms: number, signal?: AbortSignal) => Promise<string>>}
 */
const clients = {
  'its option `timeout`': (url, ms, signal) => bodyOf(http.get(url, { timeout: ms, signal })),
  'its `setTimeout`': (url, ms, signal) => bodyOf(http.request(url, { signal }).setTimeout(ms).end()),
  'the `timeout` of axios': async (url, ms, signal) => (await axios.get(url, { timeout: ms, signal })).data
}

for (const [what, ask] of Object.entries(clients)) {
  // Without that bound it would wait for as long as the rule says, and be refused before that.
  test(`a call waits for an equal one as long as ${what} says, and asks by itself then`, async (t) => {
    const vendors = await vendor(t)
    vendors.acts.push(hangs, says(200, { 'cache-control': 'max-age=600' }, 'its own'))
    const controller = new AbortController()
    const first = assert.rejects(ask(vendors.url, 0, controller.signal), /abort|cancel/i)
    await until('the first is under way', () => vendors.got.length === 1)
    assert.equal(await ask(vendors.url, 2000), 'its own')
    assert.equal(vendors.got.length, 2)
    controller.abort()
    await first
  })
}

test('a call that says nothing waits for the answer of an equal one', async (t) => {
  const vendors = await vendor(t)
  /** @type {http.ServerResponse[]} */
  const waiting = []
  vendors.acts.push((response) => waiting.push(response))
  const all = [0, 0, 60_000].map((ms) => clients['its option `timeout`'](vendors.url, ms))
  await until('one asks', () => waiting.length === 1)
  waiting[0].writeHead(200, { 'cache-control': 'max-age=600' }).end('for all')
  assert.deepEqual(await Promise.all(all), ['for all', 'for all', 'for all'])
  assert.equal(vendors.got.length, 1)
})
