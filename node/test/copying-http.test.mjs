// Shadow copies of requests of http, and of axios, got and node-fetch on top of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { test } from 'node:test'
import farcall from '../index.js'
import { answerOf, breaks, clients, hangs, obey, says, vendor } from './support/again.mjs'
import { newCustomer, until } from './support/ledger.mjs'
import { deafPort } from './support/sim.mjs'

obey(`
[[rollout]]
name = "v2"
match = { customer = "c*" }
by = "call"
shadow = "100%"
variant = { path_prefix = "/v2", headers = { x-side = "new" } }

[[rollout]]
name = "marked"
match = { tag.kind = "marked" }
by = "call"
share = "100%"
variant = { path_prefix = "/marked", headers = { x-side = "marked" } }

[[cache]]
name = "kept"
match = { tag.kind = "kept" }

[[resilience]]
match = { tag.kind = "again" }
attempts = 2
backoff = "1ms..5ms"
retry_on = ["503"]
retry_budget = "100%"
retry_budget_least = 1000
`)

/** @param {string} customer @param {string[]} filter */
async function totals (customer, ...filter) {
  await farcall.flush()
  return /** @type {any} */ ((await farcall.report('endpoints', { filter: [`customer=${customer}`, ...filter] })).totals)
}

/** @param {string} customer @param {string[]} filter */
async function copies (customer, ...filter) {
  return (await totals(customer, 'tag.shadow=v2', ...filter)).calls
}

/**
 * Whether it came to the variant.
 *
 * @param {import('./support/again.mjs').Got} got
 */
const isCopy = ({ path }) => path?.startsWith('/v2/') === true

/**
 * A vendor that does what `acts` says and is well afterwards, and whose variant does the same each time.
 *
 * @param {import('node:test').TestContext} t
 * @param {import('./support/again.mjs').Act} act
 */
async function vendorAndVariant (t, act) {
  const { acts: both, got, url } = await vendor(t)
  /** @type {import('./support/again.mjs').Act[]} */
  const acts = []
  const either = (/** @type {http.ServerResponse} */ response, /** @type {import('./support/again.mjs').Got} */ got) => {
    both.push(either)
    const does = isCopy(got) ? act : acts.shift() ?? says(200, {}, 'well')
    return does(response, got)
  }
  both.push(either)
  return { url, acts, got, copied: () => got.filter(isCopy), asked: () => got.filter((one) => !isCopy(one)) }
}

for (const [name, ask] of Object.entries(clients)) {
  test(`${name}: a copy goes to the variant, and the application gets the answer to its own`, async (t) => {
    const { url, copied, asked } = await vendorAndVariant(t, says(503, {}, 'the variant fails'))
    const customer = newCustomer()
    assert.deepEqual(await farcall.withCustomer(customer, ask, url, { headers: { 'x-mine': 'a' } }), { status: 200, body: 'well' })
    await until('the copy is counted', async () => await copies(customer) === 1)
    const [[copy], [own]] = [copied(), asked()]
    assert.deepEqual([copied().length, asked().length], [1, 1])
    assert.deepEqual([copy.method, copy.path, copy.body], [own.method, '/v2' + own.path, ''])
    const { 'x-side': side, ...rest } = copy.headers
    assert.equal(side, 'new')
    assert.deepEqual(rest, own.headers)
    assert.equal(await copies(customer, 'status=503', 'outcome=complete'), 1)
    assert.deepEqual(await totals(customer, 'tag.shadow!=v2').then(({ calls, attempts, bytes_in: bytes }) => [calls, attempts, bytes]), [1, 1, 4])
  })

  test(`${name}: a body is not sent twice`, async (t) => {
    const { url, got } = await vendorAndVariant(t, says(503))
    const customer = newCustomer()
    await farcall.withCustomer(customer, ask, url, { method: 'POST', body: 'one' })
    assert.equal((await totals(customer)).calls, 1)
    assert.equal(got.length, 1)
  })
}

test('a copy that breaks, or cannot be made, is measured, and nobody hears of it', async (t) => {
  const { url } = await vendorAndVariant(t, breaks)
  const customer = newCustomer()
  assert.equal((await farcall.withCustomer(customer, clients.http, url)).status, 200)
  await until('the copy is counted', async () => await copies(customer, 'outcome=reset', 'status=0') === 1)

  const port = await deafPort()
  const other = newCustomer()
  await assert.rejects(farcall.withCustomer(other, clients.http, `http://127.0.0.1:${port}/`), { code: 'ECONNREFUSED' })
  await until('the copy is counted', async () => await copies(other, 'outcome=connect') === 1)
})

