'use strict'
// Where rules decide: a request waits for their word, and is stopped, changed or answered by it.

const { setTimeout } = require('node:timers')
const { LONGEST_MS } = require('../../acting.js')
const { cannedSocket } = require('../../canned.js')
const { Decision, isDeciding } = require('../../decision.js')
const { ErrorType } = require('../../errors.js')
const { note } = require('../../problems.js')
const { RefusedError, timeoutError, wireError } = require('../../refused.js')
const { original } = require('./methods.js')
const { exchangeOf, kExchange, kHeld } = require('./request.js')
const { seeSocket } = require('./socket.js')

/**
 * Holds a request back until the rules let it go. Returns whether it does: then `release` is called later, or in
 * here already, or never.
 *
 * @param {any} request
 * @param {any} options of the connection; undefined where there is one already
 * @param {(options: any) => void} release
 */
function hold (request, options, release) {
  if (!isDeciding()) return false
  request[kHeld] = null
  const exchange = exchangeOf(request)
  // An attempt of a call that was decided on further out.
  if (!exchange || exchange.decision !== undefined || exchange.settled) return false
  const { origin, authority, method, path } = exchange
  const decision = Decision.begin({
    method,
    url: (authority === undefined ? origin : origin + '//' + authority) + (path === '' ? '/' : path),
    headers: headersOf(request),
    body: lengthOf(request),
    // Its body is a stream: what is written is gone.
    replayable: false
  })
  decision.exchange = exchange
  decision.final = true
  exchange.decision = decision
  request[kHeld] = { timer: undefined, waits: false, truncate: undefined }
  advance(request, decision, options, release)
  return true
}

/**
 * @param {any} request
 * @param {InstanceType<typeof Decision>} decision
 * @param {any} options
 * @param {(options: any) => void} release
 */
function advance (request, decision, options, release) {
  const held = request[kHeld]
  const { exchange } = decision
  const step = decision.step()
  held.waits = false
  switch (step.kind) {
    case 'wait':
      held.waits = true
      held.timer = setTimeout(() => {
        if (!request.destroyed) advance(request, decision, options, release)
      }, Math.min(Math.ceil(step.ms ?? 0), LONGEST_MS))
      return
    case 'refuse':
      stop(request, new RefusedError(step))
      return
    case 'fail':
      stop(request, wireError(step.error))
      return
    case 'respond':
      exchange?.abandon()
      handOver(request, cannedSocket(step))
      return
    default:
      // Of one attempt, and this is its exchange.
      decision.open = false
      decision.exchange = exchange
      held.truncate = step.truncate
      if (step.ms !== undefined) {
        held.timer = setTimeout(() => {
          if (!request.destroyed && !request.res) request.destroy(timeoutError())
        }, Math.min(Math.ceil(step.ms), LONGEST_MS)).unref()
      }
      try {
        options = change(request, options, step)
      } catch (error) {
        note(error)
      }
      release(options)
  }
}

/**
 * The request does not go out.
 *
 * @param {any} request
 * @param {Error} error
 */
function stop (request, error) {
  request[kExchange].abandon()
  Reflect.apply(original.onSocket, request, [null, error])
}

/**
 * @param {any} request
 * @param {any} socket
 */
function handOver (request, socket) {
  const lost = socket.destroyed ? wireError(ErrorType.RESET) : undefined
  if (lost === undefined) seeSocket(request, socket)
  Reflect.apply(original.onSocket, request, lost === undefined ? [socket] : [socket, lost])
}

/**
 * What a rule changes in a request whose head is not written yet; of one that waited while the application wrote,
 * only where it goes.
 *
 * @param {any} request
 * @param {any} options
 * @param {import('../../native.js').NextStep} step
 */
function change (request, options, { headers = [], host, pathPrefix }) {
  if (!request._header) {
    for (let at = 0; at + 1 < headers.length; at += 2) request.setHeader(headers[at], headers[at + 1])
    if (pathPrefix !== undefined) request.path = pathPrefix + request.path
    if (host !== undefined) request.setHeader('host', host)
  }
  if (host === undefined || options === undefined || typeof options !== 'object') return options
  const { hostname, port } = new URL(request.protocol + '//' + host)
  const changed = { ...options, host: hostname, hostname, port: Number(port) || (request.protocol === 'https:' ? 443 : 80) }
  delete changed.servername
  return changed
}

/**
 * Names and values in turn.
 *
 * @param {any} request
 * @returns {string[]}
 */
function headersOf (request) {
  if (request._header) {
    return request._header.split('\r\n').slice(1).flatMap((/** @type {string} */ line) => {
      const colon = line.indexOf(':')
      return colon > 0 ? [line.slice(0, colon), line.slice(colon + 1).trim()] : []
    })
  }
  return Object.entries(request.getHeaders()).map(([name, value]) => [name, String(value)]).flat()
}

/** @param {any} request */
function lengthOf (request) {
  const length = Number(request.getHeader('content-length') ?? NaN)
  if (Number.isSafeInteger(length) && length >= 0) return length
  return request.method === 'GET' || request.method === 'HEAD' ? 0 : undefined
}

/**
 * What the application gets of a chunk of a response that a rule breaks off.
 *
 * @param {any} request
 * @param {Buffer} chunk
 * @param {number} left
 */
function cut (request, chunk, left) {
  const held = request[kHeld]
  held.truncate = Math.max(left - chunk.length, 0)
  if (chunk.length < left) return chunk
  const error = wireError(ErrorType.RESET)
  request[kExchange].failAs(ErrorType.RESET)
  process.nextTick(() => request.res?.destroy(error))
  return chunk.subarray(0, left)
}

module.exports = { cut, handOver, hold }
