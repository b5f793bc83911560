// The official client: captures `fetch` when it is built, retries by itself, and streams.
import assert from 'node:assert/strict'
import https from 'node:https'
import { after, beforeEach, test } from 'node:test'
import OpenAI from 'openai'
import farcall from '../index.js'
import { counted, newCustomer, until } from './support/ledger.mjs'
import { arrived, forget, plain, resolveHere, tls } from './support/sim.mjs'

// Built first, on purpose: install() comes too late for whoever wraps `fetch`.
const openai = new OpenAI({
  apiKey: 'sk-test',
  baseURL: `${tls.replace('localhost', 'api.openai.com')}/v1`,
  maxRetries: 2
})
resolveHere('api.openai.com')
farcall.install()
beforeEach(forget)
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

const question = { model: 'gpt-5-mini', messages: [{ role: /** @type {const} */ ('user'), content: 'Grüß Gott' }] }

test('a completion counts with its bytes, on its vendor and endpoint', async () => {
  const customer = newCustomer()
  const answer = await farcall.withCustomer(customer, () => openai.chat.completions.create(question))
  assert.match(answer.choices[0].message.content ?? '', /vendor simulator/)
  const there = await arrived()
  assert.deepEqual(await counted(customer, 'vendor=openai', 'endpoint=POST /v1/chat/completions'), there)
  assert.equal(there.calls, 1)
})

/** @param {unknown} effect what becomes of the next answer */
async function script (effect) {
  const response = await fetch(`${plain}/_sim/script`, {
    method: 'POST',
    body: JSON.stringify({ match: { host: 'api.openai.com' }, count: 1, effect })
  })
  assert.equal(response.status, 200, await response.text())
}

/** Has the next answer come in pieces. */
const drip = () => script({ drip: { every_ms: 50 } })

test('a stream settles at its last byte', async () => {
  const [unfinished, customer] = [newCustomer(), newCustomer()]
  await script({ stall: { after_bytes: 100 } })
  const stalled = await farcall.withCustomer(unfinished, () => openai.chat.completions.create({ ...question, stream: true }))
  assert.equal((await counted(unfinished)).calls, 0, 'it is not counted at its head')
  stalled.controller.abort()
  await until('it is counted at its end', async () => (await counted(unfinished)).calls === 1)
  await forget()
  await drip()
  const stream = await farcall.withCustomer(customer, () => openai.chat.completions.create({ ...question, stream: true }))
  let text = ''
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? ''
  assert.match(text, /vendor simulator/)
  assert.deepEqual(await counted(customer, 'outcome=complete'), await arrived())
})

test('a stream that the application leaves is abandoned', async () => {
  const customer = newCustomer()
  await drip()
  const stream = await farcall.withCustomer(customer, () => openai.chat.completions.create({ ...question, stream: true }))
  for await (const chunk of stream) if (chunk) break
  await until('it is abandoned', async () => (await counted(customer, 'outcome=abandoned', 'status=200')).calls === 1)
})

test('what a model cost is known without any rule', async () => {
  for (const effect of [{}, { gzip: true }]) {
    const customer = newCustomer()
    await fetch(`${plain}/_sim/script`, {
      method: 'POST',
      body: JSON.stringify({ match: { host: 'api.openai.com' }, count: 1, effect })
    })
    const { usage } = await farcall.withCustomer(customer, () => openai.chat.completions.create(question))
    assert(usage)
    // 0.25 USD and 2 USD for a million tokens.
    assert.equal(await spent(customer), usage.prompt_tokens * 250 + usage.completion_tokens * 2000)
  }
  const customer = newCustomer()
  const stream = await farcall.withCustomer(customer, () =>
    openai.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } }))
  let usage
  for await (const chunk of stream) usage = chunk.usage ?? usage
  assert(usage)
  assert.equal(await spent(customer), usage.prompt_tokens * 250 + usage.completion_tokens * 2000)
})

test('the same over http', async () => {
  const customer = newCustomer()
  const body = JSON.stringify(question)
  const text = await farcall.withCustomer(customer, () => new Promise((resolve, reject) => {
    const url = `${tls.replace('localhost', 'api.openai.com')}/v1/chat/completions`
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    https.request(url, { method: 'POST', headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part) => { text += part }).on('end', () => resolve(text))
    }).on('error', reject).end(body)
  }))
  const { usage } = JSON.parse(/** @type {string} */ (text))
  assert.equal(await spent(customer), usage.prompt_tokens * 250 + usage.completion_tokens * 2000)
})

/**
 * What the customer's calls cost, in nano-units; null where it is not known of each.
 *
 * @param {string} customer
 */
async function spent (customer) {
  await farcall.flush()
  const { totals } = await farcall.report('endpoints', { filter: [`customer=${customer}`] })
  return totals.cost_unknown_calls === 0 ? Math.round(Number(totals.cost) * 1e9) : null
}

test("each of the client's retries is a call", async () => {
  const customer = newCustomer()
  await fetch(`${plain}/_sim/script`, {
    method: 'POST',
    body: JSON.stringify({ match: { host: 'api.openai.com' }, count: 1, effect: { status: 500, headers: { 'retry-after-ms': '1' } } })
  })
  await farcall.withCustomer(customer, () => openai.chat.completions.create(question))
  assert.equal((await counted(customer, 'status=500')).calls, 1)
  assert.equal((await counted(customer, 'status=200')).calls, 1)
})
