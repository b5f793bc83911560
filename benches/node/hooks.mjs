// Who looks on at the calls of a process.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** Puts the hooks of `how` in place, for good; nothing where it has none. */
export function instrument(how, home) {
  if (how === 'farcall') require('../../node').install({ home })
  else if (how === 'opentelemetry') opentelemetry()
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
