// SDKs that try again by themselves: their attempts are one call, and ours are withheld.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { promisify } from 'node:util'
import OpenAI from 'openai'
import Stripe from 'stripe'
import farcall from '../index.js'
import { newCustomer } from './support/ledger.mjs'
import { arrived, forget, plain } from './support/sim.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-sdks-'))
after(() => rmSync(scratch, { recursive: true }))
const { hostname, port } = new URL(plain)

process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[vendor]]
name = "sim"
hosts = ["${hostname}"]

[[resilience]]
match = { vendor = "sim" }
attempts = 5
backoff = "1ms..2ms"
retry_on = ["409", "429", "503"]
retry_budget = "100%"
`)
farcall.install()
beforeEach(forget)
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

const openai = new OpenAI({ apiKey: 'sk-test', baseURL: `${plain}/v1`, maxRetries: 2 })
/** @param {any} [more] */
const stripe = (more) => new Stripe('sk_test_1', { host: hostname, port, protocol: 'http', maxNetworkRetries: 2, ...more })

// The connection is closed, for stripe leaves unread what it tries again, and would hold on to the connection.
/** @type {Record<string, { path: string, effect: any, ask: () => Promise<unknown> }>} */
const sdks = {
  openai: {
    path: '/v1/chat/completions',
    effect: { status: 429, headers: { 'retry-after-ms': '1' } },
    ask: () => openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'hello' }] })
  },
  stripe: {
    path: '/v1/payment_intents',
    effect: { status: 503, headers: { connection: 'close' } },
    ask: () => stripe().paymentIntents.create({ amount: 25, currency: 'usd' })
  },
  'stripe through fetch': {
    path: '/v1/payment_intents',
    effect: { status: 503, headers: { connection: 'close' } },
    ask: () => stripe({ httpClient: Stripe.createFetchHttpClient() }).paymentIntents.create({ amount: 25, currency: 'usd' })
  },
  "stripe's GET": {
    path: '/v1/payment_intents/pi_1',
    effect: { status: 409, headers: { connection: 'close' } },
    ask: () => stripe().paymentIntents.retrieve('pi_1')
  }
}

/** @param {unknown} rules */
async function script (rules) {
  const response = await fetch(plain + '/_sim/script', { method: 'POST', body: JSON.stringify(rules) })
  assert.equal(response.status, 200, await response.text())
}

/** @param {string} customer */
async function totals (customer) {
  await farcall.flush()
  return (await farcall.report('endpoints', { filter: `customer=${customer}` })).totals
}

for (const [name, { path, effect, ask }] of Object.entries(sdks)) {
  test(`${name}: what it tries again is one call with all its attempts`, async () => {
    const customer = newCustomer()
    await script({ match: { host: hostname, path }, count: 2, effect })
    await farcall.withCustomer(customer, ask)
    const { calls, attempts, errors } = await totals(customer)
    assert.deepEqual({ calls, attempts, errors }, { calls: 1, attempts: 3, errors: 0 })
    assert.equal((await arrived()).calls, 3, 'two of them its own retries, and none of ours')
  })
}

test('an SDK that gives up is one failed call, told with its reasons, at the end of its program', async () => {
  const customer = newCustomer()
  await script({ match: { host: hostname, path: '/v1/chat/completions' }, count: 3, effect: sdks.openai.effect })
  const program = join(import.meta.dirname, 'programs', 'openai-in-vain.mjs')
  await promisify(execFile)(process.execPath, [program, `${plain}/v1`, customer])
  const { calls, attempts } = await totals(customer)
  assert.deepEqual({ calls, attempts }, { calls: 1, attempts: 3 })
  assert.equal((await arrived()).calls, 3)
})
