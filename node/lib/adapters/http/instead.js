'use strict'
// What the application gets of a call to a vendor that was made: the answer to its request, that to a further attempt, or
// what the cache has, where that was confirmed or the vendor failed. A request whose answer is not its own ends with the
// answer that it got.

const http = require('node:http')
const { clearTimeout, setTimeout } = require('node:timers')
const { LONGEST_MS } = require('../../acting.js')
const { cannedSocket } = require('../../canned.js')
const { ErrorType } = require('../../errors.js')
const { note } = require('../../problems.js')
const { RefusedError, timeoutError, wireError } = require('../../refused.js')
const { bodyFor, inContext, leaveBehind, make, requestAs, tellKept } = require('./attempts.js')
const { beside, firstCame, noMore, secondCame } = require('./beside.js')
const { forget } = require('./body.js')
const { close, closeAfter, end, fail, isElsewhere, isHeldOpen, seeCloses, settle, stay, tell, tellWriters } = require('./face.js')
const { headersOf } = require('./head.js')
const { isLate, see } = require('./outcome.js')
const { park } = require('./parking.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {import('../../native.js').NextStep} NextStep */

/** So much of an answer that nobody gets is read, and for so long, for its connection to be used again. */
const READ = 64 * 1024
const READ_MS = 1000
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
      if (isLate(argument)) return false
      // Where it has its answer, or failed already, nothing can fail any more.
      if (isElsewhere(held) || held.message !== undefined || held.closing) return true
      held.error = argument
      return held.open && decide(request, undefined)
    case 'timeout':
      return isElsewhere(held)
    case 'finish': {
      // Where its connection is gone, the application was told already.
      const told = held.flushed
      held.flushed = true
      return told
    }
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
  const { decision } = held
  held.open = false
  tellWriters(held)
  clearTimeout(held.hedge)
  if (decision.done) {
    forget(held)
    return false
  }
  clearTimeout(held.timer)
  if (held.race !== undefined) {
    const { made } = held.race
    if (firstCame(request, response?.statusCode ?? 0, held.error)) {
      held.leaving = response
      letGo(response)
      unwatch(request)
      held.again = made
      stay(held)
      return true
    }
  }
  tellKept(request, decision)
  const isTaken = follow(request, response, decision.step())
  if (isTaken) stay(held)
  return isTaken
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
 * Does what comes after an attempt. Returns whether there is anything: where not, the application gets what it came to.
 *
 * @param {any} request
 * @param {any} response
 * @param {NextStep} step
 * @param {any} [second] whose answer that is, where it is not the request's own
 * @returns {boolean}
 */
function follow (request, response, step, second) {
  const held = request[kHeld]
  switch (step.kind) {
    case 'respond':
      forget(held)
      letGo(response, deliver(request, message(request, step)))
      return true
    case 'send':
      leave(request, response)
      attempt(request, step)
      return true
    case 'wait':
      leave(request, response)
      held.again = null
      held.timer = setTimeout(() => goOn(request), Math.min(Math.ceil(step.ms ?? 0), LONGEST_MS))
      return true
    case 'park':
      // Where the outbox does not take it, the application gets what came.
      held.again = null
      held.leaving = response
      afterParking(request, response, second).catch(note)
      return true
    case 'refuse':
    case 'fail':
      forget(held)
      letGo(response)
      fail(request, step.kind === 'refuse' ? new RefusedError(step) : wireError(step.error))
      return true
    default:
      forget(held)
      return false
  }
}

/**
 * The wait for another attempt is over.
 *
 * @param {any} request
 */
function goOn (request) {
  const { decision } = request[kHeld]
  if (decision.done) return
  leaveBehind(request)
  if (!follow(request, undefined, decision.step())) fail(request, request[kHeld].error ?? wireError(ErrorType.RESET))
}

/**
 * @param {any} request
 * @param {any} response
 * @param {any} second
 */
async function afterParking (request, response, second) {
  const held = request[kHeld]
  const { decision } = held
  await park(request, decision)
  if (decision.done) return
  held.leaving = undefined
  if (follow(request, response, decision.step(), second)) return
  if (response === undefined) fail(request, held.error)
  else if (response.destroyed) fail(request, wireError(ErrorType.RESET))
  else deliver(request, response, second)
}

/**
 * The attempt came to nothing, and another one follows.
 *
 * @param {any} request
 * @param {any} response
 */
function leave (request, response) {
  const held = request[kHeld]
  held.decision.leave()
  held.leaving = response
  letGo(response)
  unwatch(request)
}

/**
 * What the application watches of the first connection says nothing of its call any more.
 *
 * @param {any} request
 */
function unwatch (request) {
  const held = request[kHeld]
  for (const listener of held.closers ?? []) request.socket?.removeListener('close', listener)
  held.closers = undefined
}

/**
 * Makes a further attempt. What comes of it is decided on as for the first.
 *
 * @param {any} request
 * @param {NextStep} step
 */
function attempt (request, step) {
  const held = request[kHeld]
  const { decision } = held
  if (held.chunks === undefined && request[kExchange].sent > 0) {
    // Its body is gone.
    decision.cancel()
    fail(request, wireError(ErrorType.RESET))
    return
  }
  const see = (/** @type {any} */ second, /** @type {any} */ response, /** @type {unknown} */ error) => {
    if (held.again === second) came(request, second, response, error)
    else letGo(response)
  }
  try {
    held.again = send(request, step, decision, see)
  } catch (error) {
    came(request, undefined, undefined, error)
  }
}

/**
 * Sends an attempt of Farcall's own. Throws where no connection can be made at all.
 *
 * @param {any} request
 * @param {NextStep} step
 * @param {import('../../performing.js').Attaching} as
 * @param {(second: any, response: any, error: unknown) => void} see told once what it came to
 */
function send (request, step, as, see) {
  const held = request[kHeld]
  const body = bodyFor(request, step)
  const second = inContext(request, () => held.decision.perform(() => make(request, step, body), as))
  /** @type {NodeJS.Timeout | undefined} */
  let timer
  let over = false
  const come = (/** @type {any} */ response, /** @type {unknown} */ error) => {
    over = true
    clearTimeout(timer)
    see(second, response, error)
  }
  second.on('response', (/** @type {any} */ response) => come(response, undefined))
  second.on('error', (/** @type {unknown} */ error) => {
    if (!over) come(undefined, error)
    else if (held.second === second) tell(request, 'error', error)
  })
  // Of two attempts at a time the application hears of its own.
  for (const event of ['information', 'timeout']) {
    second.on(event, (/** @type {unknown[]} */ ...words) => {
      if (held.race?.made !== second) tell(request, event, ...words)
    })
  }
  second.on('socket', (/** @type {any} */ socket) => {
    // The first attempt never had one.
    if (request.socket || !held.replays) return
    request.socket = socket
    seeCloses(request, socket, () => tell(request, 'socket', socket))
  })
  second.on('close', () => {
    clearTimeout(timer)
    if (held.second === second) close(request)
  })
  if (step.ms !== undefined) {
    timer = setTimeout(() => {
      const error = timeoutError()
      second.destroy(error)
      if (!over) come(undefined, error)
    }, Math.min(Math.ceil(step.ms), LONGEST_MS)).unref()
  }
  second.end(body)
  return second
}

/**
 * Sends a second attempt once the first has taken so long.
 *
 * @param {any} request
 * @param {number} ms
 */
function hedge (request, ms) {
  const held = request[kHeld]
  const see = (/** @type {any} */ second, /** @type {any} */ response, /** @type {unknown} */ error) => {
    // It was given up, or failed while the first is under way.
    if (held.again !== second && held.race?.made !== second) return letGo(response)
    if (!secondCame(request, response?.statusCode ?? 0, error)) return letGo(response)
    held.open = false
    clearTimeout(held.timer)
    if (held.again !== second) {
      unwatch(request)
      held.again = second
      stay(held)
      request.socket?.destroy()
    }
    came(request, second, response, error)
  }
  beside(request, ms, (step, side) => send(request, step, side, see))
}

/**
 * A further attempt was answered, or failed.
 *
 * @param {any} request
 * @param {any} second
 * @param {any} response
 * @param {unknown} error
 */
function came (request, second, response, error) {
  const held = request[kHeld]
  const { decision } = held
  leaveBehind(request)
  held.error = error
  if (response === undefined) decision.failed(error)
  // One that began when Farcall was uninstalled already is seen by nobody else.
  else if (decision.exchange === undefined) decision.answer(undefined, response.statusCode, () => response.rawHeaders)
  tellKept(request, decision)
  if (follow(request, response, decision.step(), second)) return
  if (response === undefined) fail(request, error)
  else deliver(request, response, second)
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
 * @param {any} [second] whose answer it is, where a further attempt got it
 */
function deliver (request, response, second) {
  const held = request[kHeld]
  held.message = response
  held.second = second
  held.again = undefined
  // Of a connection that is gone Node may have left its own listener there, which node-fetch 2 takes for an answer that
  // did not come whole.
  if (request.socket?.destroyed) request.socket.removeAllListeners('data')
  if (held.missed) {
    if (second === undefined) closeAfter(request, response)
    else request.res = response
  }
  if (!tell(request, 'response', response)) response.resume()
  return response
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
  const timer = setTimeout(() => response.destroy(), READ_MS).unref()
  response.on('error', () => {})
  response.on('data', (/** @type {Buffer} */ chunk) => {
    left -= chunk.length
    if (left < 0) response.destroy()
  })
  response.once('close', () => clearTimeout(timer))
  instead?.once('close', () => {
    if (!response.complete) response.destroy()
  })
}

/**
 * What was handed out was for another head than the one that is written now: asks again, in a call of its own.
 *
 * @param {any} request
 */
function redo (request) {
  if (request[kExchange].sent === 0) ask(request)
  // Its body is gone.
  else fail(request, wireError(ErrorType.RESET))
}

/**
 * Makes a second request, whose answer is that of the first.
 *
 * @param {any} request
 */
function ask (request) {
  const held = request[kHeld]
  const options = { ...held.options, agent: held.agent, path: request.path, headers: headersOf(request), setHost: false }
  const second = requestAs(request, options)
  held.again = second
  second.on('response', (/** @type {any} */ response) => {
    deliver(request, response)
    closeAfter(request, response)
  })
  second.on('error', (/** @type {Error} */ error) => {
    if (held.again !== undefined) fail(request, error)
  })
  second.end()
}

/**
 * The application lets go of a request: of what it got instead, too. Some do so because they heard of the error of its
 * socket: that was no wish of theirs. Returns whether Node's own way has nothing to do.
 *
 * @param {any} request
 * @param {any} error
 */
function drop (request, error) {
  const held = request[kHeld]
  const elsewhere = isElsewhere(held)
  if (held.late || (error && (error === held.error || error === request.socket?.errored))) return elsewhere
  const { again, message, second } = held
  clearTimeout(held.timer)
  noMore(held)
  held.again = undefined
  settle(request)
  leaveBehind(request)
  if (again !== undefined) {
    const { decision } = held
    end(request)
    if (again === null) decision.cancel()
    else {
      again.destroy(error)
      decision.settle()
    }
    // As Node says it of a request that has no answer yet.
    process.nextTick(() => {
      tell(request, 'error', error ?? wireError(ErrorType.RESET))
      tell(request, 'close')
    })
  } else if (second !== undefined) {
    request.destroyed = true
    second.destroy(error)
  } else if (message !== undefined && !message.readableEnded) message.destroy(error)
  return elsewhere
}

module.exports = { drop, guard, hedge, redo, takes }
