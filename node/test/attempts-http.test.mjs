// Calls that fail are tried again where a rule says so: http, and axios, got and node-fetch on top of it.
import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import http from 'node:http'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import axios from 'axios'
import got from 'got'
import farcall from '../index.js'
import { answerOf, breaks, clients, hangs, obey, says, vendor } from './support/again.mjs'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'
import { deafPort } from './support/sim.mjs'

obey(`
[[resilience]]
match = {}
attempts = 3
backoff = "1ms..5ms"
retry_on = ["503", "429", "reset", "connect", "timeout"]
retry_budget = "100%"
retry_budget_least = 1000
idempotency_header = "idempotency-key"
over_sdk = true

[[resilience]]
match = { customer = "own-retries" }
attempts = 3
backoff = "1ms..5ms"

[[resilience]]
match = { customer = "patient" }
attempts = 2
backoff = "30s..60s"

[[resilience]]
match = { customer = "slow" }
attempts = 2
backoff = "1s..2s"

[[resilience]]
match = { customer = "hurried" }
attempt_timeout = "1s"

[[resilience]]
match = { customer = "short of budget" }
attempts = 3
backoff = "1ms..5ms"
retry_budget = "0%"
retry_budget_least = 1

[[resilience]]
match = { customer = "single" }
attempts = 1
`)

/** @param {string} customer */
async function attempts (customer) {
  await farcall.flush()
  const { totals } = await farcall.report('endpoints', { filter: `customer=${customer}` })
  return [totals.calls, totals.attempts]
}

for (const [name, ask] of Object.entries(clients)) {
  test(`${name}: what failed for a moment is sent again, whole and under the same key`, async (t) => {
    const vendors = await vendor(t)
    vendors.acts.push(says(503), breaks)
    const customer = newCustomer()
    const body = JSON.stringify({ text: 'grüße'.repeat(100) })
    // An SDK that tries again by itself is left its own keys.
    const method = name === 'got' ? 'PUT' : 'POST'
    const asked = { method, headers: { 'content-type': 'application/json', 'x-mine': 'a' }, body }
    assert.deepEqual(await farcall.withCustomer(customer, ask, vendors.url, asked), { status: 200, body })
    assert.equal(vendors.got.length, 3)
    const [{ headers }] = vendors.got
    if (method === 'POST') assert.match(String(headers['idempotency-key']), /^[0-9a-f]{32}$/)
    for (const one of vendors.got) {
      assert.deepEqual([one.body, one.method, one.path], [body, method, '/v1/orders'])
      const { connection: _, ...kept } = one.headers
      const { connection: __, ...first } = headers
      assert.deepEqual(kept, first)
    }
    assert.deepEqual(await attempts(customer), [1, 3])
    const bytes = Buffer.byteLength(body)
    assert.deepEqual(await counted(customer, 'status=200', 'outcome=complete'), { calls: 1, bytesOut: 3 * bytes, bytesIn: bytes + 'said 503'.length })
  })

  test(`${name}: the last answer is the application's`, async (t) => {
    const vendors = await vendor(t)
    vendors.acts.push(says(503), says(503), says(503, {}, 'the last'))
    const customer = newCustomer()
    const { status, body } = await farcall.withCustomer(customer, ask, vendors.url)
    assert.deepEqual([status, body], [503, 'the last'])
    assert.deepEqual(await attempts(customer), [1, 3])
  })

  test(`${name}: the last error is the application's, as Node made it`, async () => {
    const port = await deafPort()
    const customer = newCustomer()
    const failed = (/** @type {string} */ whose) => farcall.withCustomer(whose, ask, `http://127.0.0.1:${port}/`).then(
      () => assert.fail('somebody answered'),
      (error) => {
        for (let at = error; at; at = at.cause ?? at.erroredSysCall) if (at.syscall) return at
        return error
      })
    const error = await failed(customer)
    const natural = await failed('single')
    const told = (/** @type {any} */ { code, errno, syscall, address, port, message, name }) => ({ code, errno, syscall, address, port, message, name })
    assert.deepEqual(told(error), told(natural))
    assert.equal(error.code, 'ECONNREFUSED')
    assert.deepEqual(await attempts(customer), [1, 3])
  })

  test(`${name}: an abort ends the attempt that is under way, and there is no other`, async (t) => {
    const vendors = await vendor(t)
    const controller = new AbortController()
    /** @type {() => void} */
    let arrived = () => {}
    const second = new Promise((/** @type {(value?: unknown) => void} */ resolve) => { arrived = resolve })
    vendors.acts.push(says(503), arrived)
    const customer = newCustomer()
    const asked = farcall.withCustomer(customer, ask, vendors.url, { method: 'PUT', body: 'one', signal: controller.signal })
    const failed = assert.rejects(asked, (/** @type {any} */ error) => /Abort|Cancel/.test(error.name))
    await second
    const gone = once(vendors.got[1].socket, 'close')
    controller.abort()
    await failed
    await gone
    assert.equal(await outcomes(customer, 'cancelled'), 1)
    assert.deepEqual(await attempts(customer), [1, 2])
  })
}

