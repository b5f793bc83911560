'use strict'
// The application's request, where what becomes of it is not up to its own connection: what the application hears of it,
// and how it looks meanwhile.

const { keepOpen } = require('../../exchange.js')
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
  const held = request[kHeld]
  held.closing = request.destroyed = request._closed = true
  if (held.gone) rest(held)
}

/**
 * The application gets something else than what its own connection comes to: both are looked after until they are over.
 *
 * @param {any} held
 */
function stay (held) {
  held.stays ??= keepOpen()
}

/** @param {any} held */
function rest (held) {
  held.stays?.()
  held.stays = undefined
}

/**
 * Whether a request is to end only after what the application got instead of its answer.
 *
 * @param {any} request
 */
function isHeldOpen (request) {
  const held = request[kHeld]
  settle(request)
  held.gone = true
  if (held.closing) {
    rest(held)
    return true
  }
  if (isElsewhere(held)) {
    held.missed = true
    outlive(request)
    return true
  }
  if (held.message === undefined || held.message.closed) {
    rest(held)
    return false
  }
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
 * What a request is written with: who wrote to a connection that fails is told so only where that is how the call ends.
 *
 * @param {any} request
 * @param {unknown[]} args
 */
function patient (request, args) {
  const at = args.findIndex((arg) => typeof arg === 'function')
  if (at === -1) return args
  const callback = /** @type {(error?: unknown) => void} */ (args[at])
  args[at] = (/** @type {unknown} */ error) => {
    const held = request[kHeld]
    if (error && held.open) (held.unwritten ??= []).push(() => callback(isAnswered(held) ? null : error))
    else callback(error && isAnswered(held) ? null : error)
  }
  return args
}

/**
 * Whether the application gets something else than what its own connection comes to.
 *
 * @param {any} held
 */
function isAnswered (held) {
  return isElsewhere(held) || held.message !== undefined
}

/**
 * It is decided what follows on a connection that failed: who wrote to it is told.
 *
 * @param {any} held
 */
function tellWriters (held) {
  const { unwritten } = held
  if (unwritten === undefined) return
  held.unwritten = undefined
  for (const told of unwritten) process.nextTick(told)
}

/**
 * Tells the application of a connection, and remembers what it watches of it: should that fail and another attempt follow,
 * it says nothing of the call any more.
 *
 * @param {any} request
 * @param {any} socket
 * @param {() => unknown} told
 */
function seeCloses (request, socket, told) {
  const before = socket.listeners('close')
  const result = told()
  request[kHeld].closers = socket.listeners('close').filter((/** @type {unknown} */ listener) => !before.includes(listener))
  return result
}

/**
 * What the request comes to is what the application gets.
 *
 * @param {any} request
 */
function settle (request) {
  const held = request[kHeld]
  if (held.again === undefined) forget(held)
  tellWriters(held)
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

module.exports = { close, closeAfter, end, endLate, fail, isElsewhere, isHeldOpen, patient, seeCloses, settle, stay, tell, tellWriters }
