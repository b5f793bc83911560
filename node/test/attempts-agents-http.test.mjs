// What further attempts of http owe to agents that are not Node's own, to sockets that clients keep an eye on, and to rules
// that are about no attempts.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import { test } from 'node:test'
import { setTimeout as pass } from 'node:timers/promises'
import tls from 'node:tls'
import farcall from '../index.js'
import { answerOf, breaks, hangs, obey, vendor } from './support/again.mjs'
import { cert, key } from './support/certificate.mjs'

obey(`
[[resilience]]
match = { customer = "again*" }
attempts = 2
backoff = "1ms..5ms"
retry_on = ["503", "reset", "connect"]
retry_budget = "100%"
retry_budget_least = 1000

[[resilience]]
match = { customer = "again beside" }
hedge = { after = "100ms", budget = "100%" }

[[resilience]]
match = { customer = "bounded" }
deadline = "300ms"

[[budget]]
match = { vendor = "openai", customer = "frugal" }
limit = "1 requests / month"
over = "downgrade"
downgrade = { from = "gpt-4o", to = "gpt-4o-mini" }
`)

/** As those of agent-base are: they know by the stack which of Node's modules asks, unless the options say it. */
class Proxying extends http.Agent {
  /** @param {any} [options] */
  isSecure (options) {
    return options?.protocol ? options.protocol === 'https:' : /node:https:/.test(String(new Error().stack))
  }

  get protocol () { return this.isSecure() ? 'https:' : 'http:' }
  set protocol (_) {}
  get defaultPort () { return this.isSecure() ? 443 : 80 }
  set defaultPort (_) {}

  /** @param {any} options */
  createConnection (options) {
    return this.isSecure(options) ? tls.connect({ ...options, rejectUnauthorized: false }) : net.connect(options)
  }
}

test('an agent that tells by the stack whether it is to speak TLS does so, at whatever moment', async (t) => {
  /** @type {string[]} */
  const got = []
  const server = https.createServer({ cert, key }, (request, response) => {
    got.push(String(request.method))
    request.resume()
    response.writeHead(got.length % 2 === 1 ? 503 : 200).end()
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {net.AddressInfo} */ (server.address())
  // As AWS's SDK asks: without a protocol.
  for (const method of ['GET', 'PUT']) {
    const request = farcall.withCustomer('again', () => https.request({ host: '127.0.0.1', port, method, agent: new Proxying() }))
    const answer = answerOf(request)
    request.end(method === 'PUT' ? 'body' : undefined)
    assert.equal((await answer).status, 200)
  }
  assert.deepEqual(got, ['GET', 'GET', 'PUT', 'PUT'])
})

test('a request that waits for a connection of its agent is over when its time is', async (t) => {
  const vendors = await vendor(t)
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.after(() => agent.destroy())
  vendors.acts.push(hangs)
  const first = http.get(vendors.url, { agent })
  const over = once(first, 'error')
  await once(first, 'finish')
  const waiting = farcall.withCustomer('bounded', () => http.get(vendors.url, { agent }))
  const [error] = await once(waiting, 'error')
  assert.equal(error.code, 'ETIMEDOUT')
  assert.equal(waiting.destroyed, true)
  assert.deepEqual(Object.keys(agent.requests), [])
  first.destroy(new Error('enough'))
  await over
  assert.equal((await answerOf(http.get(vendors.url, { agent }))).status, 200)
  assert.equal(vendors.got.length, 2)
})

test('a connection that fails while it is used is none that was not made: what may have arrived is not sent again', async (t) => {
  const vendors = await vendor(t)
  const error = Object.assign(new Error('read EHOSTUNREACH'), { code: 'EHOSTUNREACH' })
  const request = farcall.withCustomer('again', () => http.request(vendors.url, { method: 'POST' }))
  vendors.acts.push(() => request.socket?.destroy(error))
  const failed = once(request, 'error')
  request.end('one charge')
  assert.equal((await failed)[0], error)
  assert.equal(vendors.got.length, 1)
})

test('nothing is left of a connection that failed that looks as if an answer were to come', async (t) => {
  const vendors = await vendor(t)
  const fails = [breaks, (/** @type {http.ServerResponse} */ response) => response.socket?.end(), (/** @type {any} */ response) => response.socket.resetAndDestroy()]
  for (const [act, customer] of [...fails.map((act) => [act, 'again']), [hangs, 'again beside']]) {
    vendors.acts.push(/** @type {any} */ (act))
    const request = farcall.withCustomer(/** @type {string} */ (customer), () => http.get(vendors.url))
    const sockets = once(request, 'socket')
    const { status, response } = await answerOf(request)
    assert.equal(status, 200)
    if (!response.closed) await once(response, 'close')
    // As node-fetch 2 asks.
    assert.equal((await sockets)[0].listenerCount('data'), 0)
  }
})

test('a request that never had a connection is finished once', async (t) => {
  const vendors = await vendor(t)
  let made = 0
  class Refused extends http.Agent {
    /** @param {any} options @param {any} done */
    createConnection (options, done) {
      made += 1
      if (made > 1) return net.connect(options)
      setImmediate(done, Object.assign(new Error('not now'), { code: 'ECONNREFUSED' }))
      return /** @type {any} */ (undefined)
    }
  }
  const request = farcall.withCustomer('again', () => http.request(vendors.url, { method: 'PUT', agent: new Refused() }))
  let finished = 0
  request.on('finish', () => { finished += 1 })
  const answer = answerOf(request)
  request.write('one ')
  request.end('two')
  assert.equal((await answer).body, 'one two')
  await pass(10)
  assert.equal(finished, 1)
})

test('a cheaper model is asked for where no rule is about attempts', async (t) => {
  const vendors = await vendor(t)
  const lookup = (/** @type {string} */ _, /** @type {any} */ { all }, /** @type {any} */ done) =>
    all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)
  const body = JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: 'x' }] })
  for (let n = 0; n < 2; n += 1) {
    const request = farcall.withCustomer('frugal', () => http.request({
      host: 'api.openai.com', port: vendors.port, lookup, method: 'POST', path: '/v1/chat/completions', headers: { 'content-type': 'application/json' }
    }))
    const answer = answerOf(request)
    request.end(body)
    assert.equal((await answer).status, 200)
  }
  assert.deepEqual(vendors.got.map(({ body }) => JSON.parse(body).model), ['gpt-4o', 'gpt-4o-mini'])
})
