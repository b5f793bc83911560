// index.d.ts says of reports what they are: as strict TypeScript of an application sees it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import farcall from '../index.js'
import { newCustomer } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-types-'))
after(() => rmSync(scratch, { recursive: true }))

process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[policy]]
match = { customer = "denied" }
verdict = "deny"

[[policy]]
match = { customer = "warned" }
verdict = "warn"
`)
farcall.install()

const node = fileURLToPath(new URL('..', import.meta.url))
const tsc = join(node, 'node_modules', 'typescript', 'bin', 'tsc')

/**
 * What a TypeScript program is told of its mistakes.
 *
 * @param {string} source
 */
function mistakes (source) {
  const file = join(scratch, 'sample.mts')
  writeFileSync(file, source)
  const { stdout, status } = spawnSync(process.execPath, [
    tsc, '--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2022', '--types', 'node',
    '--typeRoots', join(node, 'node_modules', '@types'), file
  ], { cwd: scratch, encoding: 'utf8' })
  return stdout.trim() + (status === 0 || stdout !== '' ? '' : `tsc ended with ${status}`)
}

test('the types of tables have each field that a report has, and no other', async () => {
  for (const customer of [newCustomer(), 'denied', 'warned']) {
    await farcall.withCustomer(customer, () => fetch(`${plain}/scenario/ok`).then((response) => response.text(), () => {}))
  }
  await farcall.flush()
  let source = `import type { Answers } from ${JSON.stringify(join(node, 'index.js'))}\n`
  for (const question of /** @type {const} */ (['vendors', 'endpoints', 'customers', 'callers', 'calls'])) {
    const table = await farcall.report(question)
    assert.notEqual(table.rows.length, 0, question)
    // A literal may have neither less nor more than its type.
    source += `export const ${question}: Answers['${question}'] = ${JSON.stringify(table, null, 2)}\n`
  }
  const { rows } = await farcall.report('calls')
  assert.ok(rows.some(({ rule, why }) => rule !== null && why !== null), 'none was refused')
  assert.ok(rows.some(({ warned, events }) => warned.length > 0 && events.length > 0), 'none was warned of')
  assert.equal(mistakes(source), '')
})

test('what is not in a table is a mistake', () => {
  assert.match(mistakes(`
    import farcall from ${JSON.stringify(join(node, 'index.js'))}
    export const none = (await farcall.report('vendors')).rows[0].nothing
  `), /'nothing' does not exist on type 'VendorRow'/)
})
