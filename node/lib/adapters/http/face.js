'use strict'
// The application's request, where what becomes of it is not up to its own connection: what the application hears of it,
// and how it looks meanwhile.

const { inContext } = require('./attempts.js')
const { forget } = require('./body.js')
const { original } = require('./methods.js')
const { kHeld } = require('./request.js')

/**
 * Whether what becomes of a request is not up to its own connection: another attempt is to follow, is under way, or
 * answered.
 *
 * @param {any} held
 */
function isElsewhere (held) {
  return held.again !== undefined || held.second !== undefined
}

/**
 * Tells the application. What it throws is its own, and not for those here who catch what goes wrong in a hook. Returns
 * whether anybody listened.
 *
 * @param {any} request
 * @param {...unknown} event
 * @returns {boolean}
 */
function tell (request, ...event) {
  try {
    return inContext(request, () => Reflect.apply(original.emit, request, event))
  } catch (error) {
    process.nextTick(() => { throw error })
    return true
  }
}

/**
 * @param {any} request
 * @param {unknown} error
 */
function fail (request, error) {
  const held = request[kHeld]
  held.again = undefined
  end(request)
  tell(request, 'error', error)
  tell(request, 'close')
}

/**
 * The answer that the application got is over, and with it the request.
 *
 * @param {any} request
 */
function close (request) {
  if (request[kHeld].closing) return
  end(request)
  tell(request, 'close')
}

/**
 * It looks over from now on.
 *
 * @param {any} request
 */
function end (request) {
  request[kHeld].closing = request.destroyed = request._closed = true
}

/**
 * Whether a request is to end only after what the application got instead of its answer.
 *
 * @param {any} request
 */
function isHeldOpen (request) {
  const held = request[kHeld]
  settle(request)
  if (held.closing) return true
  if (isElsewhere(held)) {
    held.missed = true
    outlive(request)
    return true
  }
  if (held.message === undefined || held.message.closed) return false
  closeAfter(request, held.message)
  return true
}

/**
 * The connection of a request is gone, and the request is not over: nor does it look so.
 *
 * @param {any} request
 */
function outlive (request) {
  const held = request[kHeld]
  request.destroyed = request._closed = false
  if (held.second !== undefined) request.res = held.message
  // What the connection did not take, the next one gets.
  const pending = request.outputData
  request.outputData = []
  request.outputSize = 0
  for (const { callback } of pending) if (typeof callback === 'function') process.nextTick(callback)
  if (!request.finished) process.nextTick(() => tell(request, 'drain'))
  else if (!held.flushed) finish(request)
}

/** @param {any} request */
function finish (request) {
  request[kHeld].flushed = true
  process.nextTick(() => tell(request, 'finish'))
}

/**
 * The application ends a request whose connection is gone. Returns whether it is one.
 *
 * @param {any} request
 * @param {unknown[]} args
 */
function endLate (request, args) {
  if (!request[kHeld].missed || request.finished) return false
  const listener = args.find((arg) => typeof arg === 'function')
  if (listener !== undefined) request.once('finish', listener)
  request.finished = true
  finish(request)
  return true
}

/**
 * What the request comes to is what the application gets.
 *
 * @param {any} request
 */
function settle (request) {
  const held = request[kHeld]
  if (held.again === undefined) forget(held)
  if (!held.open) return
  held.open = false
  held.decision.settle()
}

/**
 * @param {any} request
 * @param {any} response
 */
function closeAfter (request, response) {
  const held = request[kHeld]
  if (held.closing || held.closes) return
  held.closes = true
  response.once('close', () => close(request))
}

module.exports = { close, closeAfter, end, endLate, fail, isElsewhere, isHeldOpen, settle, tell }