test('an abort ends the wait for another attempt', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503))
  const agent = new http.Agent({ keepAlive: true })
  const request = farcall.withCustomer('patient', () => http.get(vendors.url, { agent }))
  // Nobody gets the answer, and its connection is the agent's again.
  await once(agent, 'free')
  const reason = new Error('the user left')
  const failed = once(request, 'error')
  const closed = new Promise((resolve) => request.once('close', resolve))
  assert.equal(request.destroyed, false)
  assert.equal(request.destroy(reason), request)
  assert.equal(request.destroyed, true)
  assert.equal((await failed)[0], reason)
  await closed
  assert.equal(vendors.got.length, 1)
  assert.equal(await outcomes('patient', 'cancelled'), 1)
  agent.destroy()
})

test('a signal of the request ends a later attempt', async (t) => {
  const vendors = await vendor(t)
  const controller = new AbortController()
  vendors.acts.push(breaks, () => controller.abort())
  const request = http.get(vendors.url, { signal: controller.signal })
  const closed = new Promise((resolve) => request.once('close', resolve))
  const [error] = await once(request, 'error')
  assert.equal(error.name, 'AbortError')
  await closed
})

test('the events of a request come once, in their order, and the answer is its own', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503), breaks)
  const request = http.request(vendors.url, { method: 'PUT', headers: { 'X-Mine': 'a' } })
  /** @type {string[]} */
  const events = []
  for (const event of ['socket', 'finish', 'response', 'error', 'close', 'timeout', 'abort']) request.on(event, () => events.push(event))
  request.write('one ')
  request.end('two', () => events.push('ended'))
  const [response] = await once(request, 'response')
  assert.deepEqual([request.destroyed, request.writableEnded, request.writableFinished], [false, true, true])
  assert.deepEqual([response.req.getHeader('x-mine'), response.req.method, response.req.path], ['a', 'PUT', '/v1/orders'])
  assert.deepEqual(response.req.getRawHeaderNames().includes('X-Mine'), true)
  const text = String(Buffer.concat(await response.toArray()))
  assert.equal(text, 'one two')
  if (!request.closed) await once(request, 'close')
  assert.deepEqual([...events].sort(), ['close', 'ended', 'finish', 'response', 'socket'])
  assert.deepEqual([events.indexOf('socket'), events.at(-1)], [0, 'close'])
  assert.equal(request.destroyed, true)
})

test('a body that is written before there is a connection is taken by the next one', async () => {
  const port = await deafPort()
  const request = http.request({ host: '127.0.0.1', port, method: 'PUT', headers: { 'content-length': 3 } })
  const written = new Promise((resolve) => request.write('one', resolve))
  const failed = once(request, 'error')
  await written
  // As got does it: only what was taken is ended.
  const ended = new Promise((resolve) => request.end(resolve))
  assert.equal((await failed)[0].code, 'ECONNREFUSED')
  await ended
})

test('a stream is sent again as long as it is kept, and once where it is too large for that', async (t) => {
  const vendors = await vendor(t)
  const ask = (/** @type {string[]} */ parts) => farcall.withCustomer(newCustomer(), async () => {
    const request = http.request(vendors.url, { method: 'PUT' })
    const answer = answerOf(request)
    Readable.from(parts).pipe(request)
    return (await answer).status
  })
  vendors.acts.push(says(503))
  assert.equal(await ask(['a'.repeat(20_000), 'b'.repeat(20_000), 'c'.repeat(20_000)]), 200)
  assert.deepEqual(vendors.got.map(({ body }) => body.length), [60_000, 60_000])
  assert.equal(vendors.got[0].body, vendors.got[1].body)
  vendors.acts.push(says(503))
  assert.equal(await ask(['a'.repeat(40_000), 'b'.repeat(40_000)]), 503)
  assert.equal(vendors.got.length, 3)
})

