// Added microseconds per call in Node, beside OpenTelemetry's instrumentation, in one run.
//
// usage: node bench.mjs OUT.json URL [ROW...]
//
// Five processes, bare, bare again, with Farcall, with OpenTelemetry and with hooks that do nothing, make the same calls.
// The result is the difference to bare, twice over:
// - The row: each process makes calls over a connection that answers from memory (memory.mjs), in many short blocks, and
//   never waits. What counts is the CPU time of a block at the tenth percentile: what a collection or the compiler takes
//   is not in it, for nobody. The median over sets of fresh processes, because what V8 compiles when, and where memory
//   lies, shifts a process by some microseconds a call.
// - Its note: CPU time of calls to a server over loopback, a block each in turn, forth and back. Each block comes after
//   four other processes had the caches, so everything is dearer, and how much by depends on the machine: two bare
//   processes differ by many microseconds.
// What the second bare process "adds" is what the measure cannot tell from nothing: it is printed beside the result, and
// a result below it counts as that.
import { execFileSync, spawn } from 'node:child_process'
import { writeFileSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import * as cached from './cached.mjs'
import { hookNothing } from './floor.mjs'
import * as memory from './memory.mjs'

// Fresh processes for each.
const SETS = 15
// A block of calls, and how many: each block has one bundle of Farcall's in it, whose calls cross to the engine together.
const BLOCK = 64
const BLOCKS = 250
const LOOPBACK_SETS = 3
const ROUNDS = 40
const CALLS = 128
// Enough for V8 to have compiled what it will.
const WARM_UP = 3000
// Less than this, in microseconds, is not claimed, however quiet the machine.
const FLOOR = 0.5
// The last is what it costs to look on from where Farcall does, whoever looks.
const HOWS = ['bare', 'control', 'farcall', 'opentelemetry', 'floor']
// A collection falls on one block or the next by chance, and takes as long as a hundred calls: here each block ends with
// one that collects what the block left behind, in its time.
const NODE = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64']
const require = createRequire(import.meta.url)
const self = fileURLToPath(import.meta.url)

async function instrument(how, home) {
  if (how === 'farcall') {
    const farcall = require('../../node')
    farcall.install({ home })
  } else if (how === 'floor') {
    hookNothing()
  } else if (how === 'opentelemetry') {
    const { context, trace } = require('@opentelemetry/api')
    const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks')
    const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace')
    const { registerInstrumentations } = require('@opentelemetry/instrumentation')
    const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
    const { UndiciInstrumentation } = require('@opentelemetry/instrumentation-undici')
    const nowhere = { export: (_spans, done) => done({ code: 0 }), shutdown: async () => {}, forceFlush: async () => {} }
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new BatchSpanProcessor(nowhere)] }))
    registerInstrumentations({ instrumentations: [new HttpInstrumentation(), new UndiciInstrumentation()] })
  }
}

function client(name, url) {
  if (name === 'node/fetch') return async () => { await (await fetch(url)).arrayBuffer() }
  const http = require('node:http')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  return () => new Promise((resolve, reject) => {
    http.get(url, { agent }, (response) => response.resume().on('end', resolve)).on('error', reject)
  })
}

async function work(name, how, url, home) {
  if (name !== cached.NAME) await instrument(how, home)
  const call = name === cached.NAME ? await cached.client(how, url, home) : client(name, url)
  const calls = async (count) => { for (let n = 0; n < count; n++) await call() }
  await calls(WARM_UP)
  console.log('ready')
  for await (const line of createInterface({ input: process.stdin })) {
    const count = Number(line)
    if (!count) continue
    globalThis.gc({ type: 'minor' })
    await calls(10) // what the other processes put out of the caches comes back
    const before = process.cpuUsage()
    await calls(count)
    globalThis.gc({ type: 'minor' })
    const { user, system } = process.cpuUsage(before)
    console.log(String((user + system) / count))
  }
  process.exit(0)
}