test('an answer is not waited for with its copy, and the copy goes on when the application lets go', async (t) => {
  /** @type {http.ServerResponse[]} */
  const waiting = []
  const { url, acts } = await vendorAndVariant(t, (response) => waiting.push(response))
  const customer = newCustomer()
  assert.equal((await farcall.withCustomer(customer, clients.http, url)).status, 200)
  acts.push(hangs)
  const request = farcall.withCustomer(customer, () => http.get(url))
  const failed = once(request, 'error')
  await until('both copies are under way', () => waiting.length === 2)
  request.destroy(new Error('enough'))
  await failed
  for (const response of waiting) response.end('late')
  await until('the copies are counted', async () => await copies(customer, 'outcome=complete', 'status=200') === 2)
})

test('a copy says what the application said until it ended its request', async (t) => {
  const { url, copied } = await vendorAndVariant(t, says(200))
  const request = farcall.withCustomer(newCustomer(), () => http.request(url))
  const answer = answerOf(request)
  await new Promise(setImmediate)
  request.setHeader('x-mine', 'late')
  request.end()
  assert.equal((await answer).status, 200)
  await until('the copy arrives', () => copied().length === 1)
  assert.equal(copied()[0].headers['x-mine'], 'late')
})

test('what other rules change in a request is not in its copy', async (t) => {
  const { url, copied, asked } = await vendorAndVariant(t, says(200))
  await farcall.withCustomer(newCustomer(), () => farcall.withTags({ kind: 'marked' }, clients.http, url, { headers: { 'x-side': 'mine' } }))
  await until('the copy arrives', () => copied().length === 1)
  assert.deepEqual(asked().map(({ path, headers }) => [path, headers['x-side']]), [['/marked/v1/orders', 'marked']])
  assert.deepEqual(copied().map(({ path, headers }) => [path, headers['x-side']]), [['/v2/v1/orders', 'new']])
})

test('what comes from the cache has no copy, and nor has another attempt', async (t) => {
  const { url, copied, asked, acts } = await vendorAndVariant(t, says(200))
  const customer = newCustomer()
  acts.push(says(200, { 'cache-control': 'max-age=600' }, 'kept'))
  const get = () => farcall.withCustomer(customer, () => farcall.withTags({ kind: 'kept' }, clients.http, url))
  for (let n = 0; n < 3; n += 1) assert.equal((await get()).body, 'kept')
  await until('the copy is counted', async () => await copies(customer) === 1)
  assert.deepEqual([copied().length, asked().length], [1, 1])

  const other = newCustomer()
  acts.push(says(503))
  assert.equal((await farcall.withCustomer(other, () => farcall.withTags({ kind: 'again' }, clients.http, url + '/again'))).status, 200)
  await until('the copy is counted', async () => await copies(other) === 1)
  assert.deepEqual([copied().length, asked().length], [2, 3])
})

test('a request that asks for another protocol has no copy', async (t) => {
  const { url, got } = await vendorAndVariant(t, says(200))
  await answerOf(farcall.withCustomer(newCustomer(), () => http.get(url, { headers: { connection: 'upgrade', upgrade: 'other' } })))
  assert.equal(got.length, 1)
})

test('copies take a quarter of the connections that an agent may have, and give them back', async (t) => {
  /** @type {http.ServerResponse[]} */
  const waiting = []
  const { url, copied, asked } = await vendorAndVariant(t, (response) => waiting.push(response))
  const agents = [new http.Agent({ keepAlive: true, maxSockets: 1 }), new http.Agent({ keepAlive: true, maxSockets: 8 })]
  t.after(() => { for (const agent of agents) agent.destroy() })
  const customer = newCustomer()
  for (const agent of agents) {
    for (let n = 0; n < 10; n += 1) await farcall.withCustomer(customer, clients.http, url, { agent })
  }
  await until('the copies arrive', () => copied().length === 2)
  assert.equal(asked().length, 20)
  for (const response of waiting) response.end('late')
  const busy = () => agents.flatMap((agent) => [...Object.values(agent.sockets), ...Object.values(agent.requests)]).length
  await until('the agents have all their connections back', () => busy() === 0)
  await farcall.withCustomer(customer, clients.http, url, { agent: agents[1] })
  await until('there is room for another one', () => copied().length === 3)
  waiting[2].end()
  await until('the copies are counted', async () => await copies(customer) === 3)
})
