// Rules that decide: farcall.toml says which calls wait, are refused, fail, and are tried again.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import axios from 'axios'
import got from 'got'
import farcall from '../index.js'
import { counted, outcomes, until } from './support/ledger.mjs'
import { arrived, forget, plain } from './support/sim.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-rules-'))
after(() => rmSync(scratch, { recursive: true }))
const mark = `${process.pid}`
/** @param {string} name a customer of this run */
const of = (name) => `${name}-${mark}`

process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
allow_faults = true

[[policy]]
name = "no-such-customer"
match = { customer = "${of('denied')}*" }
verdict = "deny"
reason = "on purpose"

[[quota]]
match = { customer = "${of('paced')}*" }
limit = "2 requests / 1s"
burst = 2
max_wait = "5s"
shared = "process"

[[quota]]
match = { customer = "${of('stuck')}*" }
limit = "1 requests / 10m"
burst = 1
max_wait = "1h"
shared = "process"

[[resilience]]
match = { customer = "${of('retried')}*" }
attempts = 3
backoff = "1ms..5ms"
retry_on = ["503", "reset"]
idempotency_header = "idempotency-key"

[[resilience]]
match = { customer = "${of('hurried')}*" }
attempt_timeout = "1s"

${['fetch', 'http', 'axios', 'got'].map((client) => `
[[budget]]
match = { customer = "${of('spent')}${client}" }
limit = "1 requests / month"
over = "refuse"
`).join('')}

[[rollout]]
name = "switched-off"
match = { customer = "${of('killed')}*" }
kill = true

[[fault]]
name = "answers-503"
match = { customer = "${of('answered')}*" }
share = "100%"
status = 503
retry_after = "2s"
expires = "2099-01-01T00:00:00Z"

[[fault]]
name = "refuses"
match = { customer = "${of('failing')}*" }
share = "100%"
error = "connect"
expires = "2099-01-01T00:00:00Z"