/** All the blocks of one process: microseconds a call in the fast ones. */
async function workInMemory(name, how, home) {
  await instrument(how, home)
  const call = memory.client(name)
  const calls = async (count) => { for (let n = 0; n < count; n++) await call() }
  await calls(WARM_UP)
  const times = []
  for (let n = 0; n < BLOCKS; n++) {
    const before = process.cpuUsage()
    await calls(BLOCK)
    const { user, system } = process.cpuUsage(before)
    times.push((user + system) / BLOCK)
  }
  console.log(String(times.sort((a, b) => a - b)[BLOCKS / 10]))
  process.exit(0)
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** The command that runs on one CPU only, and so leaves the others to the server; empty where there is none. */
function pin() {
  if (os.availableParallelism() < 2) return []
  try {
    execFileSync('taskset', ['-c', '0', 'true'], { stdio: 'ignore' })
    return ['taskset', '-c', '0']
  } catch {
    return []
  }
}

async function measure(name, url) {
  const [ours, peer, floor, chance] = await medians(SETS, () => measureInMemory(`node/${name}`))
  const loopback = await medians(LOOPBACK_SETS, () => measureSet(name, url))
  const note = `hooks that do nothing ${floor.median.toFixed(1)}; a second bare process differs by ` +
    `${chance.median.toFixed(1)}; ours ${ours.between} in the middle half of ${SETS} sets. CPU over loopback, caches cold: ` +
    `${loopback[0].median.toFixed(0)}, ${loopback[1].median.toFixed(0)} with OpenTelemetry, ` +
    `a second bare process differs by ${loopback[3].median.toFixed(0)}`
  console.error(`bench: node/${name} adds ${ours.median.toFixed(1)} us; ${note}`)
  return {
    name: `node/${name}`,
    unit: 'us of CPU added per call',
    ours: ours.median,
    peer: peer.median,
    peer_name: 'OpenTelemetry instrumentation',
    ratio: peer.median / Math.max(ours.median, FLOOR, chance.median),
    note,
  }
}

/** What Farcall, OpenTelemetry and empty hooks add, and how far from bare the second bare process is, over so many sets. */
async function medians(count, measureOne) {
  const sets = []
  for (let n = 0; n < count; n++) sets.push(await measureOne(n))
  return ['farcall', 'opentelemetry', 'floor', 'control'].map((how) => {
    const values = sets.map((set) => how === 'control' ? Math.abs(set[how]) : set[how]).sort((a, b) => a - b)
    return { median: median(values), between: `${values[count >> 2].toFixed(1)} to ${values[count - 1 - (count >> 2)].toFixed(1)}` }
  })
}

/** One process after the other, each time in another order. */
async function measureInMemory(name) {
  const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-'))
  const times = {}
  for (const how of HOWS.toSorted(() => Math.random() - 0.5)) {
    const [command, ...args] = [...pin(), process.execPath, ...NODE, self, 'memory', name, how, home]
    times[how] = Number(execFileSync(command, args, { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' }))
  }
  rmSync(home, { recursive: true, force: true })
  return Object.fromEntries(HOWS.map((how) => [how, times[how] - times.bare]))
}

/** Starts a process that makes calls when it is told to. */
async function start(name, how, url, home) {
  const command = [...pin(), process.execPath, ...NODE, self, 'work', name, how, url, home]
  const child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
  child.on('exit', (code) => {
    if (code !== 0) throw new Error(`the ${how} process of ${name} ended with ${code}`)
  })
  const lines = createInterface({ input: child.stdout })
  await once(lines, 'line')
  return {
    /** So many calls, one after the other; the microseconds of CPU time that each took. */
    async turn(calls) {
      const answer = once(lines, 'line')
      child.stdin.write(`${calls}\n`)
      return Number((await answer)[0])
    },
    async end() {
      const closed = once(child, 'close')
      child.stdin.end()
      await closed
    },
  }
}

async function measureSet(name, url) {
  const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-'))
  const workers = {}
  for (const how of HOWS) workers[how] = await start(`node/${name}`, how, url, home)
  const added = Object.fromEntries(HOWS.map((how) => [how, []]))
  for (let n = 0; n < ROUNDS; n++) {
    const times = {}
    const order = HOWS.map((_, k) => HOWS[(k + (n >> 1)) % HOWS.length])
    if (n % 2 === 1) order.reverse() // forth and back: what drifts cancels
    for (const how of order) times[how] = await workers[how].turn(CALLS)
    for (const how of HOWS) added[how].push(times[how] - times.bare)
  }
  for (const how of HOWS) await workers[how].end()
  rmSync(home, { recursive: true, force: true })
  return Object.fromEntries(HOWS.map((how) => [how, median(added[how])]))
}

const [first, ...rest] = process.argv.slice(2)
if (first === 'work') {
  await work(...rest)
} else if (first === 'memory') {
  await workInMemory(...rest)
} else {
  const [url, ...wanted] = rest
  const measured = {
    'node/fetch': () => measure('fetch', url),
    'node/http': () => measure('http', url),
    [cached.NAME]: () => cached.measure(start, median, url),
  }
  const rows = []
  for (const [name, row] of Object.entries(measured)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    console.error(`bench: ${name} ...`)
    rows.push(await row())
  }
  writeFileSync(first, JSON.stringify(rows, null, 2))
}
