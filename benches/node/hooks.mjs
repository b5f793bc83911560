// Who looks on at the calls of a process.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** Puts the hooks of `how` in place, for good; nothing where it has none. */
export function instrument(how, home) {
  if (how === 'farcall') require('../../node').install({ home })
  else if (how === 'opentelemetry') opentelemetry()
  else if (how === 'least') least()
}

/**
 * The least that a call can be seen with: two of Node's diagnostics channels, a clock read in each, and one record. No
 * names, no bytes, no connection, no failure, no rule, and nobody who adds up what is recorded.
 */
function least() {
  const { subscribe } = require('node:diagnostics_channel')
  const now = () => {
    const time = process.hrtime()
    return time[0] * 1e3 + time[1] * 1e-6
  }
  const [fields, full] = [4, 64]
  const numbers = new Float64Array(full * fields)
  const paths = new Array(full).fill('')
  const begun = Symbol('begun')
  let written = 0
  const begin = ({ request }) => { request[begun] = now() }
  const end = (request, status) => {
    numbers.set([request[begun], now(), status], written * fields)
    paths[written++] = request.path
    if (written < full) return
    // As the names of a bundle cross to an engine.
    paths.join('\n')
    written = 0
  }
  subscribe('http.client.request.start', begin)
  subscribe('http.client.response.finish', ({ request, response }) => { end(request, response.statusCode) })
  subscribe('undici:request:create', begin)
  subscribe('undici:request:trailers', ({ request }) => { end(request, 200) })
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
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(provider)
  registerInstrumentations({ instrumentations: [new HttpInstrumentation(), new UndiciInstrumentation()], tracerProvider: provider })
}
