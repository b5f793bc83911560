// Several copies of the package in one process: of two versions, in a bundle, in each test file of jest's.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import farcall from '../index.js'
import { counted, newCustomer } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

// Reads the same ledger as the programs write.
farcall.install()

const index = fileURLToPath(new URL('../index.js', import.meta.url))
const register = new URL('../lib/register.js', import.meta.url).href
const sandbox = fileURLToPath(new URL('./support/sandbox.cjs', import.meta.url))

const scratch = mkdtempSync(join(tmpdir(), 'farcall-copies-'))
after(() => rmSync(scratch, { recursive: true }))

/** The same package without an addon, as it is in a bundle. */
const bundled = join(scratch, 'bundled', 'index.js')
cpSync(join(dirname(index), 'lib'), join(scratch, 'bundled', 'lib'), { recursive: true })
cpSync(index, bundled)

/**
 * Runs a program to its end.
 *
 * @param {string} source of a CommonJS module
 * @param {{ flags?: string[], env?: Record<string, string> }} [options]
 */
async function run (source, { flags = [], env = {} } = {}) {
  const file = join(scratch, `${newCustomer()}.cjs`)
  writeFileSync(file, `
    const http = require('node:http')
    const { PLAIN, INDEX, BUNDLED } = process.env
    const byHttp = (path) => new Promise((resolve, reject) => {
      http.get(PLAIN + path, (response) => response.resume().on('end', resolve)).on('error', reject)
    })
    const byFetch = async (path) => (await fetch(PLAIN + path)).text()
    const hooks = () => [
      http.ClientRequest.prototype.emit, http.ClientRequest.prototype.end, http.Agent.prototype.addRequest,
      require('node:net').Socket.prototype.connect, fetch
    ]
    const listeners = () => ['exit', 'beforeExit', 'SIGTERM'].map((name) => process.listenerCount(name))
    const sandbox = require(${JSON.stringify(sandbox)})
    const again = (index) => {
      const { dirname } = require('node:path')
      for (const file of Object.keys(require.cache)) {
        if (file.startsWith(dirname(index)) && !file.includes('node_modules') && !file.endsWith('.node')) delete require.cache[file]
      }
      return require(index)
    }
    ;(async () => { ${source} })().catch((error) => { console.error(error); process.exitCode = 1 })
  `)
  const child = spawn(process.execPath, [...flags, file], {
    env: { ...process.env, PLAIN: plain, INDEX: index, BUNDLED: bundled, ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text) => { output += text })
  child.stderr.setEncoding('utf8').on('data', (text) => { errors += text })
  const [code] = await once(child, 'close')
  return { code, output, errors }
}

for (const [what, kind] of [['as jest has them', 'jest'], ['that reach nothing outside', 'closed']]) {
  test(`test files in contexts of their own, ${what}, have one set of hooks, and each call counts once`, async () => {
    const customer = newCustomer()
    const { code, output, errors } = await run(`
      let first, told
      for (let file = 0; file < 60; file += 1) {
        const context = sandbox('${kind}')
        const farcall = context.require(INDEX)
        farcall.install({ service: 'file-' + file })
        if (!farcall.status().installed) throw new Error('file ' + file + ' is not installed')
        await farcall.withCustomer('${customer}', async () => {
          await context.run('fetch')(PLAIN + '/scenario/ok').then((response) => response.text())
          await byFetch('/scenario/ok')
          await byHttp('/scenario/ok')
        })
        first ??= hooks()
        told ??= listeners()
        if (hooks().some((hook, at) => hook !== first[at])) throw new Error('file ' + file + ' put hooks of its own')
        if (String(listeners()) !== String(told)) throw new Error('file ' + file + ' listens as well')
        // Where nothing outside is reached, nobody tells of the exit.
        if (file === 59 && '${kind}' === 'closed') await farcall.flush()
        context.end()
      }
      console.log(told.join())
    `)
    assert.deepEqual([code, errors], [0, ''])
    assert.equal((await counted(customer)).calls, 180)
    // One of each: Node tells the process, and not the context of a file.
    if (kind === 'jest') assert.equal(output, '1,1,1\n')
  })
}

test('a context that ends takes no call along: what comes after it is counted, and written at the exit', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`
    const { withCustomer } = require(INDEX)
    const file = sandbox('jest')
    file.require(INDEX).install()
    file.end()
    await withCustomer('${customer}', byFetch, '/scenario/ok')
    await withCustomer('${customer}', byHttp, '/scenario/ok')
    process.exit()
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 2)
})

test('farcall/register beside a bundle that has farcall inside: its customers are those of the calls, and it can ask', async () => {
  const customer = newCustomer()
  const { code, output, errors } = await run(`
    const { install, flush, report, status, withCustomer, withTags } = require(BUNDLED)
    install({ service: 'bundled' })
    await withCustomer('${customer}', () => withTags({ job: 'sync' }, async () => {
      await byFetch('/scenario/ok')
      await byHttp('/scenario/ok')
    }))
    await flush()
    const { totals } = await report('customers', { filter: ['customer=${customer}', 'tag=job=sync'] })
    console.log(status().installed, status().problems.count, totals.calls)
  `, { flags: ['--import', register] })
  assert.deepEqual([code, output, errors], [0, 'true 0 2\n', ''])
})

test('a bundle that has farcall inside, and nothing beside it, says once that nothing is counted, and goes on', async () => {
  const { code, output, errors } = await run(`
    const farcall = require(BUNDLED)
    farcall.install()
    farcall.install()
    const text = await farcall.withCustomer('acme', byFetch, '/scenario/ok')
    console.log(text.length > 0, farcall.status().installed)
  `)
  assert.deepEqual([code, output], [0, 'true false\n'])
  assert.equal(errors.match(/Farcall counts nothing/g)?.length, 1, errors)
})

test('a copy that was loaded before another was installed hands on to it, whichever it is', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`
    const { withCustomer, status } = require(BUNDLED)
    await withCustomer('${customer}', async () => {
      require(INDEX).install()
      await byFetch('/scenario/ok')
    })
    if (!status().installed) throw new Error('it does not know')
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 1)
})

