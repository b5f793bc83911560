// Calls that fail go into the outbox where a rule says so: fetch.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Agent } from 'undici'
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
