'use strict'
// The parser counts the body's bytes after the chunk framing and before any decoding, also where nobody
// reads them, and says when the last one arrived.

const { note } = require('../../problems.js')
const { cut } = require('./cutting.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {import('./request.js').Method} Method */

/** @type {Method | undefined} */
let parserOnBody
/** @type {Method | undefined} */
let parserOnMessageComplete
let bodySlot = -1
let completeSlot = -1
/** Whether new requests are looked on at. */
let active = false

/** @param {boolean} whether */
function watchParsers (whether) {
  active = whether
}

/**
 * Looks on while a parser works. Node keeps a pool of them, with its callbacks in numbered slots.
 *
 * @param {any} parser
 */
function watchParser (parser) {
  if (bodySlot < 0 && !findSlots(parser)) return
  if (!active) return
  if (parser[bodySlot] === parserOnBody) parser[bodySlot] = onBody
  if (parser[completeSlot] === parserOnMessageComplete) parser[completeSlot] = onMessageComplete
}

/** @param {any} parser */
function findSlots (parser) {
  for (let slot = 0; slot < 8; slot += 1) {
    const name = parser[slot]?.name
    if (name === 'parserOnBody') {
      bodySlot = slot
      parserOnBody = parser[slot]
    } else if (name === 'parserOnMessageComplete') {
      completeSlot = slot
      parserOnMessageComplete = parser[slot]
    }
  }
  if (bodySlot >= 0 && completeSlot >= 0) return true
  bodySlot = -1
  note(new Error(`the HTTP parser of Node ${process.version} is not known: bodies are not counted`))
  return false
}

// Node gives a response its `req` right before 'response'; one that only informs (1xx) has none, nor has what a
// server receives.

/** @type {Method} */
function onBody (chunk) {
  try {
    const request = this.incoming?.req
    const exchange = request?.[kExchange]
    if (exchange) {
      exchange.received += chunk.length
      if (exchange.decision !== undefined) {
        exchange.decision.body(exchange, chunk)
        const left = request[kHeld]?.truncate
        if (left !== undefined) return Reflect.apply(/** @type {Method} */ (parserOnBody), this, [cut(request, chunk, left)])
      }
    } else if (!active) leave(this)
  } catch (error) {
    note(error)
  }
  return Reflect.apply(/** @type {Method} */ (parserOnBody), this, arguments)
}

/** @param {any} parser one that was looked on at before */
function leave (parser) {
  parser[bodySlot] = parserOnBody
  parser[completeSlot] = parserOnMessageComplete
}

/** @type {Method} */
function onMessageComplete () {
  try {
    const exchange = this.incoming?.req?.[kExchange]
    if (exchange) exchange.end()
    else if (!active) leave(this)
  } catch (error) {
    note(error)
  }
  return Reflect.apply(/** @type {Method} */ (parserOnMessageComplete), this, arguments)
}

module.exports = { watchParser, watchParsers }
