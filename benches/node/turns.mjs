// What a call takes more of the CPU while somebody looks on than while nobody does, in one process that changes between
// the two.
import { createRequire } from 'node:module'
import * as memory from './memory.mjs'

// Calls after each change, for V8 to compile what it will; the blocks of a turn; the calls of a block: each has one bundle
// of Farcall's in it, whose calls cross to the engine together. A block is timed in parts, before each of which there is a
// collection: so none falls into it, and a part works in memory that is in the caches.
const SETTLE = 1_500
const BLOCKS = 40
const PARTS = 2
const PART = 32
// However slow the machine. The first is not counted: V8 has to learn that there is a change at all.
const LEAST = 3

const require = createRequire(import.meta.url)

/** Puts hooks in place, and returns what takes them off and puts them back. */
function hooks(how, home) {
  if (how === 'farcall') {
    const farcall = require('../../node')
    return { on: () => farcall.install({ home }), off: () => farcall.uninstall() }
  }
  if (how === 'opentelemetry') return opentelemetry()
  return { on() {}, off() {} }
}

function opentelemetry() {
  const { context, trace } = require('@opentelemetry/api')
  const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks')
  const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace')
  const { registerInstrumentations } = require('@opentelemetry/instrumentation')
  const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
  const { UndiciInstrumentation } = require('@opentelemetry/instrumentation-undici')
  const nowhere = { export: (_spans, done) => done({ code: 0 }), shutdown: async () => {}, forceFlush: async () => {} }
  const provider = new TracerProvider({ spanProcessors: [new BatchSpanProcessor(nowhere)] })
  const manager = new AsyncLocalStorageContextManager()
  const instrumentations = [new HttpInstrumentation(), new UndiciInstrumentation()]
  registerInstrumentations({ instrumentations, tracerProvider: provider })
  return {
    on() {
      context.setGlobalContextManager(manager.enable())
      trace.setGlobalTracerProvider(provider)
      for (const instrumentation of instrumentations) instrumentation.enable()
    },
    off() {
      for (const instrumentation of instrumentations) instrumentation.disable()
      trace.disable()
      context.disable()
    },
  }
}

/** Puts hooks in place, for good. */
export function instrument(how, home) {
  hooks(how, home).on()
}

/** The CPU time of the faster blocks, in microseconds a call. */
async function time(calls) {
  const times = []
  for (let n = 0; n < BLOCKS; n++) {
    let took = 0
    for (let part = 0; part < PARTS; part++) {
      globalThis.gc({ type: 'minor' })
      const before = process.cpuUsage()
      await calls(PART)
      const { user, system } = process.cpuUsage(before)
      took += user + system
    }
    times.push(took / PARTS / PART)
  }
  return times.sort((a, b) => a - b)[Math.floor(BLOCKS / 10)]
}

/** At most so many turns, as many as fit into so many milliseconds; what each says that a call takes without, and more with. */
export async function turns(name, how, home, most, ms) {
  const { on, off } = hooks(how, home)
  // Some take hold of a module when it is required for the first time.
  on()
  const call = memory.client(name)
  const calls = async (count) => { for (let n = 0; n < count; n++) await call() }
  await calls(2 * SETTLE)
  const all = []
  const began = performance.now()
  while (all.length < LEAST || (all.length < most && (performance.now() - began) * (1 + 1 / all.length) < ms)) {
    const took = {}
    // Forth and back: what drifts cancels.
    const order = all.length % 2 === 0 ? [[off, 'bare'], [on, 'hooked']] : [[on, 'hooked'], [off, 'bare']]
    for (const [change, which] of order) {
      change()
      await calls(SETTLE)
      took[which] = await time(calls)
    }
    all.push({ bare: took.bare, added: took.hooked - took.bare })
  }
  return all.slice(1)
}
