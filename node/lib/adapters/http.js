'use strict'
// http and https, and so axios, got, node-fetch and all that stands on them: every request of either module
// is an `http.ClientRequest`, whoever made it and however it got hold of `request`. Its prototype, and the
// parser below, are where Farcall looks on: no listener is added to a request or a response, because each
// would show, and some would act ('data' makes a stream flow, 'response' keeps a body waiting for a
// reader, 'error' swallows a crash).
//
// The parser counts the body's bytes after the chunk framing and before any decoding, also where nobody
// reads them, and says when the last one arrived.

const http = require('node:http')
const { setTimeout, clearTimeout } = require('node:timers')
const { LONGEST_MS } = require('../acting.js')
const { timeConnecting } = require('../connecting.js')
const { Decision, isDeciding } = require('../decision.js')
const { begin } = require('../exchange.js')
const { note } = require('../problems.js')
const { classify, ErrorType } = require('../errors.js')
const { RefusedError, timeoutError, wireError } = require('../refused.js')
const { cannedSocket } = require('../canned.js')
const { byTimeoutSignal } = require('../timeout.js')

const kExchange = Symbol('farcall.exchange')
/** Where rules decide: what the request waits for, or how its attempt is cut short. */
const kHeld = Symbol('farcall.held')
const kWatched = Symbol('farcall.watched')

/** @typedef {InstanceType<typeof import('../exchange.js').Exchange>} Exchange */
/** @typedef {(this: any, ...args: any[]) => any} Method */
/** @typedef {import('node:net').Socket} Socket */

/**
 * A ClientRequest, with what is not in its public types.
 *
 * @typedef {http.ClientRequest & {
 *   parser: any,
 *   res: http.IncomingMessage | null,
 *   _header: string | null,
 *   socketPath?: string,
 *   [kExchange]?: Exchange | null,
 * }} Request
 */

let active = false

/**
 * The request's exchange, begun at the first sign of life: that is inside `http.request()` for most, and
 * so in the scope of the code that called it. Null where it is not counted.
 *
 * @param {any} request
 * @returns {Exchange | null}
 */
function exchangeOf (request) {
  const known = request[kExchange]
  if (known !== undefined) return known
  request[kExchange] = null
  // A tunnel through a proxy is a connection, not a call; a Unix socket does not leave the machine.
  if (request.method === 'CONNECT' || request.socketPath) return null
  let origin = request.protocol
  let authority = request.getHeader('host') ?? hostOf(request)
  let path = request.path
  if (path.charCodeAt(0) !== 47 && URL.canParse(path)) {
    // The absolute form, as a proxy wants it.
    const url = new URL(path)
    origin = url.origin
    authority = undefined
    path = url.pathname
  }
  return (request[kExchange] = begin(origin, authority, request.method, path))
}

/**
 * The authority of a request whose headers came as a list: Node keeps them only as text.
 *
 * @param {Request} request
 */
function hostOf (request) {
  const line = /\r\nhost: *([^\r\n]+)/i.exec(request._header ?? '')
  return line?.[1] ?? request.host
}

/**
 * Marks the call whose socket was idle for as long as the client allows: follow-redirects, under axios, then
 * destroys the socket, and the request hears of no timeout.
 *
 * @this {any}
 */
function onSocketTimeout () {
  const exchange = this._httpMessage?.[kExchange]
  if (exchange) exchange.timedOut = true
}

/**
 * Times the connection where it is made for this request.
 *
 * @param {Exchange} exchange
 * @param {Socket} socket
 * @param {boolean} tls
 */
function time (exchange, socket, tls) {
  exchange.connecting = true
  timeConnecting(socket, tls, (times, done) => {
    exchange.connecting = !done
    exchange.times = times
  })
}

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
  }
  exchange.fail(error)
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
 * Whether the response has no body (RFC 9110, section 6.4.1).
 *
 * @param {Request} request
 */
function isEmpty ({ method, res }) {
  return method === 'HEAD' || res?.statusCode === 204 || res?.statusCode === 304 ||
    res?.headers['content-length'] === '0'
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
      clearTimeout(/** @type {any} */ (request)[kHeld]?.timer)
      break
    case 'upgrade':
      exchange.head(argument.statusCode, argument.rawHeaders)
      clearTimeout(/** @type {any} */ (request)[kHeld]?.timer)
      exchange.end()
      break
    case 'timeout':
      exchange.timedOut = true
      break
    case 'error':
      fail(exchange, request, argument)
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

/** @type {Method | undefined} */
let parserOnBody
/** @type {Method | undefined} */
let parserOnMessageComplete
let bodySlot = -1
let completeSlot = -1

/**
 * Looks on while a parser works. Node keeps a pool of them, with its callbacks in numbered slots.
 *
 * @param {any} parser
 */
function watchParser (parser) {
  if (bodySlot < 0 && !findSlots(parser)) return
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
    }
  } catch (error) {
    note(error)
  }
  return Reflect.apply(/** @type {Method} */ (parserOnBody), this, arguments)
}

