// What fetch sends beside an attempt: a second one where the first is slow, and shadow copies.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import farcall from '../index.js'
import { newCustomer, outcomes, until } from './support/ledger.mjs'
import { arrived, forget, plain } from './support/sim.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-beside-'))
after(() => rmSync(scratch, { recursive: true }))
const host = new URL(plain).hostname

process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[resilience]]
match = { tag.kind = "hedged" }
hedge = { after = "30ms", budget = "100%" }

[[resilience]]
match = { tag.kind = "frugal" }
hedge = { after = "30ms", budget = "1%" }

[[rollout]]
name = "v2"
match = { tag.kind = "shadowed" }
by = "call"
shadow = "100%"
variant = { path_prefix = "/v2" }
`)
farcall.install()
beforeEach(async () => {
  await fetch(plain + '/_sim/script', { method: 'DELETE' })
  await forget()
})
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
after(() => assert.equal(farcall.status().inFlight, 0))

/** @param {unknown} rules */
async function script (rules) {
  const response = await fetch(plain + '/_sim/script', { method: 'POST', body: JSON.stringify(rules) })
  assert.equal(response.status, 200, await response.text())
}

/**
 * @template R
 * @param {string} kind
 * @param {string} customer
 * @param {() => R} fn
 */
const as = (kind, customer, fn) => farcall.withCustomer(customer, () => farcall.withTags({ kind }, fn))

/** @param {string[]} filter */
async function totals (...filter) {
  await farcall.flush()
  return /** @type {any} */ ((await farcall.report('endpoints', { filter })).totals)
}

test('a second attempt answers for a first one that hangs, which is given up', async () => {
  const customer = newCustomer()
  await script({ match: { host, path: '/scenario/bytes/555' }, count: 1, effect: { hang: true } })
  const response = await as('hedged', customer, () => fetch(plain + '/scenario/bytes/555'))
  assert.equal((await response.text()).length, 555)
  const { calls, attempts, bytes_in: bytesIn } = await totals(`customer=${customer}`)
  assert.deepEqual({ calls, attempts, bytesIn }, { calls: 1, attempts: 2, bytesIn: 555 })
  assert.equal(await outcomes(customer, 'complete', 200), 1)
  assert.equal((await arrived()).calls, 2, 'and none of them is open any more')
})

test('a second attempt that fails leaves the first one its time', async () => {
  const customer = newCustomer()
  /** @type {import('node:http').ServerResponse[]} */
  const asked = []
  const server = createServer((_, response) => {
    asked.push(response)
    if (asked.length > 1) response.writeHead(503).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const asking = as('hedged', customer, () => fetch(`http://127.0.0.1:${port}/`))
  await until('both are under way', () => asked.length === 2)
  await until('one of them is over', () => farcall.status().inFlight === 1)
  asked[0].end('fine')
  const response = await asking
  assert.equal(response.status, 200)
  assert.equal(await response.text(), 'fine')
  server.close()
  server.closeAllConnections()
  const { calls, attempts } = await totals(`customer=${customer}`)
  assert.deepEqual({ calls, attempts }, { calls: 1, attempts: 2 })
  assert.equal(await outcomes(customer, 'complete', 200), 1)
})

test('second attempts stay within their budget', async () => {
  const customer = newCustomer()
  await script({ match: { host, path: '/scenario/ok' }, effect: { latency_ms: 200 } })
  for (let n = 0; n < 4; n += 1) {
    await as('frugal', customer, async () => (await fetch(plain + '/scenario/ok')).text())
  }
  const { calls, attempts } = await totals(`customer=${customer}`)
  assert.equal(calls, 4)
  assert(attempts >= 5 && attempts < 8, `${attempts}: one in ten seconds in any case`)
})

test('an application that lets go takes both attempts with it', async () => {
  const customer = newCustomer()
  const controller = new AbortController()
  const reason = new Error('the user left')
  const asking = as('hedged', customer, () => fetch(plain + '/scenario/hang', { signal: controller.signal }))
  await until('both are under way', () => farcall.status().inFlight === 2)
  controller.abort(reason)
  await assert.rejects(asking, reason)
  assert.equal(await outcomes(customer, 'cancelled'), 1)
  assert.equal((await totals(`customer=${customer}`)).attempts, 2)
})

test('nothing is sent beside what must not be repeated', async () => {
  const customer = newCustomer()
  await script({ match: { host, path: '/scenario/echo' }, effect: { latency_ms: 200 } })
  for (const kind of ['hedged', 'shadowed']) {
    await as(kind, customer, async () => (await fetch(plain + '/scenario/echo', { method: 'POST', body: 'x' })).text())
  }
  const { calls, attempts } = await totals(`customer=${customer}`)
  assert.deepEqual({ calls, attempts }, { calls: 2, attempts: 2 })
})

for (const [what, effect, outcome, status] of /** @type {const} */ ([
  ['fails', { status: 500 }, 'complete', 500],
  ['breaks', { reset: {} }, 'reset', 0],
  ['is slow', { latency_ms: 300 }, 'complete', 200]
])) {
  test(`a copy that ${what} is measured, and nobody gets its answer`, async () => {
    const customer = newCustomer()
    await script({ match: { host, path: '/v2/scenario/bytes/99' }, effect })
    const response = await as('shadowed', customer, () => fetch(plain + '/scenario/bytes/99'))
    assert.equal(response.status, 200)
    assert.equal((await response.text()).length, 99)
    await until('the copy is counted', async () => (await totals(`customer=${customer}`)).calls === 2)
    const copies = [`customer=${customer}`, 'tag.shadow=v2', `outcome=${outcome}`, `status=${status}`]
    assert.equal((await totals(...copies)).calls, 1)
    assert.equal(await outcomes(customer, 'complete', 200), what === 'is slow' ? 2 : 1)
  })
}
