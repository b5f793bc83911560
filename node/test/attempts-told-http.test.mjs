// What the application is told of its request of http where another attempt takes its place: of writes that failed, of a
// connection, and after Farcall was uninstalled.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { test } from 'node:test'
import farcall from '../index.js'
import { answerOf, clients, obey, says, vendor } from './support/again.mjs'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'
import { deafPort, plain } from './support/sim.mjs'

const backup = new URL(plain).host
obey(`
[[resilience]]
match = { customer = "over" }
failover = { host = "${backup}", path_prefix = "/scenario/ok", when = ["connect"], keep_credentials = true }

[[resilience]]
match = { customer = "choosy" }
attempts = 2
retry_on = ["503"]

[[resilience]]
match = { customer = "again*" }
attempts = 2
backoff = "1ms..5ms"
retry_on = ["503", "connect"]
retry_budget = "100%"
retry_budget_least = 1000

[[resilience]]
match = { customer = "slow" }
attempts = 2
backoff = "1ms..5ms"
`)

/**
 * Writes to a connection that is refused, before that is known; what it was told of each write.
 *
 * @param {string} customer
 */
async function writeInVain (customer) {
  const port = await deafPort()
  const request = farcall.withCustomer(customer, () => http.request({ host: '127.0.0.1', port, method: 'PUT', headers: { 'content-length': 6 } }))
  const answer = answerOf(request).then(({ status }) => status, ({ code }) => code)
  await once(request, 'socket')
  const told = ['one', 'two'].map((part) => new Promise((resolve) => request.write(part, resolve)))
  /** @type {unknown[]} */
  const ended = []
  request.end((/** @type {unknown} */ error) => { ended.push(error ?? 'well') })
  return { answer: await answer, told: await Promise.all(told), ended }
}

test('who writes to a connection that is refused hears of no error where the backup takes what was written', async () => {
  const { answer, told, ended } = await writeInVain('over')
  assert.equal(answer, 200)
  assert.deepEqual(ended, ['well'])
  assert(told.every((error) => !error), String(told))
})

test('where nothing follows, who writes is told of the error', async () => {
  const { answer, told } = await writeInVain('choosy')
  assert.equal(answer, 'ECONNREFUSED')
  assert(told.every((error) => error instanceof Error), String(told))
})

test('a request whose first attempt never had a connection is told of that of the next one', async (t) => {
  const vendors = await vendor(t)
  /** @type {net.Socket[]} */
  const made = []
  class Refused extends http.Agent {
    tried = 0

    /** @param {any} options @param {any} done */
    createConnection (options, done) {
      this.tried += 1
      if (this.tried > 1) {
        made.push(net.connect(options))
        return made[0]
      }
      setImmediate(done, Object.assign(new Error('not now'), { code: 'ECONNREFUSED' }))
      return /** @type {any} */ (undefined)
    }
  }
  const request = farcall.withCustomer('again', () => http.request(vendors.url, { method: 'PUT', agent: new Refused() }))
  /** @type {net.Socket[]} */
  const sockets = []
  request.on('socket', (socket) => sockets.push(socket))
  const answer = answerOf(request)
  request.end('one')
  assert.equal((await answer).body, 'one')
  assert.deepEqual(sockets, made)
  assert.equal(request.socket, made[0])
})

for (const customer of ['again', 'nobody in particular']) {
  test(`${customer}: what is written after the end is not counted, and ends nothing`, async (t) => {
    const vendors = await vendor(t)
    const whose = `${customer} ${newCustomer()}`
    const request = farcall.withCustomer(whose, () => http.request(vendors.url, { method: 'PUT' }))
    const answer = new Promise((resolve) => request.on('response', resolve))
    const failed = once(request, 'error')
    request.end('one')
    request.write('too late')
    assert.equal((await failed)[0].code, 'ERR_STREAM_WRITE_AFTER_END')
    const body = String(Buffer.concat(await (await answer).toArray()))
    assert.equal(body, 'one')
    assert.deepEqual(await counted(whose, 'outcome=complete', 'status=200'), { calls: 1, bytesOut: 3, bytesIn: 3 })
  })
}

// The last: calls are not looked at any more.
test('a call that waits when Farcall is uninstalled is the application\'s to end', async (t) => {
  const vendors = await vendor(t)
  vendors.acts.push(says(503, { 'retry-after': '2' }), says(503, { 'retry-after': '2' }))
  const agent = new http.Agent({ keepAlive: true })
  t.after(() => agent.destroy())
  let free = 0
  agent.on('free', () => { free += 1 })
  const [request, other] = farcall.withCustomer('slow', () => [http.get(vendors.url, { agent }), http.get(vendors.url, { agent })])
  const answer = answerOf(request)
  const otherAnswer = answerOf(other)
  let closed = 0
  other.on('close', () => { closed += 1 })
  // Nobody gets the answers, and their connections are the agent's again.
  await until('both wait', () => free === 2)
  farcall.uninstall()
  request.destroy(new Error('the user left'))
  await assert.rejects(answer, /the user left/)
  assert.equal(closed, 0)
  assert.equal((await otherAnswer).status, 200)
  if (!other.closed) await once(other, 'close')
  assert.equal(closed, 1)
  assert.equal(vendors.got.length, 3)
  farcall.install()
  assert.equal(await outcomes('slow', 'cancelled'), 1)
  assert.equal((await clients.http(vendors.url)).status, 200)
})