/** @type {Method} */
function onMessageComplete () {
  try {
    this.incoming?.req?.[kExchange]?.end()
  } catch (error) {
    note(error)
  }
  return Reflect.apply(/** @type {Method} */ (parserOnMessageComplete), this, arguments)
}

/** @param {unknown} chunk @param {unknown} encoding */
function size (chunk, encoding) {
  if (typeof chunk === 'string') {
    return Buffer.byteLength(chunk, typeof encoding === 'string' ? /** @type {BufferEncoding} */ (encoding) : 'utf8')
  }
  return ArrayBuffer.isView(chunk) ? chunk.byteLength : 0
}

/** @type {any} */
const prototype = http.ClientRequest.prototype

/**
 * What stood in the place of each of `ours` when it was put there.
 *
 * @type {Record<string, Method>}
 */
const original = {}

/**
 * The methods that take the place of Node's: each looks, then does what Node's does. Written out one by one,
 * so that V8 can inline each for itself.
 *
 * @type {Record<string, Method>}
 */
const ours = {
  onSocket (socket) {
    try {
      if (active && socket) {
        // Most were asked for when they were given to their agent, before there was a socket.
        if (this[kHeld] === undefined && hold(this, undefined, () => handOver(this, socket))) return
        seeSocket(this, socket)
      }
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original.onSocket, this, arguments)
  },

  write (chunk, encoding) {
    try {
      if (active) seeBody(this, chunk, encoding)
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original.write, this, arguments)
  },

  end (chunk, encoding) {
    try {
      if (active && !this.finished) seeBody(this, chunk, encoding)
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original.end, this, arguments)
  },

  destroy (error) {
    try {
      const exchange = this[kExchange]
      if (exchange && !exchange.settled && !this.destroyed) abandon(exchange, this, error)
      if (this[kHeld]) {
        clearTimeout(this[kHeld].timer)
        if (this[kHeld].waits && !this.destroyed) {
          this[kHeld].waits = false
          const result = Reflect.apply(original.destroy, this, arguments)
          // As an agent does that has no socket for it: the request says that it is over.
          Reflect.apply(original.onSocket, this, [null])
          return result
        }
      }
    } catch (problem) {
      note(problem)
    }
    return Reflect.apply(original.destroy, this, arguments)
  },

  emit (type, argument) {
    try {
      const exchange = this[kExchange]
      if (exchange && !exchange.settled) see(exchange, this, type, argument)
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original.emit, this, arguments)
  }
}

/**
 * @param {any} request
 * @param {any} socket
 */
function seeSocket (request, socket) {
  const exchange = exchangeOf(request)
  if (!exchange || socket[kWatched]) return
  socket[kWatched] = true
  socket.on('timeout', onSocketTimeout)
  if (socket.connecting) time(exchange, socket, request.protocol === 'https:')
}

/**
 * @param {any} request
 * @param {unknown} chunk
 * @param {unknown} encoding
 */
function seeBody (request, chunk, encoding) {
  const exchange = exchangeOf(request)
  if (exchange && chunk) exchange.sent += size(chunk, encoding)
}

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
 * @param {import('../native.js').NextStep} step
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

/** @type {any} */
const agentPrototype = http.Agent.prototype
/** @type {Method | undefined} */
let originalAddRequest

/** @type {Method} */
function addRequest (request, options, ...rest) {
  const original = /** @type {Method} */ (originalAddRequest)
  try {
    if (active && request[kHeld] === undefined && hold(request, options, (options) => {
      Reflect.apply(original, this, [request, options, ...rest])
    })) return
  } catch (error) {
    note(error)
  }
  return Reflect.apply(original, this, [request, options, ...rest])
}

/**
 * What was on the prototype itself, not inherited, before ours: by name.
 *
 * @type {Map<string, PropertyDescriptor | undefined>}
 */
const before = new Map()

function install () {
  if (active) return
  active = true
  if (originalAddRequest === undefined) {
    originalAddRequest = agentPrototype.addRequest
    agentPrototype.addRequest = addRequest
  }
  for (const [name, value] of Object.entries(ours)) {
    // Where somebody wrapped ours in the meantime, it is still in place below theirs.
    if (before.has(name)) continue
    before.set(name, Object.getOwnPropertyDescriptor(prototype, name))
    original[name] = prototype[name]
    Object.defineProperty(prototype, name, { configurable: true, writable: true, value })
  }
}

function uninstall () {
  if (!active) return
  active = false
  if (agentPrototype.addRequest === addRequest) {
    agentPrototype.addRequest = originalAddRequest
    originalAddRequest = undefined
  }
  for (const [name, descriptor] of before) {
    if (prototype[name] !== ours[name]) continue
    if (descriptor) Object.defineProperty(prototype, name, descriptor)
    else delete prototype[name]
    before.delete(name)
  }
}

module.exports = { install, uninstall }