[[fault]]
name = "breaks-off"
match = { customer = "${of('cut')}*" }
share = "100%"
truncate = "10B"
expires = "2099-01-01T00:00:00Z"
`)
farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
after(() => assert.equal(farcall.status().inFlight, 0))

/**
 * @param {string} url
 * @param {http.RequestOptions} [options]
 * @param {string} [body]
 * @returns {Promise<{ status: number | undefined, body: string, headers: http.IncomingHttpHeaders }>}
 */
function ask (url, options = {}, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, options)
    request.on('error', reject)
    request.on('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => { text += chunk }).on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode, body: text, headers: response.headers }))
    })
    request.end(body)
  })
}

/** @type {Record<string, (path: string) => Promise<{ status: number | undefined, body: string }>>} */
const clients = {
  fetch: async (path) => {
    const response = await fetch(plain + path)
    return { status: response.status, body: await response.text() }
  },
  http: (path) => ask(plain + path),
  axios: async (path) => {
    const { status, data } = await axios.get(plain + path, { validateStatus: null, responseType: 'text', transformResponse: [] })
    return { status, body: data }
  },
  got: async (path) => {
    const { statusCode: status, body } = await got(plain + path, { retry: { limit: 0 }, throwHttpErrors: false })
    return { status, body }
  }
}

/**
 * @returns {any}
 * @param {any} error what a client made of the refusal: got wraps it, and so does axios
 */
function refusal (error) {
  for (let at = error; at; at = at.cause) if (at instanceof farcall.RefusedError) return at
  throw error
}

/** @param {unknown} rules */
async function script (rules) {
  const response = await fetch(plain + '/_sim/script', { method: 'POST', body: JSON.stringify(rules) })
  assert.equal(response.status, 200, await response.text())
}

/** @param {string} customer */
async function numbers (customer) {
  await farcall.flush()
  const { totals } = await farcall.report('endpoints', { filter: `customer=${customer}` })
  return /** @type {any} */ (totals)
}

for (const [name, get] of Object.entries(clients)) {
  test(`${name}: a denied call is refused, and nothing reaches the vendor`, async () => {
    const customer = of('denied') + name
    await forget()
    const error = await farcall.withCustomer(customer, get, '/scenario/ok').then(() => assert.fail('it was sent'), refusal)
    assert(error instanceof farcall.RefusedError)
    assert.deepEqual(
      [error.code, error.by, error.rule, error.reason, error.until],
      ['ERR_FARCALL_REFUSED', 'policy', 'no-such-customer', 'on purpose', null]
    )
    assert.equal((await arrived()).calls, 0)
    assert.equal(await outcomes(customer, 'refused-policy'), 1)
    assert.equal((await counted(customer)).calls, 1)
  })

  test(`${name}: a rate makes a call wait`, async () => {
    const customer = of('paced') + name
    for (let n = 0; n < 5; n += 1) assert.equal((await farcall.withCustomer(customer, get, '/scenario/ok')).status, 200)
    const { calls, p99_ms: slowest } = await numbers(customer)
    assert.equal(calls, 5)
    // The wait is part of the call; vendor-sim itself answers at once.
    assert(slowest > 200, `the slowest took ${slowest} ms`)
  })

  test(`${name}: a spent budget refuses`, async () => {
    const customer = of('spent') + name
    await farcall.withCustomer(customer, get, '/scenario/ok')
    const error = await farcall.withCustomer(customer, get, '/scenario/ok').then(() => assert.fail('it was sent'), refusal)
    assert.equal(error.by, 'budget')
    assert(error.until > Date.now())
    assert.equal((await counted(customer, 'status=200')).calls, 1)
    assert.equal(await outcomes(customer, 'refused-budget'), 1)
  })

  test(`${name}: a kill switch refuses`, async () => {
    const error = await farcall.withCustomer(of('killed') + name, get, '/scenario/ok').then(() => assert.fail('it was sent'), refusal)
    assert.equal(error.by, 'rollout')
  })

  test(`${name}: an injected answer comes without the vendor`, async () => {
    await forget()
    const { status, body } = await farcall.withCustomer(of('answered') + name, get, '/scenario/ok')
    assert.deepEqual([status, body], [503, ''])
    assert.equal((await arrived()).calls, 0)
    assert.equal(await outcomes(of('answered') + name, 'refused-fault', 503), 1)
  })

  test(`${name}: an injected error looks like the wire's`, async () => {
    const error = await farcall.withCustomer(of('failing') + name, get, '/scenario/ok').then(() => assert.fail('it was sent'), (error) => error)
    assert.equal(error.code ?? error.cause.code, 'ECONNREFUSED')
  })

  test(`${name}: an injected break ends the body early`, async () => {
    const customer = of('cut') + name
    await assert.rejects(farcall.withCustomer(customer, get, '/scenario/bytes/1000'))
    assert.equal(await outcomes(customer, 'reset', 200), 1)
  })

  test(`${name}: a body that ends where it would be broken off comes whole`, async () => {
    const customer = of('cut') + name + '-whole'
    const { body } = await farcall.withCustomer(customer, get, '/scenario/bytes/10')
    assert.equal(body.length, 10)
    assert.deepEqual(await counted(customer, 'outcome=complete', 'status=200'), { calls: 1, bytesOut: 0, bytesIn: 10 })
  })

  test(`${name}: an attempt is given up after its time`, async () => {
    const customer = of('hurried') + name
    await assert.rejects(farcall.withCustomer(customer, get, '/scenario/hang'))
    assert.equal(await outcomes(customer, 'timeout'), 1)
    // On a machine that is busy, so may the next one be.
    const next = () => farcall.withCustomer(customer, get, '/scenario/ok').then(({ status }) => status === 200, () => false)
    await until('another one is in time', next)
  })

  test(`${name}: a call that no rule refuses is counted once, exactly`, async () => {
    const customer = of('free') + name
    const { body } = await farcall.withCustomer(customer, get, '/scenario/bytes/5000')
    assert.equal(body.length, 5000)
    assert.deepEqual(await counted(customer, 'outcome=complete', 'status=200'), { calls: 1, bytesOut: 0, bytesIn: 5000 })
    assert.equal((await counted(customer)).calls, 1)
  })
}

