// Whatever a vendor does, and whenever the application lets go: each request of http comes to one end, and nothing is left.
import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import farcall from '../index.js'
import keeping from '../lib/keeping.js'
import { breaks, hangs, obey, says, vendor } from './support/again.mjs'
import { counted, until } from './support/ledger.mjs'

obey(`
[[resilience]]
match = { customer = "storm beside" }
hedge = { after = "10ms", budget = "100%" }

[[resilience]]
match = { customer = "storm*" }
attempts = 4
attempt_timeout = "100ms"
backoff = "1ms..10ms"
retry_on = ["503", "reset", "connect", "timeout"]
retry_budget = "100%"
retry_budget_least = 1000
idempotency_header = "idempotency-key"
`)

/** A generator of numbers below one that always gives the same. */
function seeded (state = 1) {
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  }
}

const { giveBack, takeRoom } = keeping

/** @type {import('./support/again.mjs').Act[]} */
const acts = [
  says(503),
  says(503, { connection: 'close' }),
  breaks,
  hangs,
  (response) => response.writeHead(503, { 'content-length': 1000 }).write('half'),
  (response) => response.writeHead(200, { 'content-length': 1000 }).write('half', () => response.socket?.destroy()),
  (response) => response.writeHead(200, { 'content-length': 1000 }).write('half'),
  (response) => setTimeout(() => says(200)(response, /** @type {any} */ (undefined)), 20),
  (response, { body }) => says(200, {}, body)(response, /** @type {any} */ (undefined)),
  (response, { body }) => says(200, {}, body)(response, /** @type {any} */ (undefined))
]

/** Node's words for what may happen to a request. */
const KNOWN = new Set(['ECONNRESET', 'ETIMEDOUT', 'ABORT_ERR', 'EPIPE', undefined])

for (const customer of ['storm', 'storm beside']) test(`${customer}: each request comes to one end`, { timeout: 120_000 }, async (t) => {
  const vendors = await vendor(t)
  const random = seeded()
  const agents = [new http.Agent({ keepAlive: true, maxSockets: 4 }), new http.Agent({ keepAlive: true }), new http.Agent()]
  const pick = (/** @type {any[]} */ all) => all[Math.floor(random() * all.length)]
  const one = () => {
    const controller = new AbortController()
    const size = pick([0, 10, 1000, 100_000])
    const request = http.request(vendors.url, { agent: pick(agents), method: pick(['GET', 'PUT', 'POST']), signal: controller.signal })
    /** @type {string[]} */
    const seen = []
    request.on('response', (response) => {
      seen.push('response')
      response.on('error', (error) => { assert(KNOWN.has(/** @type {any} */ (error).code), String(error)) })
      response.on('end', () => seen.push('end'))
      if (random() < 0.9) response.resume()
      else if (random() < 0.5) response.destroy()
      else setImmediate(() => request.destroy())
    })
    request.on('error', (/** @type {any} */ error) => {
      seen.push('error')
      assert(KNOWN.has(error.code), String(error))
    })
    request.on('abort', () => seen.push('abort'))
    const closed = new Promise((resolve) => request.on('close', () => { seen.push('close'); resolve(seen) }))
    if (request.method === 'GET' || size === 0) request.end()
    else if (random() < 0.5) request.end('x'.repeat(size))
    else {
      request.write('x'.repeat(size / 2))
      setTimeout(() => request.end('y'.repeat(size / 2)), 5)
    }
    // All end in the end: also what nobody answers, or goes on answering.
    const end = setTimeout(pick([() => controller.abort(), () => request.destroy(), () => request.destroy(new Error('enough')), () => request.abort()]),
      random() < 0.3 ? random() * 100 : 2000)
    closed.then(() => clearTimeout(end))
    return closed
  }
  const act = (/** @type {http.ServerResponse} */ response, /** @type {any} */ got) => {
    vendors.acts.push(act)
    pick(acts)(response, got)
  }
  vendors.acts.push(act)
  const ends = await farcall.withCustomer(customer, () => Promise.all(Array.from({ length: 400 }, one)))
  for (const seen of ends) {
    assert.equal(seen.at(-1), 'close', seen.join())
    for (const event of ['response', 'close']) assert(seen.filter((/** @type {string} */ one) => one === event).length <= 1, seen.join())
    // An `abort` before there is a connection is no error to Node.
    assert(['response', 'error', 'abort'].some((event) => seen.includes(event)), seen.join())
  }
  await until('all calls are over', () => farcall.status().inFlight === 0)
  assert.equal((await counted(customer)).calls, 400)
  const busy = () => agents.flatMap((agent) => [...Object.values(agent.sockets), ...Object.values(agent.requests)]).length
  await until('the agents have all their connections back', () => busy() === 0)
  for (const agent of agents) agent.destroy()
  assert(takeRoom(64 * 1024 * 1024), 'nothing is kept of a body any more')
  giveBack(64 * 1024 * 1024)
})
