// A second attempt beside a slow first one: http, and axios, got and node-fetch on top of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { test } from 'node:test'
import farcall from '../index.js'
import { answerOf, breaks, clients, hangs, obey, says, vendor as anyVendor } from './support/again.mjs'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'

obey(`
[[resilience]]
match = {}
attempts = 2
backoff = "1ms..5ms"
retry_budget = "100%"
retry_budget_least = 1000
retry_on = ["503", "reset"]
over_sdk = true
hedge = { after = "50ms", budget = "100%" }

[[resilience]]
match = { customer = "once each" }
attempts = 1
`)

const WORDS = ['ash', 'beech', 'cedar', 'elm', 'fir', 'hazel', 'larch', 'maple', 'oak', 'pine', 'rowan', 'spruce', 'willow', 'yew', 'box', 'holly']

/**
 * A vendor with an endpoint of its own: of each, one call may be hedged in any case.
 *
 * @param {import('node:test').TestContext} t
 */
async function vendor (t) {
  const vendors = await anyVendor(t)
  return { ...vendors, url: `${vendors.url}/${WORDS.pop()}` }
}

/** @param {string} customer */
async function attempts (customer) {
  await farcall.flush()
  const { totals } = await farcall.report('endpoints', { filter: `customer=${customer}` })
  return [totals.calls, totals.attempts]
}

for (const [name, ask] of Object.entries(clients)) {
  test(`${name}: the second of two attempts answers, and the first is given up`, async (t) => {
    const vendors = await vendor(t)
    vendors.acts.push(hangs)
    const customer = newCustomer()
    const answered = await farcall.withCustomer(customer, ask, vendors.url, { headers: { 'x-mine': 'a' } })
    assert.deepEqual(answered, { status: 200, body: 'well' })
    assert.deepEqual(vendors.got.map(({ headers }) => headers['x-mine']), ['a', 'a'])
    await until('the vendor sees that nobody waits', () => vendors.got[0].socket.destroyed)
    assert.deepEqual(await attempts(customer), [1, 2])
    assert.deepEqual(await counted(customer, 'outcome=complete', 'status=200'), { calls: 1, bytesOut: 0, bytesIn: 4 })
  })
}

/**
 * A vendor whose answers are given by hand, in the order in which it was asked.
 *
 * @param {import('node:test').TestContext} t
 */
async function byHand (t) {
  const vendors = await vendor(t)
  /** @type {http.ServerResponse[]} */
  const responses = []
  vendors.acts.push((response) => responses.push(response), (response) => responses.push(response))
  return { ...vendors, responses, bothAsked: () => until('both attempts are under way', () => responses.length === 2) }
}

test('the first of two attempts answers after all, and the second is given up', async (t) => {
  const vendors = await byHand(t)
  const customer = newCustomer()
  const request = farcall.withCustomer(customer, () => http.get(vendors.url))
  const answer = answerOf(request)
  await vendors.bothAsked()
  vendors.responses[0].end('the first')
  const { status, body, response } = await answer
  assert.deepEqual([status, body], [200, 'the first'])
  assert.equal(/** @type {any} */ (response).req, request)
  await until('the vendor sees that nobody waits', () => vendors.got[1].socket.destroyed)
  assert.deepEqual(await attempts(customer), [1, 2])
})

for (const which of [0, 1]) {
  for (const [how, fails] of /** @type {const} */ ([['is refused', says(503)], ['breaks', breaks]])) {
    test(`attempt ${which + 1} of two ${how}, and the other one is waited for`, async (t) => {
      const vendors = await byHand(t)
      const customer = newCustomer()
      const answer = answerOf(farcall.withCustomer(customer, () => http.get(vendors.url)))
      await vendors.bothAsked()
      const failed = vendors.responses[which]
      const seen = once(failed, 'close')
      fails(failed, vendors.got[which])
      await seen
      vendors.responses[1 - which].end('well')
      const { status, body } = await answer
      assert.deepEqual([status, body], [200, 'well'])
      assert.equal(vendors.got.length, 2)
      assert.deepEqual(await attempts(customer), [1, 2])
      const bytesIn = 'well'.length + (how === 'breaks' ? 0 : 'said 503'.length)
      assert.deepEqual(await counted(customer, 'outcome=complete', 'status=200'), { calls: 1, bytesOut: 0, bytesIn })
    })
  }
}

