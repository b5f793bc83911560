import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
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
  const good = { method: 'POST', url: 'http://a.example/' }
  await assert.rejects(outbox.put({ ...good, maxAgeMs: 0 }), { name: 'RangeError', message: /^maxAgeMs is 1 at least/ })
  const inTurn = /** @type {any} */ (outbox.put)('POST', good.url)
  await assert.rejects(inTurn, { name: 'TypeError', message: /takes one object/ })
  await assert.rejects(outbox.put(/** @type {any} */ ({ url: good.url })), /its `method` is missing/)
  const headers = /** @type {any} */ ({ authorization: { evn: 'KEY' } })
  await assert.rejects(outbox.put({ ...good, headers }), /the header `authorization` .*`evn` is not a key of it/)
  await assert.rejects(outbox.put({ ...good, url: 'ftp://a.example/' }), /begins with neither http:\/\/ nor https:\/\//)
  await assert.rejects(outbox.put({ ...good, method: 'connect' }), /its method is CONNECT, which asks a proxy/)
  const body = /** @type {any} */ ({ a: 1 })
  await assert.rejects(outbox.put({ ...good, body }), { name: 'TypeError', message: /^body is a string or bytes, not object/ })
  const credential = /** @type {any} */ (outbox.credential)
  assert.throws(() => credential(3, () => 'a'), { name: 'TypeError', message: 'the name of a credential is a string, not number' })
  assert.throws(() => credential('a', 'b'), { name: 'TypeError', message: 'the credential a comes from a function, not from string' })
  await assert.rejects(outbox.item(999_999), /there is no call 999999/)
})

test('a method is sent as clients send it', async (t) => {
  const { url } = await recorder(t)
  const { id } = await outbox.put({ method: 'post', url, body: 'a' })
  const { state, method } = await outbox.wait(id)
  assert.deepEqual([state, method], ['delivered', 'POST'])
})

test('a number that cannot be meant is not taken for the default', async (t) => {
  const { url } = await recorder(t)
  const good = { method: 'POST', url, delayMs: 3_600_000 }
  for (const option of ['maxAgeMs', 'timeoutMs', 'delayMs', 'maxAttempts']) {
    for (const value of [NaN, Infinity, -1, 2 ** 53]) {
      await assert.rejects(outbox.put({ ...good, [option]: value }), (/** @type {any} */ error) => {
        return error instanceof RangeError && error.message.startsWith(`${option} is `) && error.message.endsWith(`not ${value}`)
      }, `${option} ${value}`)
    }
    for (const value of ['60000', null, 1n]) {
      await assert.rejects(outbox.put(/** @type {any} */ ({ ...good, [option]: value })), { name: 'TypeError', message: new RegExp(`^${option} is a number`) })
    }
  }
  await assert.rejects(outbox.put({ ...good, maxAttempts: 0 }), { name: 'RangeError', message: /^maxAttempts is 1 at least/ })
  const receipt = await outbox.put({ ...good, maxAgeMs: 60_000.4, timeoutMs: undefined, maxAttempts: 1 })
  await assert.rejects(outbox.wait(receipt.id, { timeoutMs: NaN }), { name: 'RangeError', message: /^timeoutMs is .*not NaN$/ })
  await assert.rejects(receipt.done({ timeoutMs: NaN }), { name: 'RangeError', message: /^timeoutMs is .*not NaN$/ })
  const { state, put_at: put, expires_at: expires } = await outbox.wait(receipt.id, { timeoutMs: -1 })
  assert.deepEqual([state, Date.parse(expires) - Date.parse(put)], ['pending', 60_000])
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

test('a function of the program is asked anew at each attempt', async (t) => {
  const { got, statuses, url } = await recorder(t)
  let times = 0
  outbox.credential('rotates', async () => `sk_${++times}`)
  statuses.push(401)
  const { id, done } = await outbox.put({
    method: 'POST', url, headers: { authorization: outbox.callback('rotates', { prefix: 'Bearer ' }) }
  })
  assert.equal((await done()).status, 200)
  assert.deepEqual(got.map(({ headers }) => headers.authorization), ['Bearer sk_1', 'Bearer sk_2'])
  const item = await outbox.item(id)
  assert.deepEqual([item.credential, item.attempts], ['rotates', 2])
})

test('a function that has no credential is a failed attempt', async (t) => {
  const { got, url } = await recorder(t)
  class SealedError extends Error {}
  /** @type {[() => any, string][]} */
  const cases = [
    [() => { throw new SealedError('sk_in_the_message') }, 'failed (SealedError)'],
    [() => undefined, 'failed (it gave undefined, and no string)'],
    [() => '', 'has nothing to give']
  ]
  for (const [ask, why] of cases) {
    outbox.credential('fails', ask)
    const call = { method: 'POST', url, headers: { 'x-api-key': outbox.callback('fails') }, maxAttempts: 1 }
    const item = await outbox.wait((await outbox.put(call)).id)
    assert.deepEqual([item.state, item.attempts], ['dead', 1])
    assert.equal(item.error, `the callback of the credential \`fails\` ${why}`)
  }
  assert.deepEqual(got, [])
  assert.throws(() => outbox.credential('x', /** @type {any} */ ('sk')), /comes from a function, not from string/)
  assert.throws(() => outbox.credential('', () => 'sk'), /the name of a credential/)
})

test('a process without the function leaves the call to one that has it, which it does not keep alive', async (t) => {
  const { got, url } = await recorder(t)
  const home = mkdtempSync(join(tmpdir(), 'farcall-credential-'))
  t.after(() => rmSync(home, { recursive: true, force: true }))
  const program = fileURLToPath(new URL('programs/credential.cjs', import.meta.url))
  /** @param {string} part */
  const run = (part) => promisify(execFile)(process.execPath, [program, part, url], { env: { ...process.env, FARCALL_HOME: home } })
  await run('stranger')
  assert.deepEqual(got.map(({ body }) => body), ['usual'])
  await run('knows')
  assert.deepEqual(got.map(({ body, headers }) => [body, headers['x-api-key']]), [['usual', undefined], ['first', 'sk_vault']])
  // Ends by itself, though its function might be asked again.
  await run('waits')
})