test('what fails before all of it was written is not sent again', async (t) => {
  const server = http.createServer((_, response) => response.writeHead(503).end('not now')).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const request = http.request(`http://127.0.0.1:${port}/`, { method: 'PUT' })
  request.on('error', () => {})
  request.write('one ')
  const [response] = await once(request, 'response')
  assert.deepEqual([response.statusCode, String(Buffer.concat(await response.toArray()))], [503, 'not now'])
  request.destroy()
})

test('an answer that breaks off within is the application\'s', async (t) => {
  const vendors = await vendor(t)
  const breaksWithin = (/** @type {http.ServerResponse} */ response) => {
    response.writeHead(200, { 'content-length': 100 })
    response.write('half', () => response.socket?.destroy())
  }
  vendors.acts.push(says(503), breaksWithin)
  const customer = newCustomer()
  const request = farcall.withCustomer(customer, () => http.get(vendors.url))
  const errors = []
  request.on('error', (error) => errors.push(error))
  const [response] = await once(request, 'response')
  await assert.rejects(response.toArray(), { code: 'ECONNRESET', message: 'aborted' })
  assert.equal(vendors.got.length, 2)
  assert.deepEqual(await attempts(customer), [1, 2])
  assert.equal(await outcomes(customer, 'reset', 200), 1)
})

test('a request that the application lets go of within the answer of a later attempt ends that', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503), (response) => response.writeHead(200, { 'content-length': 100 }).write('half'))
  const customer = newCustomer()
  const request = farcall.withCustomer(customer, () => http.get(vendors.url))
  const [response] = await once(request, 'response')
  await once(response, 'data')
  const closed = once(request, 'close')
  const gone = once(vendors.got[1].socket, 'close')
  response.on('error', () => {})
  request.on('error', () => {})
  request.destroy()
  await Promise.all([closed, gone])
  assert.equal(await outcomes(customer, 'abandoned', 200), 1)
})

test('an agent gets the connections of all attempts back', async (t) => {
  const vendors = await vendor(t)
  const failed = new Set()
  /** @type {import('./support/again.mjs').Act} */
  const once = (response, { headers }) => {
    const first = !failed.has(headers['x-number'])
    failed.add(headers['x-number'])
    if (first) vendors.acts.push(once)
    response.writeHead(first ? 503 : 200).end(first ? 'not now' : String(headers['x-number']))
  }
  for (let n = 0; n < 200; n += 1) vendors.acts.push(once)
  const customer = newCustomer()
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })
  const all = await farcall.withCustomer(customer, () => Promise.all(Array.from({ length: 200 }, (_, n) =>
    clients.http(vendors.url, { agent, headers: { 'x-number': String(n) } }))))
  assert.deepEqual(all.map(({ body }) => body), Array.from({ length: 200 }, (_, n) => String(n)))
  assert.deepEqual(await attempts(customer), [200, 400])
  const bytesIn = all.reduce((sum, { body }) => sum + body.length, 0) + 200 * 'not now'.length
  assert.deepEqual(await counted(customer, 'outcome=complete', 'status=200'), { calls: 200, bytesOut: 0, bytesIn })
  assert.equal(vendors.got.length, 400)
  assert(new Set(vendors.got.map(({ socket }) => socket)).size <= 8, 'connections are used again')
  assert.deepEqual([Object.keys(agent.requests), Object.keys(agent.sockets)], [[], []])
  agent.destroy()
})

test('an answer without end does not hold up the next attempt for its connection', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push((response) => response.writeHead(503, { 'content-length': 100 }).write('half'))
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  const customer = newCustomer()
  const { status } = await farcall.withCustomer(customer, clients.http, vendors.url, { agent })
  assert.equal(status, 200)
  assert.equal((await counted(customer)).bytesIn, 'half'.length + 'well'.length)
  agent.destroy()
})

test('an attempt that takes too long is given up, and the next one has its own time', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(hangs, hangs)
  const { status } = await farcall.withCustomer('hurried', clients.http, vendors.url)
  assert.equal(status, 200)
  assert.equal(vendors.got.length, 3)
})

test('what the application sets for its request holds for the next attempt', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(breaks, hangs)
  const request = http.get(vendors.url)
  request.setTimeout(1000, () => request.destroy(new Error('it took too long')))
  await assert.rejects(answerOf(request), /it took too long/)
  assert.equal(vendors.got.length, 2)
})

