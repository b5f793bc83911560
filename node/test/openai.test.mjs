// The official client: captures `fetch` when it is built, retries by itself, and streams.
import assert from 'node:assert/strict'
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

/** Has the next answer come in pieces. */
async function drip () {
  const response = await fetch(`${plain}/_sim/script`, {
    method: 'POST',
    body: JSON.stringify({ match: { host: 'api.openai.com' }, count: 1, effect: { drip: { every_ms: 50 } } })
  })
  assert.equal(response.status, 200, await response.text())
}

test('a stream settles at its last byte', async () => {
  const customer = newCustomer()
  await drip()
  const stream = await farcall.withCustomer(customer, () => openai.chat.completions.create({ ...question, stream: true }))
  assert.equal((await counted(customer)).calls, 0, 'it is not counted at its head')
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
