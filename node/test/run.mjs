// Runs the tests beside one vendor-sim: `npm test`, or `node test/run.mjs test/scope.test.mjs` for some of them.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const workspace = join(here, '..', '..')
// npm takes the dashes before the names of tests away, and others leave them.
const chosen = process.argv.slice(2).filter((word) => word !== '--')
const files = chosen.length > 0
  ? chosen
  : readdirSync(here).filter((name) => name.endsWith('.test.mjs')).sort().map((name) => join(here, name))

/** @param {import('node:child_process').ChildProcess} child */
async function end (child) {
  const [code] = await once(child, 'close')
  return /** @type {number | null} */ (code)
}

const build = spawn('cargo', ['build', '--quiet', '--package', 'vendor-sim'], { cwd: workspace, stdio: 'inherit' })
if (await end(build) !== 0) process.exit(1)

const scratch = mkdtempSync(join(tmpdir(), 'farcall-node-test-'))
const target = process.env.CARGO_TARGET_DIR ?? join(workspace, 'target')
const sim = spawn(join(target, 'debug', 'vendor-sim'), ['--dir', scratch], { stdio: ['ignore', 'pipe', 'inherit'] })
process.on('exit', () => {
  sim.kill()
  rmSync(scratch, { recursive: true, force: true })
})
const [line] = await once(createInterface({ input: sim.stdout }), 'line')
const { tls, plain, ca } = JSON.parse(line)

const tests = spawn(process.execPath, ['--test', '--test-reporter=spec', '--test-concurrency=1', ...files], {
  stdio: 'inherit',
  env: {
    ...process.env,
    FARCALL_HOME: join(scratch, 'home'),
    // What is installed writes until its process ends, after all that a test can remove.
    TMPDIR: scratch,
    NODE_EXTRA_CA_CERTS: ca,
    SIM_TLS: `https://localhost:${tls.split(':')[1]}`,
    SIM_PLAIN: `http://${plain}`
  }
})
process.exitCode = await end(tests) ?? 1
process.exit()
