'use strict'
// What the application gets of a call to a vendor that was made: the vendor's answer, or what the cache has, where that
// was confirmed or the vendor failed. A request whose answer is not the vendor's ends with the answer that it got.

const http = require('node:http')
const { clearTimeout, setTimeout } = require('node:timers')
const { LONGEST_MS } = require('../../acting.js')
const { cannedSocket } = require('../../canned.js')
const { ErrorType } = require('../../errors.js')
const { note } = require('../../problems.js')
const { RefusedError, wireError } = require('../../refused.js')
const { CONDITIONS, headersOf } = require('./head.js')
const { original } = require('./methods.js')
const { see } = require('./outcome.js')
const { forget, park, tellKept } = require('./parking.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {import('../../native.js').NextStep} NextStep */

/** So much of an answer that nobody gets is read, for its connection to be used again. */
const READ = 64 * 1024
const kGuarded = Symbol('farcall.guarded')

/**
 * Whether an event of a request is not for the application, because it gets something else.
 *
 * @param {any} request
 * @param {string} type
 * @param {any} argument
 * @returns {boolean}
 */
function takes (request, type, argument) {
  const held = request[kHeld]
  if (held === undefined) return false
  switch (type) {
    case 'response':
      return held.open && decide(request, argument)
    case 'error':
      // Where it has its answer, nothing can fail any more.
      if (held.message !== undefined || held.again !== undefined) return true
      held.error = argument
      return held.open && decide(request, undefined)
    case 'upgrade':
      settle(request)
      return false
    case 'close':
      return isHeldOpen(request)
    default:
      return false
  }
}

/**
 * The head of an answer came, or none will.
 *
 * @param {any} request
 * @param {any} response
 */
function decide (request, response) {
  const held = request[kHeld]
  const { decision } = request[kExchange]
  held.open = false
  if (decision.done) {
    forget(held)
    return false
  }
  clearTimeout(held.timer)
  tellKept(request, decision)
  const step = decision.step()
  if (step.kind !== 'park') forget(held)
  return follow(request, response, step)
}

/**
 * Looks after the errors of a socket: some clients let go of a call as soon as they hear of one, and would not hear of
 * what there is instead. Whose call has that does not hear of the error.
 *
 * @param {any} socket
 */
function guard (socket) {
  if (socket[kGuarded]) return
  socket[kGuarded] = true
  const { emit } = socket
  socket.emit = /** @this {any} */ function (/** @type {string} */ type, /** @type {unknown} */ error) {
    try {
      if (type === 'error' && breaks(this._httpMessage, error)) return true
    } catch (problem) {
      note(problem)
    }
    return Reflect.apply(emit, this, arguments)
  }
}

/**
 * @param {any} request
 * @param {unknown} error
 */
function breaks (request, error) {
  const held = request?.[kHeld]
  if (!held?.open) return false
  const exchange = request[kExchange]
  if (!exchange.settled) see(exchange, request, 'error', error)
  held.error = error
  return decide(request, undefined)
}

/**
 * @param {any} request
 * @param {any} response
 * @param {NextStep} step
 */
function follow (request, response, step) {
  const held = request[kHeld]
  switch (step.kind) {
    case 'respond':
      letGo(response, deliver(request, message(request, step)))
      return true
    case 'send':
      letGo(response)
      again(request)
      return true
    case 'wait':
      letGo(response)
      held.again = null
      held.timer = setTimeout(() => {
        if (!request[kExchange].decision.done) follow(request, undefined, request[kExchange].decision.step())
      }, Math.min(Math.ceil(step.ms ?? 0), LONGEST_MS))
      return true
    case 'park':
      // Where the outbox does not take it, the application gets what came.
      held.again = null
      afterParking(request, response).catch(note)
      return true
    case 'refuse':
    case 'fail':
      letGo(response)
      fail(request, step.kind === 'refuse' ? new RefusedError(step) : wireError(step.error))
      return true
    default:
      return false
  }
}

/**
 * @param {any} request
 * @param {any} response
 */
async function afterParking (request, response) {
  const { decision } = request[kExchange]
  await park(request, decision)
  if (decision.done) return
  if (follow(request, response, decision.step())) return
  const held = request[kHeld]
  if (response === undefined) fail(request, held.error)
  else if (response.destroyed) fail(request, wireError(ErrorType.RESET))
  else deliver(request, response)
}

/**
 * @param {any} request
 * @param {Error} error
 */
function fail (request, error) {
  request[kHeld].again = undefined
  request[kHeld].closing = true
  tell(request, 'error', error)
  tell(request, 'close')
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
    return Reflect.apply(original.emit, request, event)
  } catch (error) {
    process.nextTick(() => { throw error })
    return true
  }
}

