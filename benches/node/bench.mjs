// Added microseconds per call in Node, beside OpenTelemetry's instrumentation, in one run.
//
// usage: node bench.mjs OUT.json URL
//
// Three processes, bare, with Farcall and with OpenTelemetry, are measured in turns against the same local
// server; the result is the median of the differences to bare, in CPU time.
import { spawn } from 'node:child_process'
import { writeFileSync, mkdtempSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

// Each set is three fresh processes: where their memory lies shifts a process's speed by some microseconds a call.
const SETS = 5
const ROUNDS = 30
const CALLS = 300
// Less than this, in microseconds, the machine cannot tell from nothing.
const FLOOR = 0.5
const require = createRequire(import.meta.url)
const self = fileURLToPath(import.meta.url)

async function instrument(how) {
  if (how === 'farcall') {
    const farcall = require('../../node')
    farcall.install({ home: mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-')) })
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
  if (name === 'fetch') return async () => { await (await fetch(url)).arrayBuffer() }
  const http = require('node:http')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  return () => new Promise((resolve, reject) => {
    http.get(url, { agent }, (response) => response.resume().on('end', resolve)).on('error', reject)
  })
}

async function work(name, how, url) {
  await instrument(how)
  const call = client(name, url)
  const round = async () => { for (let n = 0; n < CALLS; n++) await call() }
  for (let n = 0; n < 10; n++) await round()
  console.log('ready')
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line) continue
    const before = process.cpuUsage()
    await round()
    const { user, system } = process.cpuUsage(before)
    console.log(String((user + system) / CALLS))
  }
  process.exit(0)
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]

async function measure(name, url) {
  const sets = []
  for (let n = 0; n < SETS; n++) sets.push(await measureSet(name, url))
  const ours = median(sets.map((one) => one.farcall))
  const peer = median(sets.map((one) => one.opentelemetry))
  return {
    name: `node/${name}`,
    unit: 'us of CPU added per call',
    ours,
    peer,
    peer_name: 'OpenTelemetry instrumentation',
    ratio: peer / Math.max(ours, FLOOR),
  }
}

async function measureSet(name, url) {
  const workers = {}
  for (const how of ['bare', 'farcall', 'opentelemetry']) {
    const child = spawn(process.execPath, [self, 'work', name, how, url], { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: child.stdout })
    workers[how] = { child, lines }
    await once(lines, 'line')
  }
  const added = { farcall: [], opentelemetry: [] }
  const hows = Object.keys(workers)
  for (let n = 0; n < ROUNDS; n++) {
    const times = {}
    for (let k = 0; k < hows.length; k++) {
      const how = hows[(k + n) % hows.length] // who is first changes from round to round
      const answer = once(workers[how].lines, 'line')
      workers[how].child.stdin.write('go\n')
      times[how] = Number((await answer)[0])
    }
    for (const how of Object.keys(added)) added[how].push(times[how] - times.bare)
  }
  for (const { child } of Object.values(workers)) {
    const closed = once(child, 'close')
    child.stdin.end()
    await closed
  }
  return { farcall: median(added.farcall), opentelemetry: median(added.opentelemetry) }
}

const [first, ...rest] = process.argv.slice(2)
if (first === 'work') {
  await work(...rest)
} else {
  const rows = []
  for (const name of ['fetch', 'http']) {
    console.error(`bench: node/${name} ...`)
    rows.push(await measure(name, rest[0]))
  }
  writeFileSync(first, JSON.stringify(rows, null, 2))
}
