'use strict'

/**
 * Whether the running code was called by a signal of `AbortSignal.timeout()`. node-fetch, got and axios pass
 * on that a signal aborted, but not why, and they do so within its event: the stack still says it. Only
 * for calls that are let go of: a stack costs some microseconds.
 */
function byTimeoutSignal () {
  const holder = { stack: '' }
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 50
  Error.captureStackTrace(holder, byTimeoutSignal)
  Error.stackTraceLimit = limit
  return /_onTimeout \(node:internal\/abort_controller:/.test(holder.stack)
}

module.exports = { byTimeoutSignal }