/**
 * The response that the application gets, as Node makes them.
 *
 * @param {any} request
 * @param {NextStep} step
 */
function message (request, { status = 0, headers = [], body }) {
  const made = /** @type {any} */ (new http.IncomingMessage(/** @type {any} */ (cannedSocket({ kind: 'respond', status: 204 }))))
  made.httpVersion = '1.1'
  made.httpVersionMajor = made.httpVersionMinor = 1
  made.statusCode = status
  made.statusMessage = http.STATUS_CODES[status] ?? ''
  // Node knows headers from trailers by whether the message is complete.
  made._addHeaderLines(headers, headers.length)
  made.req = request
  made.complete = true
  if (body !== undefined && body.length > 0) made.push(body)
  made.push(null)
  return made
}

/**
 * @param {any} request
 * @param {any} response
 */
function deliver (request, response) {
  const held = request[kHeld]
  held.message = response
  held.again = undefined
  if (held.missed) closeAfter(request, response)
  if (!tell(request, 'response', response)) response.resume()
  return response
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
  if (held.again !== undefined) {
    held.missed = true
    return true
  }
  if (held.message === undefined || held.message.closed) return false
  closeAfter(request, held.message)
  return true
}

/**
 * What the request comes to is what the application gets.
 *
 * @param {any} request
 */
function settle (request) {
  const held = request[kHeld]
  forget(held)
  if (!held.open) return
  held.open = false
  request[kExchange].decision.settle()
}

/**
 * @param {any} request
 * @param {any} response
 */
function closeAfter (request, response) {
  if (request[kHeld].closing) return
  request[kHeld].closing = true
  response.once('close', () => tell(request, 'close'))
}

/**
 * Nobody gets this answer. What is left of it when the application is done with what it got instead, is not waited for.
 *
 * @param {any} response
 * @param {any} [instead]
 */
function letGo (response, instead) {
  if (response === undefined) return
  let left = READ
  response.on('error', () => {})
  response.on('data', (/** @type {Buffer} */ chunk) => {
    left -= chunk.length
    if (left < 0) response.destroy()
  })
  instead?.once('close', () => {
    if (!response.complete) response.destroy()
  })
}

/**
 * Asks once more without conditions: what the vendor confirmed is something else than what was kept.
 *
 * @param {any} request
 */
function again (request) {
  const { decision } = request[kExchange]
  decision.final = true
  const words = headersOf(request)
  const headers = words.filter((_, at) => !CONDITIONS.has(words[at & ~1].toLowerCase()))
  decision.perform(() => ask(request, headers, () => decision.settle()))
}

/**
 * What was handed out was for another head than the one that is written now: asks again, in a call of its own.
 *
 * @param {any} request
 */
function redo (request) {
  if (request[kExchange].sent === 0) ask(request, headersOf(request), () => {})
  // Its body is gone.
  else fail(request, wireError(ErrorType.RESET))
}

/**
 * Makes a second request, whose answer is that of the first.
 *
 * @param {any} request
 * @param {string[]} headers
 * @param {() => void} done told when it came to something
 */
function ask (request, headers, done) {
  const held = request[kHeld]
  const options = { ...held.options, agent: held.agent, path: request.path, headers, setHost: false }
  const second = new /** @type {any} */ (http).ClientRequest(options)
  held.again = second
  second.on('response', (/** @type {any} */ response) => {
    done()
    deliver(request, response)
    closeAfter(request, response)
  })
  second.on('error', (/** @type {Error} */ error) => {
    done()
    if (held.again !== undefined) fail(request, error)
  })
  second.end()
}

/**
 * The application lets go of a request: of what it got instead, too. Some do so because they heard of the error of its
 * socket: that was no wish of theirs.
 *
 * @param {any} request
 * @param {unknown} error
 */
function drop (request, error) {
  const { again, message, late } = request[kHeld]
  if (late || (error && (error === request[kHeld].error || error === request.socket?.errored))) return
  try {
    settle(request)
    if (again !== undefined) {
      request[kHeld].again = undefined
      if (again === null) request[kExchange].decision.cancel()
      else again.destroy()
      if (request[kHeld].missed) {
        request[kHeld].closing = true
        process.nextTick(() => tell(request, 'close'))
      }
    }
    if (message !== undefined && !message.readableEnded) message.destroy(error)
  } catch (problem) {
    note(problem)
  }
}

module.exports = { drop, guard, redo, takes }