test('where both fail, another one follows', async (t) => {
  const vendors = await byHand(t)
  const customer = newCustomer()
  const answer = answerOf(farcall.withCustomer(customer, () => http.get(vendors.url)))
  await vendors.bothAsked()
  for (const [at, response] of vendors.responses.entries()) breaks(response, vendors.got[at])
  assert.deepEqual((await answer).body, 'well')
  assert.deepEqual(await attempts(customer), [1, 3])
})

/**
 * The agent's end of the connection of which the vendor has the other one.
 *
 * @param {http.Agent} agent
 * @param {import('node:net').Socket} socket
 */
function otherEnd (agent, socket) {
  const found = Object.values(agent.sockets).flat().find((one) => one?.localPort === socket.remotePort)
  assert(found)
  return found
}

test('of two attempts under way the application hears of its own, and of the other one once that is alone', async (t) => {
  const vendors = await byHand(t)
  const agent = new http.Agent()
  const request = farcall.withCustomer(newCustomer(), () => http.get(vendors.url, { agent }))
  const answer = answerOf(request)
  let told = 0
  request.on('information', () => { told += 1 })
  await vendors.bothAsked()
  const [first, second] = vendors.responses
  second.writeProcessing()
  await until('the word of the second is there', () => otherEnd(agent, vendors.got[1].socket).bytesRead > 0)
  first.writeProcessing()
  await until('the application heard of its own', () => told > 0)
  assert.equal(told, 1)
  says(503)(first, vendors.got[0])
  await until('the first is let go of', () => first.writableFinished && farcall.status().inFlight === 1)
  second.writeProcessing()
  second.end('the second')
  assert.equal((await answer).body, 'the second')
  assert.equal(told, 2)
})

test('the time of a request is over once for two attempts', async (t) => {
  const vendors = await byHand(t)
  const agent = new http.Agent()
  const request = farcall.withCustomer(newCustomer(), () => http.get(vendors.url, { agent, timeout: 300 }))
  const answer = answerOf(request)
  let told = 0
  request.on('timeout', () => { told += 1 })
  await vendors.bothAsked()
  const idle = vendors.got.map(({ socket }) => once(otherEnd(agent, socket), 'timeout'))
  await Promise.all(idle)
  await new Promise(setImmediate)
  assert.equal(told, 1)
  vendors.responses[1].end('well')
  assert.equal((await answer).body, 'well')
})

test('a call that is not tried again is hedged all the same', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(hangs)
  assert.equal((await farcall.withCustomer('once each', clients.http, vendors.url)).status, 200)
  assert.equal(vendors.got.length, 2)
})

test('an abort ends both', async (t) => {
  const vendors = await byHand(t)
  const customer = newCustomer()
  const request = farcall.withCustomer(customer, () => http.get(vendors.url))
  const failed = assert.rejects(answerOf(request), /enough/)
  await vendors.bothAsked()
  const closed = new Promise((resolve) => request.once('close', resolve))
  request.destroy(new Error('enough'))
  await Promise.all([failed, closed])
  await until('the vendor sees that nobody waits', () => vendors.got.every(({ socket }) => socket.destroyed))
  assert.equal(await outcomes(customer, 'cancelled'), 1)
})

test('what may not be sent twice is not', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push((response) => setTimeout(() => response.end('slow'), 200))
  const request = http.request(vendors.url, { method: 'POST' })
  const answer = answerOf(request)
  request.end('one')
  assert.equal((await answer).body, 'slow')
  assert.equal(vendors.got.length, 1)
})
