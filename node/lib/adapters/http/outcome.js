'use strict'
// How a request comes out: what its events say, and what letting go of it means.

const { clearTimeout } = require('node:timers')
const { classify, ErrorType } = require('../../errors.js')
const { byTimeoutSignal } = require('../../timeout.js')
const { watchParser } = require('./parser.js')
const { isEmpty, kHeld } = require('./request.js')

/** @typedef {import('./request.js').Exchange} Exchange */
/** @typedef {import('./request.js').Request} Request */

/**
 * @param {Exchange} exchange
 * @param {Request} request
 * @param {unknown} error
 */
function fail (exchange, request, error) {
  if (exchange.connecting) {
    // Nothing went out, whatever the application wrote.
    exchange.sent = 0
    if (classify(error) === ErrorType.RESET) {
      exchange.failAs(request.protocol === 'https:' ? ErrorType.TLS : ErrorType.CONNECT)
      return
    }
  } else if (isUp(request.socket) && UNSENT.has(classify(error))) {
    // Such codes come from a connection that was made as well (EHOSTUNREACH, where a network fails): something went out.
    exchange.failAs(ErrorType.RESET)
    return
  }
  exchange.fail(error)
}

/**
 * Failures before anything can be sent: what comes to them is sent again whatever it asks for.
 *
 * @type {Set<number>}
 */
const UNSENT = new Set([ErrorType.DNS, ErrorType.CONNECT, ErrorType.TLS])

/**
 * Whether a connection was made, with its TLS.
 *
 * @param {any} socket
 */
function isUp (socket) {
  return Boolean(socket) && !socket.connecting && !socket.secureConnecting
}

/**
 * The application let go of a request, or of its response.
 *
 * @param {Exchange} exchange
 * @param {Request} request
 * @param {unknown} [reason]
 */
function abandon (exchange, request, reason) {
  if (exchange.connecting) exchange.sent = 0
  // follow-redirects lets go of each hop at its head, which is all there is of most.
  if (exchange.answered && exchange.received === 0 && isEmpty(request)) {
    exchange.end()
    return
  }
  if (byTimeoutSignal()) exchange.timedOut = true
  exchange.abandon(reason)
}

/**
 * Whether that is the application's own: it wrote after the end, which ends nothing.
 *
 * @param {any} error
 */
function isLate (error) {
  return error?.code === 'ERR_STREAM_WRITE_AFTER_END'
}

/**
 * An event of the request, before the application gets it.
 *
 * @param {Exchange} exchange
 * @param {Request} request
 * @param {string} type
 * @param {any} argument
 */
function see (exchange, request, type, argument) {
  switch (type) {
    case 'socket':
      watchParser(request.parser)
      break
    case 'response':
      exchange.head(argument.statusCode, argument.rawHeaders)
      if (exchange.decision !== undefined) clearTimeout(/** @type {any} */ (request)[kHeld]?.timer)
      break
    case 'upgrade':
      exchange.head(argument.statusCode, argument.rawHeaders)
      if (exchange.decision !== undefined) clearTimeout(/** @type {any} */ (request)[kHeld]?.timer)
      exchange.end()
      break
    case 'timeout':
      exchange.timedOut = true
      break
    case 'error':
      if (!isLate(argument)) fail(exchange, request, argument)
      break
    case 'close':
      close(exchange, request)
      break
  }
}

/**
 * The connection is gone before the last byte: the server's doing where Node says so on the response, else
 * the application let go.
 *
 * @param {Exchange} exchange
 * @param {Request} request
 */
function close (exchange, request) {
  const { res } = request
  if (res && !exchange.answered) exchange.head(res.statusCode ?? 0)
  const error = /** @type {any} */ (res?.errored)
  // "aborted" is Node's word for a connection that closed early: by the server, if its end was read; else
  // somebody here destroyed the socket.
  if (error?.code !== 'ECONNRESET') abandon(exchange, request, error ?? undefined)
  else if (request.socket?.readableEnded) fail(exchange, request, error)
  else abandon(exchange, request)
}

module.exports = { abandon, isLate, see }
