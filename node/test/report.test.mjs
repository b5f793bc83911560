import assert from 'node:assert/strict'
import { test } from 'node:test'
import farcall from '../index.js'
import { newCustomer } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

farcall.install({ service: 'report-test' })

test('the report answers what `farcall report --json` answers', async () => {
  const customer = newCustomer()
  await farcall.withCustomer(customer, async () => (await fetch(`${plain}/scenario/bytes/17`)).text())
  await farcall.flush()
  for (const since of ['1h', 3_600_000, new Date(Date.now() - 3_600_000)]) {
    const { report, rows, totals } = await farcall.report('customers', { since, filter: `customer=${customer}` })
    assert.equal(report, 'customers')
    assert.equal(rows[0].customer, customer)
    assert.deepEqual([totals.calls, totals.bytes_in, totals.tap], [1, 17, 'library'])
  }
  const { rows } = await farcall.report('callers', { filter: [`customer=${customer}`] })
  assert.equal(rows[0].service, 'report-test')
})

test('every question of the command line is answered', async () => {
  for (const question of /** @type {const} */ (['vendors', 'endpoints', 'customers', 'callers', 'calls', 'coverage', 'findings', 'all'])) {
    assert.equal(typeof await farcall.report(/** @type {any} */ (question)), 'object', question)
  }
})

test('refusals are an incident, though no rule is there', async () => {
  const refused = async () => {
    await (await fetch(`${plain}/scenario/429`)).text()
    await farcall.flush()
  }
  const times = async () => {
    const { rows } = /** @type {{ rows: any[] }} */ (await farcall.report(/** @type {any} */ ('incidents')))
    return rows.reduce((sum, incident) => sum + incident.count, 0)
  }
  await refused()
  const before = await times()
  // From the first one on this vendor's answers are looked at, within a second.
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  await refused()
  assert.equal(await times(), before + 1)
})

test('what cannot be understood is refused in words that help', async () => {
  await assert.rejects(farcall.report(/** @type {any} */ ('vendor')), /there is no report `vendor`; there are vendors/)
  await assert.rejects(farcall.report('vendors', { filter: 'vendr=stripe' }), /`vendr` is not a key/)
  await assert.rejects(farcall.report('vendors', { since: 'yesterday' }), /"yesterday" is not a duration: write 90s, 15m, 1h or 7d/)
})
