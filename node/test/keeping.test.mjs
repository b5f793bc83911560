// Bodies that are kept for the outbox: not more than there is room for, and none that is not whole.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { test } from 'node:test'
import farcall from '../index.js'
import { until } from './support/ledger.mjs'
import { parkingRules } from './support/parking.mjs'

parkingRules()
farcall.install({ service: 'parking-test' })

/**
 * A vendor that answers when it is told to.
 *
 * @param {import('node:test').TestContext} t
 */
async function holder (t) {
  /** @type {Map<string, { answer: (status: number) => void, text: () => Promise<string> }>} */
  const asked = new Map()
  const server = http.createServer((request, response) => {
    asked.set(String(request.headers['x-name']), {
      answer: (status) => response.writeHead(status).end('said'),
      text: async () => String(Buffer.concat(await request.toArray()))
    })
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  /** @param {string} name */
  const got = async (name) => {
    await until(`${name} arrived`, () => asked.has(name))
    return /** @type {{ answer: (status: number) => void, text: () => Promise<string> }} */ (asked.get(name))
  }
  return { url: `http://127.0.0.1:${port}/v1/orders`, got }
}

/**
 * @param {string} url
 * @param {string} name
 * @param {http.RequestOptions} [options]
 */
function begin (url, name, options) {
  const request = http.request(url, { method: 'POST', headers: { 'x-name': name }, ...options })
  const answered = new Promise((/** @type {(status: number) => void} */ resolve, reject) => {
    request.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode ?? 0)))
    request.on('error', reject)
  })
  // Some are let go of.
  answered.catch(() => {})
  return { request, answered }
}

const counters = () => {
  const { node_unkept_bodies: unkept = 0, unparkable_calls: unparkable = 0 } = farcall.status().counters
  return { unkept, unparkable }
}

const MIB = 1024 * 1024

test('a thread keeps 64 MiB of what http sends, and the rest is the application\'s to send again', async (t) => {
  const { url, got } = await holder(t)
  const before = counters()
  const body = Buffer.alloc(MIB)
  const others = Array.from({ length: 64 }, (_, n) => begin(url, `other ${n}`))
  for (const { request } of others) request.end(body)
  assert.deepEqual(counters(), before)

  const last = begin(url, 'last')
  last.request.end('x')
  assert.deepEqual(counters(), { ...before, unkept: before.unkept + 1 })
  const there = await got('last')
  assert.equal(await there.text(), 'x')
  there.answer(503)
  assert.equal(await last.answered, 503)
  assert.deepEqual(counters(), { unkept: before.unkept + 1, unparkable: before.unparkable + 1 })

  // However they end, there is room again.
  for (const [n, { request }] of others.entries()) if (n % 2 === 1) request.destroy()
  for (const [n, { answered }] of others.entries()) {
    if (n % 2 === 1) continue
    const other = await got(`other ${n}`)
    await other.text()
    other.answer(200)
    assert.equal(await answered, 200)
  }
  await until('none is under way', () => farcall.status().inFlight === 0)
  const again = Array.from({ length: 64 }, (_, n) => begin(url, `again ${n}`))
  for (const { request } of again) request.end(body)
  assert.equal(counters().unkept, before.unkept + 1)
  for (const { request } of again) request.destroy()
  await until('none is under way', () => farcall.status().inFlight === 0)
})

test('so it does of what fetch sends, and sends the rest as it is', async (t) => {
  const { url, got } = await holder(t)
  const before = counters()
  const giving = new AbortController()
  /** @param {string} name @param {Uint8Array<ArrayBuffer>} body @param {AbortSignal} [signal] */
  const post = (name, body, signal) => fetch(url, { method: 'POST', body, signal, headers: { 'x-name': name } })
  const body = new Uint8Array(16 * MIB)
  const others = Array.from({ length: 4 }, (_, n) => post(`other ${n}`, body, giving.signal))
  assert.deepEqual(counters(), before)
  const last = post('last', Buffer.from('x'))
  const there = await got('last')
  assert.equal(await there.text(), 'x')
  there.answer(503)
  const response = await last
  assert.deepEqual([response.status, await response.text()], [503, 'said'])
  assert.deepEqual(counters(), { unkept: before.unkept + 1, unparkable: before.unparkable + 1 })

  giving.abort()
  await Promise.allSettled(others)
  const next = post('next', Buffer.from('x'));
  (await got('next')).answer(503)
  assert.equal((await next).status, 202)
  assert.equal(counters().unkept, before.unkept + 1)
})

test('a body that is larger than the outbox takes is sent as it is', async (t) => {
  const { url, got } = await holder(t)
  const before = counters()
  const call = fetch(url, { method: 'POST', body: new Uint8Array(16 * MIB + 1), headers: { 'x-name': 'large' } })
  const there = await got('large')
  assert.equal((await there.text()).length, 16 * MIB + 1)
  there.answer(503)
  assert.equal((await call).status, 503)
  assert.deepEqual(counters(), before)
})

test('what was written before it came to its agent is not parked', async (t) => {
  const { url, got } = await holder(t)
  class LateAgent extends http.Agent {
    /** @param {unknown[]} args */
    addRequest (...args) {
      // @ts-expect-error the types do not have it
      setImmediate(() => super.addRequest(...args))
    }
  }
  const agent = new LateAgent()
  const { request, answered } = begin(url, 'late', { agent, headers: { 'x-name': 'late', 'content-length': 5 } })
  request.end('whole')
  const there = await got('late')
  assert.equal(await there.text(), 'whole')
  there.answer(503)
  assert.equal(await answered, 503)
})

test('an upload amid which Farcall is uninstalled ends as it began', async (t) => {
  const { url, got } = await holder(t)
  t.after(() => farcall.install())
  const { request, answered } = begin(url, 'amid')
  request.write('one ')
  const there = await got('amid')
  farcall.uninstall()
  const another = begin(url, 'another')
  another.request.end('x')
  request.end('two')
  assert.equal(await there.text(), 'one two')
  there.answer(503);
  (await got('another')).answer(503)
  assert.deepEqual([await answered, await another.answered], [202, 503])
  assert.equal(farcall.status().inFlight, 0)
  assert.equal(Object.hasOwn(http.ClientRequest.prototype, 'emit'), false)
})

test('of one amid which others keep hold of what was uninstalled, no part is parked', async (t) => {
  const { url, got } = await holder(t)
  const { prototype } = http.ClientRequest
  const { end } = prototype
  t.after(() => {
    prototype.end = end
    farcall.install()
  })
  const { request, answered } = begin(url, 'amid')
  request.write('one ')
  const there = await got('amid')
  // An instrumentation that takes itself off, and what it found there along with it.
  Object.assign(prototype, { end: http.OutgoingMessage.prototype.end })
  farcall.uninstall()
  request.end('two')
  assert.equal(await there.text(), 'one two')
  there.answer(503)
  assert.equal(await answered, 503)
})
