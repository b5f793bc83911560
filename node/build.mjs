// Builds the addon with cargo and puts it where lib/native.js looks for it; `--release` for a quick one.
import { spawnSync } from 'node:child_process'
import { copyFileSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const { addonFile } = createRequire(import.meta.url)('./lib/native.js')

const profile = process.argv.includes('--release') ? ['--release'] : []
const cargo = spawnSync(
  'cargo',
  ['build', '--package', 'farcall-node', '--message-format', 'json-render-diagnostics', ...profile],
  { cwd: here, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 1 << 28 }
)
if (cargo.error) throw cargo.error
if (cargo.status !== 0) process.exit(cargo.status ?? 1)

const library = cargo.stdout
  .split('\n')
  .filter((line) => line.startsWith('{'))
  .map((line) => JSON.parse(line))
  .filter((message) => message.reason === 'compiler-artifact' && message.target.name === 'farcall_node')
  .flatMap((message) => message.filenames)
  .find((name) => /\.(so|dylib|dll)$/.test(name))
if (!library) throw new Error('cargo built no library')

// Renamed into place: a process that runs the old one keeps it.
const place = join(here, addonFile())
copyFileSync(library, place + '.new')
renameSync(place + '.new', place)
console.log(place)
