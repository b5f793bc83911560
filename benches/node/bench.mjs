// Added microseconds per call in Node, beside OpenTelemetry's instrumentation, in one run.
//
// usage: node bench.mjs OUT.json URL [ROW...]
//
// What the rows say: how much more CPU time a call takes while somebody looks on, user and system together, than while
// nobody does. node/fetch is global `fetch`, node/http is `http.get` with a keep-alive agent; both read the answer, of some
// 30 bytes, to its end. No rule decides anything, so nothing is asked before a call. cache/hit/fetch (cached.mjs) is a whole
// call that is answered from the cache.
//
// Measured twice over:
// - The row: over connections that answer from memory (memory.mjs), so that nobody ever waits, and each process for itself:
//   it puts the hooks in place and takes them off again, in turns. Two processes that do the same differ by microseconds
//   a call, for good, by what V8 compiles when and by where memory lies; one process with and without hooks does not. After
//   each change come enough calls for V8 to compile anew what depends on it, then short blocks; what counts is the CPU time
//   of a block at the tenth percentile, so that what the compiler or another program takes is not in it, for nobody. A
//   collection of what a block left behind is, in each block. The result is the median over the turns of several fresh
//   processes, beside it the interval that holds the median of all such turns in 95 of 100 runs.
//   A process that changes nothing in its turns says what the measure cannot tell from nothing.
// - Its note: CPU time of calls to a server over loopback, a process for each, a block each in turn, forth and back. Each
//   block comes after the other processes had the caches, so everything is dearer, and how much by depends on the machine:
//   two bare processes differ by many microseconds.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import * as cached from './cached.mjs'
import { instrument, turns } from './turns.mjs'

// A row takes no longer than these together, in milliseconds: the sets of fresh processes, and the calls over loopback.
const SETS_MS = 18_000
const LOOPBACK_MS = 3_000
// A machine that is so busy that the sets alone take longer than this gets no note about loopback.
const LATE_MS = 30_000
// What is enough; and the turns of each process in a set, as many as fit into so many milliseconds.
const MOST_SETS = 5
const MOST_TURNS = 12
const TURNS_MS = { farcall: 2_500, control: 1_500, opentelemetry: 1_500 }
// Turns of each process over loopback, and the calls of a turn.
const LEAST_ROUNDS = 4
const MOST_ROUNDS = 40
const CALLS = 128
// Enough for V8 to have compiled what it will.
const WARM_UP = 1500
// Less than this, in microseconds, is not claimed, however quiet the machine.
const FLOOR = 0.5
const HOWS = ['bare', 'control', 'farcall', 'opentelemetry']
// Collections are made when nobody is timed, and V8 has no threads of its own whose time would count.
const NODE = ['--expose-gc', '--single-threaded', '--min-semi-space-size=64', '--max-semi-space-size=64']
const self = fileURLToPath(import.meta.url)

function client(name, url) {
  if (name === 'node/fetch') return async () => { await (await fetch(url)).arrayBuffer() }
  const http = require('node:http')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  return () => new Promise((resolve, reject) => {
    http.get(url, { agent }, (response) => response.resume().on('end', resolve)).on('error', reject)
  })
}

/** Makes so many calls when it is told to, and tells what each took of the CPU. */
async function work(name, how, url, home) {
  if (name !== cached.NAME) instrument(how, home)
  const call = name === cached.NAME ? await cached.client(how, url, home) : client(name, url)
  const calls = async (count) => { for (let n = 0; n < count; n++) await call() }
  await calls(WARM_UP)
  console.log('ready')
  for await (const line of createInterface({ input: process.stdin })) {
    const count = Number(line)
    if (!count) continue
    await calls(10) // what the other processes put out of the caches comes back
    const before = process.cpuUsage()
    await calls(count)
    globalThis.gc({ type: 'minor' })
    const { user, system } = process.cpuUsage(before)
    console.log((user + system) / count)
  }
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
  const began = performance.now()
  const sets = await within(SETS_MS, 1, MOST_SETS, () => measureInMemory(`node/${name}`))
  const loopback = performance.now() - began > LATE_MS ? undefined : await overLoopback(`node/${name}`, url)
  const [ours, peer, control] = ['farcall', 'opentelemetry', 'control'].map((how) => sets.flatMap((set) => set[how]))
  const [added, chance] = [ours, control].map((turns) => median(turns.map((turn) => turn.added)))
  const bare = median(ours.map((turn) => turn.bare))
  const note = `ours ${interval(ours)}, OpenTelemetry ${interval(peer)}, nothing at all ${interval(control)} (turns of ${sets.length} sets ` +
    `of fresh processes; a call takes ${bare.toFixed(0)} without). CPU over loopback` + (loopback === undefined
      ? ' was not measured: the machine is too busy'
      : `, caches cold: ${loopback.farcall.toFixed(0)}, ${loopback.opentelemetry.toFixed(0)} with OpenTelemetry, ` +
        `a second bare process differs by ${Math.abs(loopback.control).toFixed(0)}`)
  console.error(`bench: node/${name} adds ${added.toFixed(2)} us of CPU time to a call; ${note}`)
  const most = median(peer.map((turn) => turn.added))
  return {
    name: `node/${name}`,
    unit: 'us of CPU added per call',
    ours: added,
    peer: most,
    peer_name: 'OpenTelemetry instrumentation',
    ratio: most / Math.max(added, FLOOR, Math.abs(chance)),
    note,
  }
}

