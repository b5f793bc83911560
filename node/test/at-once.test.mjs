// What undici sends by itself: rules can stop it, and what they cannot do is counted.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import farcall from '../index.js'
import { counted, newCustomer, outcomes } from './support/ledger.mjs'
import { arrived, forget, plain } from './support/sim.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-at-once-'))
after(() => rmSync(scratch, { recursive: true }))
const [denied, failing, once, paced, hurried] = [newCustomer(), newCustomer(), newCustomer(), newCustomer(), newCustomer()]

process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
allow_faults = true

[[policy]]
name = "no-such-customer"
match = { customer = "${denied}" }
verdict = "deny"
reason = "on purpose"

[[fault]]
name = "fails"
match = { customer = "${failing}" }
share = "100%"
error = "reset"
expires = "2099-01-01T00:00:00Z"

[[budget]]
match = { customer = "${once}" }
limit = "1 requests / month"
over = "refuse"

[[quota]]
match = { customer = "${paced}" }
limit = "1 requests / 1m"
burst = 1
max_wait = "1h"
shared = "process"

[[resilience]]
match = { customer = "${hurried}" }
attempt_timeout = "1m"
`)

const bare = fetch
farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
after(() => assert.equal(farcall.status().inFlight, 0))

const { Agent, request } = await import('undici')
const agent = new Agent()
after(() => agent.destroy())

/** @type {Record<string, (path: string) => Promise<unknown>>} */
const clients = {
  'undici.request': async (path) => (await request(plain + path, { dispatcher: agent })).body.text(),
  'a fetch of before': async (path) => (await bare(plain + path)).text()
}

/** @param {string} name */
const counter = (name) => farcall.status().counters[name] ?? 0

for (const [name, call] of Object.entries(clients)) {
  test(`${name} is refused where a policy says no, and nothing is sent`, async () => {
    await forget()
    const before = await outcomes(denied, 'refused-policy')
    const error = await farcall.withCustomer(denied, () => call('/scenario/ok')).then(() => undefined, (error) => error)
    const refusal = error?.cause ?? error
    assert.equal(refusal?.name, 'FarcallRefusedError', String(error))
    assert.equal(refusal.rule, 'no-such-customer')
    assert.equal((await arrived()).calls, 0)
    assert.equal(await outcomes(denied, 'refused-policy') - before, 1)
  })

  test(`${name} fails where a fault says so`, async () => {
    const error = await farcall.withCustomer(failing, () => call('/scenario/ok')).then(() => undefined, (error) => error)
    assert.equal((error?.cause ?? error)?.code, 'ECONNRESET', String(error))
  })

  test(`${name} goes out where it would have to wait, counts as what it was, and as overlooked`, async () => {
    await farcall.withCustomer(paced, () => call('/scenario/ok'))
    const [overlooked, complete] = [counter('overlooked_calls'), await outcomes(paced, 'complete', 200)]
    await farcall.withCustomer(paced, () => call('/scenario/ok'))
    assert.equal(counter('overlooked_calls') - overlooked, 1)
    assert.equal(await outcomes(paced, 'complete', 200) - complete, 1)
    assert.equal((await counted(paced)).calls, complete + 1)
  })

  test(`${name} goes out without what a rule changes, and that is counted`, async () => {
    const before = counter('node_unapplied_changes')
    await farcall.withCustomer(hurried, () => call('/scenario/ok'))
    assert.equal(counter('node_unapplied_changes') - before, 1)
  })
}

test('a further hop of a redirect under fetch is refused where a budget is spent', async () => {
  await forget()
  const error = await farcall.withCustomer(once, () => fetch(plain + '/scenario/redirect')).then(() => undefined, (error) => error)
  assert.equal((error?.cause ?? error)?.name, 'FarcallRefusedError', String(error))
  assert.equal((await arrived()).calls, 1)
  assert.equal(await outcomes(once, 'complete', 302), 1)
  assert.equal(await outcomes(once, 'refused-budget'), 1)
})