test('uninstall of any copy takes the hooks out, also of the context that asks, and install of another puts the same back', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`
    const bare = hooks()
    const farcall = require(INDEX)
    const file = sandbox('jest', { fetch: async (...args) => bare[4](...args) })
    const own = file.run('fetch')
    farcall.install()
    const copy = file.require(INDEX)
    copy.install()
    if (file.run('fetch') === own) throw new Error('no rule reaches the fetch of this context')
    copy.uninstall()
    if (hooks().some((hook, at) => hook !== bare[at])) throw new Error('not as it was')
    if (file.run('fetch') !== own) throw new Error('not as it was in the context')
    if (farcall.status().installed || copy.status().installed) throw new Error('still installed')
    await farcall.withCustomer('${customer}', byFetch, '/scenario/ok')
    again(INDEX).install()
    if (!farcall.status().installed) throw new Error('another set of hooks')
    await farcall.withCustomer('${customer}', byHttp, '/scenario/ok')
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 1)
})

test('rules hold in every context, and a refusal is the RefusedError of every copy', async () => {
  const home = join(scratch, 'rules')
  mkdirSync(home)
  const config = join(home, 'farcall.toml')
  writeFileSync(config, '[[policy]]\nname = "no"\nmatch = { customer = "denied" }\nverdict = "deny"\n')
  const { code, output, errors } = await run(`
    const { RefusedError } = require(BUNDLED)
    for (const file of [sandbox('jest'), sandbox('jest', { fetch: async (...args) => fetch(...args) }), sandbox('closed')]) {
      const farcall = file.require(INDEX)
      farcall.install()
      const error = await farcall.withCustomer('denied', () => file.run('fetch')(PLAIN + '/scenario/ok').catch((error) => error))
      console.log(error.code, error instanceof farcall.RefusedError, error instanceof RefusedError)
    }
  `, { env: { FARCALL_HOME: home, FARCALL_CONFIG: config } })
  assert.deepEqual([code, errors], [0, ''])
  assert.equal(output, 'ERR_FARCALL_REFUSED true true\n'.repeat(3))
})