/** Measures again and again, for as long as another one will be over in time. */
async function within(ms, least, most, measureOne) {
  const began = performance.now()
  const all = []
  while (all.length < least || (all.length < most && (performance.now() - began) * (1 + 1 / all.length) < ms)) {
    all.push(await measureOne(all.length))
  }
  return all
}

/**
 * Where the median of all turns there could be lies in 95 of 100 runs: between two of the sorted values, whatever their
 * distribution. With fewer than six there is none: the least and the largest, which hold it less often.
 */
function interval(turns) {
  const sorted = turns.map((turn) => turn.added).sort((a, b) => a - b)
  // How likely it is that at most so many of the values lie below the median.
  let [rank, below, term] = [0, 0, 0.5 ** sorted.length]
  while (below + term <= 0.025) {
    below += term
    term *= (sorted.length - rank) / (rank + 1)
    rank++
  }
  const at = Math.max(rank - 1, 0)
  const bounds = `${sorted[at].toFixed(1)} to ${sorted[sorted.length - 1 - at].toFixed(1)}`
  return rank === 0 ? `${bounds} (from the least to the largest of ${sorted.length})` : `${bounds} (95 %)`
}

/** A fresh process each that changes between hooks and none: what its turns say. */
async function measureInMemory(name) {
  const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-'))
  const set = {}
  for (const [how, ms] of Object.entries(TURNS_MS)) {
    const [program, ...args] = [...pin(), process.execPath, ...NODE, self, 'turns', name, how, home, MOST_TURNS, ms].map(String)
    set[how] = JSON.parse(execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }))
  }
  rmSync(home, { recursive: true, force: true })
  return set
}

/** Forth and back, and each time with another one first: what drifts cancels. */
function order(n) {
  const turned = HOWS.map((_, k) => HOWS[(k + (n >> 1)) % HOWS.length])
  return n % 2 === 1 ? turned.reverse() : turned
}

/** Runs `use` with a fresh process for each of the four. */
async function inTurns(name, url, use) {
  const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-'))
  const started = await Promise.all(HOWS.map((how) => start(name, how, url, home)))
  const result = await use(Object.fromEntries(HOWS.map((how, n) => [how, started[n]])))
  for (const worker of started) await worker.end()
  rmSync(home, { recursive: true, force: true })
  return result
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
    /** So many calls; the microseconds of CPU time that each took. */
    async turn(count) {
      const answer = once(lines, 'line')
      child.stdin.write(`${count}\n`)
      return Number((await answer)[0])
    },
    async end() {
      const closed = once(child, 'close')
      child.stdin.end()
      await closed
    },
  }
}

async function overLoopback(name, url) {
  const added = await inTurns(name, url, (workers) => within(LOOPBACK_MS, LEAST_ROUNDS, MOST_ROUNDS, async (n) => {
    const took = {}
    for (const how of order(n)) took[how] = await workers[how].turn(CALLS)
    return Object.fromEntries(HOWS.map((how) => [how, took[how] - took.bare]))
  }))
  return Object.fromEntries(HOWS.map((how) => [how, median(added.map((times) => times[how]))]))
}

const [first, ...rest] = process.argv.slice(2)
if (first === 'work') {
  await work(...rest)
} else if (first === 'turns') {
  const [name, how, home, most, ms] = rest
  writeSync(1, JSON.stringify(await turns(name, how, home, Number(most), Number(ms))))
  process.exit(0)
} else {
  const [url, ...wanted] = rest
  const measured = {
    'node/fetch': () => measure('fetch', url),
    'node/http': () => measure('http', url),
    [cached.NAME]: () => cached.measure(start, median, within, url),
  }
  const rows = []
  for (const [name, row] of Object.entries(measured)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    console.error(`bench: ${name} ...`)
    rows.push(await row())
  }
  writeFileSync(first, JSON.stringify(rows, null, 2))
}
