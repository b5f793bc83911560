import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import farcall, { outbox } from '../index.js'
import { newCustomer } from './support/ledger.mjs'
import { recorder } from './support/parking.mjs'

farcall.install({ service: 'outbox-test' })

test('a call that was put is delivered, and its answer can be read', async (t) => {
  const { got, url } = await recorder(t)
  process.env.OUTBOX_TEST_KEY = 'a-key-of-the-environment'
  const { id, idempotencyKey } = await farcall.withCustomer(newCustomer(), () => outbox.put({
    method: 'POST',
    url,
    headers: { authorization: { env: 'OUTBOX_TEST_KEY', prefix: 'Bearer ' }, 'x-mine': 'a' },
    json: { amount: 7 },
    idempotencyHeader: 'idempotency-key'
  }))
  const item = await outbox.wait(id)
  assert.deepEqual([item.state, item.status, item.service], ['delivered', 200, 'outbox-test'], JSON.stringify(item))
  assert.equal(got[0].body, '{"amount":7}')
  const { authorization, 'x-mine': mine, 'content-type': type, 'idempotency-key': key } = got[0].headers
  assert.deepEqual([authorization, mine, type], ['Bearer a-key-of-the-environment', 'a', 'application/json'])
  assert.equal(key, idempotencyKey)
  const answer = await outbox.answer(id)
  assert.equal(answer?.body.toString(), 'thanks')
  assert.ok(answer?.headers.some(([name, value]) => name === 'x-answer' && value === 'yes'))
})

test('calls of one key arrive in order though the first one failed at first', async (t) => {
  const { got, statuses, url } = await recorder(t)
  statuses.push(503)
  /** @type {number[]} */
  const ids = []
  for (const body of ['0', '1', '2']) ids.push((await outbox.put({ method: 'PUT', url, body, orderKey: 'k' })).id)
  for (const id of ids) assert.equal((await outbox.wait(id)).state, 'delivered')
  assert.deepEqual(got.map(({ body }) => body), ['0', '0', '1', '2'])
})

test('what cannot be kept is rejected', async () => {
  await assert.rejects(outbox.put({ method: 'POST', url: '/v1' }), /its URL is not an absolute one/)
  await assert.rejects(outbox.put(/** @type {any} */ ({ method: 'POST', url: 'http://a.example/', tiemout: 1 })), /knows no `tiemout`/)
  await assert.rejects(outbox.item(999_999), /there is no call 999999/)
})

test('a receipt says what came of its call', async (t) => {
  const { statuses, url } = await recorder(t)
  const receipt = await outbox.put({ method: 'POST', url, body: 'a' })
  assert.equal((await receipt.done()).body.toString(), 'thanks')
  statuses.push(422)
  const refused = await outbox.put({ method: 'POST', url, body: 'b' })
  await assert.rejects(refused.done(), /was given up: the vendor answered 422/)
  const later = await outbox.put({ method: 'POST', url, body: 'c', delayMs: 3_600_000 })
  await assert.rejects(later.done({ timeoutMs: 30 }), /is not delivered yet/)
  assert.deepEqual(Object.keys(later), ['id', 'idempotencyKey'])
})

test('an outbox that cannot be asked for a while ends no waiting', async (t) => {
  const { url } = await recorder(t)
  const receipt = await outbox.put({ method: 'POST', url, body: 'a' })
  const addon = createRequire(import.meta.url)('../lib/native.js').native()
  const look = addon.outboxItem
  for (const wait of [() => receipt.done(), () => outbox.wait(receipt.id)]) {
    let looks = 0
    addon.outboxItem = async (/** @type {number} */ id) => {
      if (++looks < 4) throw Object.assign(new Error('it is away'), { code: 'QueueFull' })
      return look(id)
    }
    try {
      await wait()
    } finally {
      addon.outboxItem = look
    }
    assert.ok(looks >= 4, `${looks}`)
  }
})

test('a response that was parked has a receipt', async () => {
  assert.equal(await outbox.parked(new Response('x')), null)
  const { id, idempotencyKey } = await outbox.put({ method: 'PUT', url: 'http://vendor.invalid/', idempotencyKey: 'k7' })
  const headers = { 'farcall-outbox': `parked; id=${id}` }
  const receipt = await outbox.parked(new Response('', { status: 202, headers }))
  assert.deepEqual([receipt?.id, receipt?.idempotencyKey], [id, idempotencyKey])
  // As what waits in the spool has it.
  await assert.rejects(outbox.parked(new Response('', { headers: { 'farcall-outbox': 'parked; id=-1' } })), /no call -1/)
})
