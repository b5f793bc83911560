// Added microseconds per call in Node, beside OpenTelemetry's instrumentation, in one run.
//
// usage: node bench.mjs OUT.json URL [ROW...]
//
// What the rows say: how much more CPU time a call takes while somebody looks on, user and system together, than while
// nobody does. node/fetch is global `fetch`, node/http is `http.get` with a keep-alive agent; both read the answer, of some
// 30 bytes, to its end. No rule decides anything, so nothing is asked before a call. cache/hit/fetch (cached.mjs) is a whole
// call that is answered from the cache.
//
// Measured twice over, by processes of which each makes a block of calls in turn, forth and back: two bare ones, one with
// Farcall, one with OpenTelemetry, and one with the least that Node itself offers (hooks.mjs).
// - The row: over connections that answer from memory (memory.mjs), so that nobody ever waits. Three things are kept from
//   being taken for a cost of hooks. V8 compiles for thousands of calls on, and the more code there is the longer: all
//   processes are warm before the first round. What it compiles, and how it lays out memory, would differ by microseconds a
//   call between two processes that do the same: it has no chance to decide differently (`--predictable`, fixed seeds, no
//   address space randomization). And what a collection costs depends on when it falls: one follows each block, untimed. Of a
//   process counts the CPU time of a call in its block at the tenth percentile, as in benches/python: what the machine does
//   besides is not in it. The result is what that is more than the mean of the two bare processes' of the same set; the
//   median over several sets of fresh processes, beside it from the least to the largest of them. What the two bare ones
//   differ by says what the measure cannot tell from nothing.
// - Its note: the same over loopback, with a server on another core. The kernel's part of a call varies more than what is
//   to be measured.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import * as cached from './cached.mjs'
import { instrument } from './hooks.mjs'
import * as memory from './memory.mjs'

// A row takes no longer than these together, in milliseconds: the sets of fresh processes, and the calls over loopback.
const SETS_MS = 60_000
const LOOPBACK_MS = 3_000
// A machine that is so busy that the sets alone take longer than this gets no note about loopback.
const LATE_MS = 80_000
const MOST_SETS = 5
// The rounds of a set, as many as fit into so many milliseconds within these bounds. The calls of a block: each has one bundle
// of Farcall's in it, whose calls cross to the engine together.
const ROUNDS_MS = 4_000
const LEAST_ROUNDS = 4
const MOST_ROUNDS = 200
const CALLS = 64
// Calls before a block, for what the other processes put out of the caches to come back.
const REFRESH = 10
// Calls for V8 to compile what it will: nearly all of it where hooks are told from none (it goes on until 16,000 to 24,000,
// with one small function in a thousand calls), most of it elsewhere.
const WARM_UP = 1_500
const WARM_UP_IN_MEMORY = 12_000
// Less than this, in microseconds, is not claimed, however quiet the machine.
const FLOOR = 0.5
const HOWS = ['bare', 'control', 'least', 'farcall', 'opentelemetry']
// Collections are made when nobody is timed, and V8 has no threads of its own whose time would count.
const NODE = ['--expose-gc', '--single-threaded', '--predictable', '--hash-seed=1', '--random-seed=1',
  '--min-semi-space-size=64', '--max-semi-space-size=64']
/** The server of those who need none. */
const MEMORY = 'memory'
const require = createRequire(import.meta.url)
const self = fileURLToPath(import.meta.url)

function client(name, url) {
  if (url === MEMORY) return memory.client(name)
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
  await calls(url === MEMORY ? WARM_UP_IN_MEMORY : WARM_UP)
  console.log('ready')
  for await (const line of createInterface({ input: process.stdin })) {
    const count = Number(line)
    if (!count) continue
    await calls(REFRESH)
    const before = process.cpuUsage()
    await calls(count)
    const { user, system } = process.cpuUsage(before)
    globalThis.gc({ type: 'minor' })
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
  return os.availableParallelism() < 2 ? [] : ifItRuns('taskset', '-c', '0')
}

/** The command that gives all processes the same layout of memory; empty where there is none. */
function sameLayout() {
  return ifItRuns('setarch', '-R')
}

function ifItRuns(...command) {
  try {
    execFileSync(command[0], [...command.slice(1), 'true'], { stdio: 'ignore' })
    return command
  } catch {
    return []
  }
}

async function measure(name, url) {
  const began = performance.now()
  const sets = await within(SETS_MS, 1, MOST_SETS, async () => added(await inRounds(`node/${name}`, MEMORY, ROUNDS_MS), best))
  const late = performance.now() - began > LATE_MS
  const loopback = late ? undefined : added(await inRounds(`node/${name}`, url, LOOPBACK_MS), median)
  const [ours, peer, control, least] =
    ['farcall', 'opentelemetry', 'control', 'least'].map((how) => sets.map((set) => set[how]))
  const [most, more, chance] = [peer, ours, control].map(median)
  const on = (how) => loopback[how].toFixed(0)
  const over = loopback === undefined
    ? ' was not measured: the machine is too busy'
    : `: ${on('farcall')}, ${on('opentelemetry')} with OpenTelemetry, ${on('control')} a second bare process`
  const note = `ours ${span(ours)}, OpenTelemetry ${span(peer)}, a second bare process ${span(control)}, the least that ` +
    `Node offers ${median(least).toFixed(2)}, ${span(least)} (the least and the largest of ${sets.length} sets of fresh processes; a ` +
    `call takes ${median(sets.map((set) => set.bare)).toFixed(0)} without). CPU over loopback${over}`
  console.error(`bench: node/${name} adds ${more.toFixed(2)} us of CPU time to a call; ${note}`)
  return {
    name: `node/${name}`,
    unit: 'us of CPU added per call',
    ours: more,
    peer: most,
    peer_name: 'OpenTelemetry instrumentation',
    ratio: most / Math.max(more, FLOOR, Math.abs(chance)),
    note,
  }
}

/** What a call takes without, and more with, by the blocks of a set of processes; `of` says what a process's blocks come to. */
function added(rounds, of) {
  const took = Object.fromEntries(HOWS.map((how) => [how, of(rounds.map((round) => round[how]))]))
  const bare = (took.bare + took.control) / 2
  const more = Object.fromEntries(['least', 'farcall', 'opentelemetry'].map((how) => [how, took[how] - bare]))
  return { bare, control: took.control - took.bare, ...more }
}

/** The tenth percentile. */
function best(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 10)]
}

/** From the least to the largest. */
function span(values) {
  return `${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}`
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
  const command = [...pin(), ...sameLayout(), process.execPath, ...NODE, self, 'work', name, how, url, home]
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

/** What a call took in the blocks of a set of fresh processes, round by round. */
async function inRounds(name, url, ms) {
  return await inTurns(name, url, (workers) => within(ms, LEAST_ROUNDS, MOST_ROUNDS, async (n) => {
    const took = {}
    for (const how of order(n)) took[how] = await workers[how].turn(CALLS)
    return took
  }))
}

const [first, ...rest] = process.argv.slice(2)
if (first === 'work') {
  await work(...rest)
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
