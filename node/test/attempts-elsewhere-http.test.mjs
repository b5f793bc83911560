// What a rule changes in a request of http before it is sent, or for another attempt: where it goes, and which model it
// asks for; and what of its body is known before it is asked about.
import assert from 'node:assert/strict'
import http from 'node:http'
import https from 'node:https'
import { test } from 'node:test'
import axios from 'axios'
import got from 'got'
import nodeFetch from 'node-fetch'
import farcall from '../index.js'
import { answerOf, breaks, clients, obey, says, vendor } from './support/again.mjs'
import { deafPort, forget, plain, resolveHere, tls } from './support/sim.mjs'

const backup = new URL(plain).host
const secure = new URL(tls).host
obey(`
[[resilience]]
match = { customer = "over*" }
failover = { host = "${backup}", path_prefix = "/backup", headers = { x-backup = "yes" }, when = ["503", "connect", "reset"], keep_credentials = true }

[[resilience]]
match = { customer = "secure*" }
attempts = 2
backoff = "1ms..2ms"
failover = { host = "${secure}", when = ["connect", "reset"], keep_credentials = true }

[[resilience]]
match = { customer = "broken*" }
breaker = { consecutive = 1, open = "1h" }
failover = { host = "${backup}", path_prefix = "/backup", when = ["breaker"], keep_credentials = true }

[[resilience]]
match = { customer = "frugal*" }
attempts = 2
backoff = "1ms..2ms"
retry_on = ["503"]
retry_budget = "100%"
retry_budget_least = 1000
over_sdk = true
idempotency_header = "idempotency-key"

${['at once', 'in pieces', 'with its length', 'axios', 'got', 'node-fetch'].map((writer) => `
[[budget]]
match = { vendor = "openai", customer = "frugal ${writer}" }
limit = "1 requests / month"
over = "downgrade"
downgrade = { from = "gpt-4o", to = "gpt-4o-mini" }
`).join('')}

[[budget]]
match = { vendor = "openai", customer = "poor" }
limit = "0.001 USD / month"
over = "refuse"

[[policy]]
match = { customer = "short*", bytes = ">10B" }
verdict = "deny"
`)
resolveHere('api.openai.com')

for (const [name, ask] of Object.entries(clients)) {
  test(`${name}: a vendor that fails is left for its backup`, async (t) => {
    const vendors = await vendor(t)
    for (const act of [says(503), breaks]) {
      vendors.acts.push(act)
      await forget()
      const body = 'the whole body'
      const answered = await farcall.withCustomer('over', ask, vendors.url, { method: 'PUT', headers: { 'x-mine': 'a', 'content-type': 'text/plain' }, body })
      assert.equal(answered.status, 200)
      const [one] = await arrivedAt(backup)
      assert.deepEqual([one.method, one.path, one.body], ['PUT', '/backup/v1/orders', body])
      const { 'x-mine': mine, 'x-backup': other, host } = Object.fromEntries(one.headers)
      assert.deepEqual([mine, other, host], ['a', 'yes', backup])
    }
    assert.equal(vendors.got.length, 2)
  })

  test(`${name}: while its breaker is open, a call goes to the backup at once`, async (t) => {
    const vendors = await vendor(t)
    vendors.acts.push(says(500))
    // A breaker is an endpoint's.
    const path = `/v1/orders/for/${name.replaceAll(' ', '-')}`
    const post = () => farcall.withCustomer('broken', ask, new URL(path, vendors.url).href, { method: 'POST', body: 'over there' })
    assert.equal((await post()).status, 500)
    await forget()
    assert.equal((await post()).status, 200)
    const [one] = await arrivedAt(backup)
    assert.deepEqual([one.path, one.body], [`/backup${path}`, 'over there'])
    assert.equal(vendors.got.length, 1)
  })
}

/**
 * What vendor-sim got under this name.
 *
 * @param {string} host
 * @returns {Promise<{ method: string, path: string, headers: [string, string][], body: string }[]>}
 */
