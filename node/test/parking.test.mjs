// Calls that fail go into the outbox where a rule says so: fetch.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent, Client, EnvHttpProxyAgent, MockAgent, ProxyAgent } from 'undici'
import farcall, { outbox } from '../index.js'
import { cert, key } from './support/certificate.mjs'
import { parkingRules, recorder } from './support/parking.mjs'
import { deafPort } from './support/sim.mjs'

parkingRules()
farcall.install({ service: 'parking-test' })

for (const [name, status] of /** @type {const} */ ([['answered with 503', 503], ['whose connection breaks', 0]])) {
  test(`a call ${name} is acknowledged and delivered later under the same key`, async (t) => {
    const { got, statuses, url } = await recorder(t)
    statuses.push(status)
    const response = await farcall.withCustomer('acme', () => fetch(url, {
      method: 'POST', body: new URLSearchParams({ amount: '7' }), headers: { 'x-mine': 'a' }
    }))
    assert.equal(response.status, 202)
    const id = Number(/^parked; id=(\d+)$/.exec(response.headers.get('farcall-outbox') ?? '')?.[1])
    const said = /** @type {any} */ (await response.json()).farcall
    assert.equal(said.id, id)
    const item = await outbox.wait(id)
    assert.deepEqual([item.state, item.customer], ['delivered', 'acme'], JSON.stringify(item))
    assert.equal(got.length, 2)
    for (const { headers, body } of got) {
      assert.equal(headers['idempotency-key'], said.idempotency_key)
      assert.deepEqual([body, headers['x-mine']], ['amount=7', 'a'])
      assert.match(headers['content-type'] ?? '', /^application\/x-www-form-urlencoded/)
    }
  })
}

test('a call that a quota refuses is parked without being sent', async (t) => {
  const { got, url } = await recorder(t)
  await farcall.withCustomer('limited', async () => {
    await fetch(url, { method: 'POST', body: 'first' })
    const response = await fetch(url, { method: 'POST', body: 'second' })
    const { why, id } = /** @type {any} */ (await response.json()).farcall
    assert.deepEqual([response.status, why], [202, 'refused by quota'])
    assert.equal((await outbox.item(id)).state, 'pending')
  })
  assert.deepEqual(got.map(({ body }) => body), ['first'])
})

test('a body that can be read only once is the application\'s to send again', async (t) => {
  const { statuses, url } = await recorder(t)
  statuses.push(503)
  const body = new Blob(['once']).stream()
  const response = await fetch(url, /** @type {any} */ ({ method: 'POST', body, duplex: 'half' }))
  assert.deepEqual([response.status, await response.text()], [503, 'thanks'])
})

test('a call with a client certificate of its dispatcher is not parked, for a delivery would not have it', async (t) => {
  const url = `https://127.0.0.1:${await deafPort()}/`
  const unparkable = () => farcall.status().counters.unparkable_calls ?? 0
  const before = unparkable()
  /** @param {object} connect */
  const post = (connect) => {
    const dispatcher = new Agent({ connect })
    t.after(() => dispatcher.destroy())
    return fetch(url, /** @type {any} */ ({ method: 'POST', body: 'one', dispatcher }))
  }
  await assert.rejects(post({ cert, key }), TypeError)
  assert.equal(unparkable(), before + 1)
  assert.equal((await post({})).status, 202)
  assert.equal(unparkable(), before + 1)
})

/** @param {string} url */
function mocked (url) {
  const mock = new MockAgent()
  mock.get(new URL(url).origin).intercept({ path: '/', method: 'POST' }).reply(503, 'down')
  return mock
}

// Nobody listens anywhere, so each of these fails before it is sent.
for (const [name, words, make] of /** @type {const} */ ([
  ['through a proxy', 'goes through a proxy', () => new ProxyAgent('http://127.0.0.1:1')],
  ['through a proxy of the environment', 'goes through a proxy', () => new EnvHttpProxyAgent({ httpsProxy: 'http://127.0.0.1:1' })],
  ['through a Unix socket', 'goes through a Unix socket', () => new Agent({ connect: { socketPath: process.execPath } })],
  ['by a connector of its own', 'in a way of its own', () => new Agent({ connect: (_, callback) => callback(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }), null) })],
  ['by a client of one host', 'in a way of its own', () => new Client('https://127.0.0.1:1')],
  ['to nobody', 'in a way of its own', mocked],
  ['without verifying', 'takes any certificate', () => new Agent({ connect: { rejectUnauthorized: false } })],
  ['to another name', 'another name in the certificate', () => new Agent({ connect: { servername: 'other.example' } })],
  ['by clients that it makes itself', 'in a way of its own', () => new Agent({ factory: (origin) => new Client(origin) })],
  ['trusting others', 'certificate authorities of its own', () => new Agent({ connect: { ca: [cert] } })]
])) {
  test(`a call ${name} is not parked, for a delivery goes straight to its URL`, async (t) => {
    const url = `https://127.0.0.1:${await deafPort()}/`
    const unparkable = () => farcall.status().counters.unparkable_calls ?? 0
    const before = unparkable()
    const dispatcher = make(url)
    t.after(() => dispatcher.close())
    const seen = fetch(url, /** @type {any} */ ({ method: 'POST', body: 'one', dispatcher }))
    assert.equal(await seen.then(({ status }) => status, () => 'raised'), make === mocked ? 503 : 'raised')
    assert.equal(unparkable(), before + 1)
    await farcall.flush()
    const { rows } = /** @type {any} */ (await farcall.report('calls'))
    const stories = rows.map((/** @type {any} */ { events }) => events.join('\n'))
    assert.match(stories.join('\n'), new RegExp(`would have it parked, but.*${words}`))
    const both = stories.filter((/** @type {string} */ story) => story.includes('would have it') && story.includes('has it parked'))
    assert.deepEqual(both, [])
  })
}

test('a call by an agent that looks for a proxy and finds none is parked', async (t) => {
  const dispatcher = new EnvHttpProxyAgent({ httpProxy: '', httpsProxy: '' })
  t.after(() => dispatcher.destroy())
  const url = `https://127.0.0.1:${await deafPort()}/`
  const response = await fetch(url, /** @type {any} */ ({ method: 'POST', body: 'one', dispatcher }))
  assert.equal(response.status, 202)
})