test('fetch tries again what failed for a moment, and sends the whole body again', async () => {
  const customer = of('retried')
  const host = new URL(plain).hostname
  await script({ match: { host, path: '/scenario/echo' }, count: 1, effect: { status: 503 } })
  const body = JSON.stringify({ text: 'grüße'.repeat(100) })
  const response = await farcall.withCustomer(customer, fetch, plain + '/scenario/echo', { method: 'POST', body })
  assert.equal(response.status, 200)
  assert.equal(await response.text(), body)
  const { calls, attempts } = await numbers(customer)
  assert.deepEqual([calls, attempts], [1, 2])
})

test('a response whose attempts are used up is handed out', async () => {
  const customer = of('retried') + '-in-vain'
  const response = await farcall.withCustomer(customer, fetch, plain + '/scenario/status/503')
  assert.equal(response.status, 503)
  assert.match(await response.text(), /503/)
  const { calls, attempts } = await numbers(customer)
  assert.deepEqual([calls, attempts], [1, 3])
})

test('an aborted call does not wait any longer', async () => {
  const customer = of('stuck')
  const controller = new AbortController()
  const reason = new Error('the user left')
  await farcall.withCustomer(customer, async () => (await fetch(plain + '/scenario/ok')).text())
  const waiting = farcall.withCustomer(customer, fetch, plain + '/scenario/ok', { signal: controller.signal })
  setImmediate(() => controller.abort(reason))
  await assert.rejects(waiting, reason)
  assert.equal(await outcomes(customer, 'cancelled'), 1)

  const request = farcall.withCustomer(customer, () => http.get(plain + '/scenario/ok'))
  const error = new Promise((resolve) => request.on('error', resolve))
  const closed = new Promise((resolve) => request.on('close', resolve))
  setImmediate(() => request.destroy())
  assert.equal((await /** @type {any} */ (error)).code, 'ECONNRESET')
  await closed
  assert.equal(await outcomes(customer, 'cancelled'), 2)
})

test('a priority is one of two', () => {
  assert.equal(farcall.withPriority('batch', () => 7), 7)
  assert.throws(() => farcall.withPriority(/** @type {any} */ ('urgent'), () => 7), TypeError)
})

test('http: a call that waited and whose connection cannot be made at all fails and is over', async () => {
  await farcall.withCustomer(of('paced') + '-in-vain', async () => {
    for (let n = 0; n < 2; n += 1) await (await fetch(plain + '/scenario/ok')).text()
    const request = http.request({ host: '127.0.0.1', port: 70000 })
    const closed = new Promise((resolve) => request.once('close', resolve))
    const error = await new Promise((resolve) => request.once('error', resolve).end())
    assert.equal(error.code, 'ERR_SOCKET_BAD_PORT')
    await closed
  })
})

test('http: a connection that cannot be made is tried once, and whoever asks for it gets the exception', async () => {
  const customer = of('free') + '-unmade'
  const { problems } = farcall.status()
  let tried = 0
  const agent = new http.Agent()
  agent.createConnection = () => {
    tried += 1
    throw new Error('no such connection')
  }
  const ask = () => http.get(plain + '/scenario/ok', { agent })
  assert.throws(() => farcall.withCustomer(customer, ask), /no such connection/)
  assert.equal(tried, 1)
  assert.equal(farcall.status().inFlight, 0)
  assert.deepEqual(farcall.status().problems, problems)
  assert.equal((await counted(customer)).calls, 1)
})