async function arrivedAt (host) {
  const response = await fetch(`${plain}/_sim/requests?host=${host.split(':')[0]}`)
  return /** @type {any} */ (await response.json())
}

test('a backup is known by its own certificate', async () => {
  const port = await deafPort()
  const ask = (/** @type {string} */ method) => farcall.withCustomer('secure', () => {
    const request = https.request(`https://127.0.0.1:${port}/scenario/ok`, { method })
    const answer = answerOf(request)
    request.end(method === 'PUT' ? 'body' : undefined)
    return answer
  })
  assert.equal((await ask('GET')).status, 200)
  assert.equal((await ask('PUT')).status, 200)
})

const openai = `${tls.replace('localhost', 'api.openai.com')}/v1/chat/completions`
const question = (/** @type {string} */ text) => JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: text }], max_tokens: 1000 })
const headers = { 'content-type': 'application/json' }

/** @type {Record<string, (body: string) => Promise<number | undefined>>} */
const writers = {
  'at once': async (body) => (await answerOf(https.request(openai, { method: 'POST', headers }).end(body))).status,
  'in pieces': async (body) => {
    const request = https.request(openai, { method: 'POST', headers })
    const answer = answerOf(request)
    request.write(Buffer.from(body.slice(0, 30)))
    request.write(body.slice(30))
    request.end()
    return (await answer).status
  },
  'with its length': async (body) => {
    const request = https.request(openai, { method: 'POST', headers: { ...headers, 'Content-Length': Buffer.byteLength(body) } })
    const answer = answerOf(request)
    request.end(body)
    return (await answer).status
  },
  axios: async (body) => (await axios.post(openai, body, { headers, validateStatus: null })).status,
  // Of an SDK that tries again by itself a POST is tried again under its own key.
  got: async (body) => (await got.post(openai, { body, headers: { ...headers, 'idempotency-key': 'mine' }, retry: { limit: 0 }, throwHttpErrors: false })).statusCode,
  'node-fetch': async (body) => (await nodeFetch(openai, { method: 'POST', headers, body })).status
}

for (const [name, write] of Object.entries(writers)) {
  test(`${name}: beyond its budget a call asks for the cheaper model, also when it is tried again`, async () => {
    const customer = `frugal ${name}`
    const body = question('grüße')
    await forget()
    assert.equal(await farcall.withCustomer(customer, write, body), 200)
    await script({ match: { host: 'api.openai.com' }, count: 1, effect: { status: 503 } })
    assert.equal(await farcall.withCustomer(customer, write, body), 200)
    const asked = (await arrivedAt('api.openai.com')).map((/** @type {any} */ one) => one.body)
    const cheaper = body.replace('gpt-4o', 'gpt-4o-mini')
    assert.deepEqual(asked, [body, cheaper, cheaper])
  })

  test(`${name}: what a call may cost is known before it is sent`, async () => {
    await forget()
    const error = await farcall.withCustomer('poor', write, question('x')).then(() => assert.fail('it was sent'), (error) => error)
    assert.equal((error.cause ?? error).code, 'ERR_FARCALL_REFUSED')
    assert.match(error.message, /budget/)
    assert.deepEqual(await arrivedAt('api.openai.com'), [])
  })
}

/** @param {unknown} rules */
async function script (rules) {
  const response = await fetch(plain + '/_sim/script', { method: 'POST', body: JSON.stringify(rules) })
  assert.equal(response.status, 200, await response.text())
}

test('how long a body is is known before it is sent', async (t) => {
  const vendors = await vendor(t)
  const ask = (/** @type {string[]} */ ...parts) => farcall.withCustomer('short', () => {
    const request = http.request(vendors.url, { method: 'POST' })
    const answer = answerOf(request)
    for (const part of parts) request.write(part)
    request.end()
    return answer
  })
  assert.equal((await ask('12345', '67890')).status, 200)
  await assert.rejects(ask('12345', '678901'), { by: 'policy' })
  assert.equal(vendors.got.length, 1)
})
