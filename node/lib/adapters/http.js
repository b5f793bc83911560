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
const { timeConnecting } = require('../connecting.js')
const { begin } = require('../exchange.js')
const { note } = require('../problems.js')
const { classify, ErrorType } = require('../errors.js')
const { byTimeoutSignal } = require('../timeout.js')

const kExchange = Symbol('farcall.exchange')
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
      exchange.head(argument.statusCode)
      break
    case 'upgrade':
      exchange.head(argument.statusCode)
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
    const exchange = this.incoming?.req?.[kExchange]
    if (exchange) exchange.received += chunk.length
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
      if (active && socket) seeSocket(this, socket)
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
 * What was on the prototype itself, not inherited, before ours: by name.
 *
 * @type {Map<string, PropertyDescriptor | undefined>}
 */
const before = new Map()

function install () {
  if (active) return
  active = true
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
  for (const [name, descriptor] of before) {
    if (prototype[name] !== ours[name]) continue
    if (descriptor) Object.defineProperty(prototype, name, descriptor)
    else delete prototype[name]
    before.delete(name)
  }
}

module.exports = { install, uninstall }