test('the time that a client gives its call is over for all attempts', async (t) => {
  const vendors = await vendor(t)
  /** @type {[() => Promise<any>, string][]} */
  const asks = [
    [() => axios.get(vendors.url, { timeout: 1000 }), 'ECONNABORTED'],
    [() => axios.get(vendors.url, { timeout: 1000, maxRedirects: 0 }), 'ECONNABORTED'],
    [() => got(vendors.url, { timeout: { request: 1000 }, retry: { limit: 0 } }), 'ETIMEDOUT']
  ]
  for (const [ask, code] of asks) {
    vendors.acts.push(breaks, hangs)
    const before = vendors.got.length
    const customer = newCustomer()
    await assert.rejects(farcall.withCustomer(customer, ask), { code })
    assert.equal(vendors.got.length, before + 2)
    await until('the vendor sees that nobody waits', () => vendors.got[before + 1].socket.destroyed)
    assert.equal(await outcomes(customer, 'timeout'), 1)
  }
})

test('what is told of a later attempt runs as what the application\'s request calls', async (t) => {
  const vendors = await vendor(t)
  const whose = new AsyncLocalStorage()
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  // The connection is of another one's making.
  await whose.run('first', clients.http, vendors.url, { agent })
  vendors.acts.push(breaks, says(503))
  const seen = await whose.run('second', () => new Promise((resolve) => {
    http.get(vendors.url, { agent }, (response) => response.resume().on('end', () => resolve(whose.getStore())))
  }))
  assert.equal(seen, 'second')
  agent.destroy()
})

test('got\'s own retries are recognised, and not doubled; axios has none', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503), says(503))
  const retry = { limit: 1, calculateDelay: (/** @type {any} */ { computedValue }) => computedValue && 1 }
  const byGot = farcall.withCustomer('own-retries', () => got(vendors.url, { retry }))
  await assert.rejects(byGot, { code: 'ERR_NON_2XX_3XX_RESPONSE' })
  assert.equal(vendors.got.length, 2)
  vendors.acts.push(says(503))
  assert.equal((await farcall.withCustomer('own-retries', () => axios.get(vendors.url))).status, 200)
  assert.equal(vendors.got.length, 4)
})

test('a request that asks for another protocol, or for leave to go on, is made once', async (t) => {
  const vendors = await vendor(t)
  vendors.server.on('checkContinue', (_, response) => response.writeHead(503).end())
  const asked = http.request(vendors.url, { method: 'PUT', headers: { expect: '100-continue' } })
  asked.flushHeaders()
  assert.equal((await answerOf(asked)).status, 503)
  asked.destroy()
  vendors.acts.push(says(503))
  const upgrade = http.get(vendors.url, { headers: { connection: 'upgrade', upgrade: 'other' } })
  assert.equal((await answerOf(upgrade)).status, 503)
  assert.equal(vendors.got.length, 1)
})

test('a call of a rule without attempts is made as it is', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503))
  const request = farcall.withCustomer('single', () => http.get(vendors.url))
  const [response] = await once(request, 'response')
  assert.equal(response.req, request)
  response.resume()
  await once(request, 'close')
})

test('a vendor that asks for a wait gets it', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(429, { 'retry-after': '1' }))
  const customer = newCustomer()
  assert.equal((await farcall.withCustomer(customer, clients.http, vendors.url)).status, 200)
  await farcall.flush()
  const { totals } = await farcall.report('endpoints', { filter: `customer=${customer}` })
  assert(/** @type {any} */ (totals).p99_ms >= 990, 'the wait is part of the call')
})

test('a POST without a key, and one that has no budget left, is not tried again', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503), says(503), says(503), says(503))
  const ask = (/** @type {string} */ method) => farcall.withCustomer('short of budget', clients.http, vendors.url, { method, body: method === 'GET' ? undefined : 'one' })
  assert.equal((await ask('POST')).status, 503)
  assert.equal(vendors.got.length, 1)
  assert.equal((await ask('GET')).status, 503)
  assert(vendors.got.length <= 3)
  const before = vendors.got.length
  vendors.acts.length = 0
  vendors.acts.push(says(503))
  assert.equal((await ask('GET')).status, 503)
  assert.equal(vendors.got.length, before + 1)
})

// The last: calls are not looked at any more.
test('a call that waits when Farcall is uninstalled is made all the same', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503))
  const agent = new http.Agent({ keepAlive: true })
  const answer = answerOf(farcall.withCustomer('slow', () => http.get(vendors.url, { agent })))
  await once(agent, 'free')
  farcall.uninstall()
  assert.equal((await answer).status, 200)
  assert.equal(vendors.got.length, 2)
  agent.destroy()
})
