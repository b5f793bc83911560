// A call of http whose attempts are used up goes into the outbox where a rule says so.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { outbox } from '../index.js'
import { breaks, clients, obey, says, vendor } from './support/again.mjs'

obey(`
[[vendor]]
name = "recorder"
hosts = ["127.0.0.1"]
idempotency_header = "Idempotency-Key"

[[outbox]]
match = { vendor = "recorder" }
park = true

[[resilience]]
match = { vendor = "recorder" }
attempts = 2
backoff = "1ms..5ms"
retry_budget = "100%"
retry_budget_least = 1000
retry_on = ["503", "reset"]
over_sdk = true
`)

for (const [name, ask] of Object.entries(clients)) {
  for (const [how, acts] of /** @type {const} */ ([['refused', [says(503), says(503)]], ['cut off', [breaks, breaks]]])) {
    test(`${name}: a call that is ${how} twice is acknowledged and delivered later, the same in all`, async (t) => {
      const vendors = await vendor(t)
      vendors.acts.push(...acts)
      const headers = { 'content-type': 'text/plain', 'idempotency-key': `${name} ${how}` }
      const { status, body } = await ask(vendors.url, { method: 'POST', headers, body: 'the whole body' })
      assert.equal(status, 202)
      assert.equal((await outbox.wait(JSON.parse(body).farcall.id)).state, 'delivered')
      assert.deepEqual(vendors.got.map(({ body, headers }) => [body, headers['idempotency-key']]),
        Array(3).fill(['the whole body', `${name} ${how}`]))
    })
  }
}

test('a body too large to be sent again at once is delivered later', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503))
  // More than `replay_bytes`, less than the outbox takes: parked at its first failure.
  const { status, body } = await clients.http(vendors.url, { method: 'POST', body: 'x'.repeat(100_000) })
  assert.equal(status, 202)
  assert.equal((await outbox.wait(JSON.parse(body).farcall.id)).state, 'delivered')
  assert.deepEqual(vendors.got.map(({ body }) => body.length), [100_000, 100_000])
})
