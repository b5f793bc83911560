'use strict'
// Global fetch, and undici from npm: every copy of undici publishes its exchanges on the same diagnostics
// channels, one message an exchange whatever sits above (a redirect's hops, an interceptor's retries). So a
// client that took hold of `fetch` before Farcall was installed is seen as well, and the response that the
// application gets is the one that undici made.
//
// The channels say when an exchange begins, is answered, ends and fails. Bytes they tell only from undici 7
// on (Node 24), and an upgrade's end only since then, so these two come from the methods of the `Request`
// that the channels show. Each copy of undici has its own; it is prepared at its first exchange. Where these
// methods are the known ones, the answer, the end and the failure come from them as well: a message is an object
// or two for each subscriber's sake, a method that is called anyway is not.

const channels = require('node:diagnostics_channel')
const net = require('node:net')
const { obeying } = require('../acting.js')
const { askAtOnce } = require('../at-once.js')
const { timeConnecting } = require('../connecting.js')
const { begin, whenIdle } = require('../exchange.js')
const { note } = require('../problems.js')
const { currentScope, inScope } = require('../scope.js')

/** @typedef {InstanceType<typeof import('../exchange.js').Exchange>} Exchange */
/** @typedef {InstanceType<typeof import('../connecting.js').ConnectTimes>} ConnectTimes */
/** @typedef {import('node:net').Socket} Socket */

const kExchange = Symbol('farcall.exchange')
/** On a prototype whose methods tell all that the channels would. */
const kTells = Symbol('farcall.tells')

/**
 * undici's Request, as far as it matters here (`lib/core/request.js`).
 *
 * @typedef {object} Request
 * @property {string | URL} origin
 * @property {string | null} host the Host header, where the application set one
 * @property {string} method
 * @property {string} path
 * @property {Exchange | undefined} [kExchange]
 * @property {true | undefined} [kTells]
 */

/** @typedef {(this: any, ...args: any[]) => any} Method */

let active = false

/**
 * The `Request.prototype`s that are prepared, with what they had before: one for each copy of undici.
 *
 * @type {Map<any, Replaced[]>}
 */
const prepared = new Map()
/** @type {object | null} the one that was seen last, mostly the only one */
let latest = null

/** @typedef {{ name: string, original: Method, ours: Method }} Replaced */

/** @param {unknown} message */
function onCreate (message) {
  try {
    const { request } = /** @type {{ request: any }} */ (message)
    // A tunnel through a proxy is a connection, not a call: the calls inside it are seen one by one.
    if (request.method === 'CONNECT') return
    const prototype = Object.getPrototypeOf(request)
    if (prototype !== latest) prepare(prototype)
    let origin = typeof request.origin === 'string' ? request.origin : request.origin.origin
    let path = request.path
    if (request.host) origin = origin.slice(0, origin.indexOf('://') + 3) + request.host
    if (path.charCodeAt(0) !== 47 && URL.canParse(path)) {
      // The absolute form, as a proxy wants it.
      const url = new URL(path)
      origin = url.origin
      path = url.pathname
    }
    const exchange = request[kExchange] = begin(origin, undefined, request.method, path)
    askAtOnce(request, exchange)
  } catch (error) {
    note(error)
  }
}

/** @param {unknown} message */
function onHeaders (message) {
  const { request, response } = /** @type {any} */ (message)
  const { statusCode, headers } = response
  // Of HTTP/2 undici 8 also tells what only informs.
  if (!request[kTells] && (statusCode >= 200 || statusCode === 101)) request[kExchange]?.head(statusCode, listed(headers))
}

/**
 * Names and values in turn: those of HTTP/2 undici 8 gives as an object.
 *
 * @param {any} headers
 * @returns {(string | Buffer)[]}
 */
function listed (headers) {
  if (Array.isArray(headers)) return headers
  return Object.entries(headers).flatMap(([name, value]) => [value].flat().flatMap((one) => [name, String(one)]))
}

/** @param {unknown} message */
function onTrailers (message) {
  const { request } = /** @type {any} */ (message)
  if (!request[kTells]) request[kExchange]?.end()
}

/** @param {unknown} message */
function onError (message) {
  const { request, error } = /** @type {any} */ (message)
  const exchange = request[kExchange]
  if (exchange !== undefined && !request[kTells]) fail(exchange, error)
}

/**
 * @param {Exchange} exchange
 * @param {any} error
 */
function fail (exchange, error) {
  try {
    // What has no code is the reason that the application gave for letting go: undici's own errors have one.
    if (typeof error?.code === 'string') exchange.fail(error)
    else exchange.abandon(error)
  } catch (problem) {
    note(problem)
  }
}

/**
 * The connections that undici makes: the connector that is at work begins to connect a socket right after
 * the message, in the same turn.
 *
 * @type {{ tls: boolean } | undefined}
 */
let awaited

/**
 * What connecting took, until the first request on the connection takes it along.
 *
 * @type {WeakMap<object, ConnectTimes>}
 */
const connectTimes = new WeakMap()
/** How many there are, but for those whose connection was lost before it was used. */
let fresh = 0
/** Requests that went out on other connections since the last that was connected. */
let others = 0
/** So many, and what is left was lost: a connection is made for a request that waits. */
const LOST = 1000

/** @param {unknown} message */
function beforeConnect (message) {
  const { connectParams } = /** @type {any} */ (message)
  awaited = { tls: connectParams?.protocol === 'https:' }
  queueMicrotask(() => {
    awaited = undefined
  })
}

/** @param {Socket} socket */
function onSocketConnect (socket) {
  if (awaited === undefined) return
  const { tls } = awaited
  awaited = undefined
  timeConnecting(socket, tls, (times, done) => {
    if (!done) return
    connectTimes.set(socket, times)
    fresh += 1
    others = 0
    listenForFirst()
  })
}

/** @param {unknown} message */
function onSendHeaders (message) {
  const { request, socket } = /** @type {any} */ (message)
  const times = connectTimes.get(socket)
  if (times === undefined) {
    others += 1
    if (others > LOST) fresh = 0
  } else {
    connectTimes.delete(socket)
    fresh = Math.max(fresh - 1, 0)
    if (request[kExchange]) request[kExchange].times = times
  }
  // Later: to leave a channel while it tells its listeners makes it pass over the next one.
  if (fresh === 0) queueMicrotask(listenNoMore)
}

function listenForFirst () {
  if (listening || !active || fresh === 0) return
  listening = true
  channels.subscribe(...sendHeaders)
}

function listenNoMore () {
  if (!listening || (active && fresh > 0)) return
  listening = false
  fresh = 0
  channels.unsubscribe(...sendHeaders)
}

/**
 * Prepares the methods of a `Request`; by undici's version they have the one name or the other.
 *
 * @param {any} prototype
 */
function prepare (prototype) {
  latest = prototype
  if (prepared.has(prototype)) return
  prepared.set(prototype, [])
  replace(prototype, ['onBodySent'], (original) => function (chunk) {
    try {
      const exchange = this[kExchange]
      if (exchange !== undefined) exchange.sent += size(chunk)
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original, this, arguments)
  })
  replace(prototype, ['onData', 'onResponseData'], (original) => function (chunk) {
    try {
      const exchange = this[kExchange]
      if (exchange !== undefined) {
        exchange.received += size(chunk)
        exchange.decision?.body(exchange, chunk)
      }
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original, this, arguments)
  })
  replace(prototype, ['onUpgrade', 'onRequestUpgrade'], (original) => function (status) {
    try {
      const exchange = this[kExchange]
      if (exchange !== undefined) {
        exchange.head(status)
        exchange.end()
      }
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original, this, arguments)
  })
  const tells = ['onHeaders', 'onComplete', 'onError'].every((name) => typeof prototype[name] === 'function')
  if (tells) {
    prototype[kTells] = true
    replace(prototype, ['onHeaders'], (original) => function (status, headers) {
      this[kExchange]?.head(status, headers)
      return Reflect.apply(original, this, arguments)
    })
  } else if (active) listenForAll()
  // undici's own redirects and retries begin the next exchange in the last two, called by the socket: in the
  // scope of whoever opened the connection, were it not for this.
  replace(prototype, ['onComplete', 'onResponseEnd'], (original) => function () {
    const exchange = this[kExchange]
    if (exchange === undefined) return Reflect.apply(original, this, arguments)
    if (tells) exchange.end()
    if (exchange.scope === currentScope()) return Reflect.apply(original, this, arguments)
    return inScope(exchange.scope, Reflect.apply, original, this, arguments)
  })
  replace(prototype, ['onError', 'onResponseError'], (original) => function (error) {
    const exchange = this[kExchange]
    if (exchange === undefined) return Reflect.apply(original, this, arguments)
    if (tells) fail(exchange, error)
    if (exchange.scope === currentScope()) return Reflect.apply(original, this, arguments)
    return inScope(exchange.scope, Reflect.apply, original, this, arguments)
  })
}

/** @param {unknown} chunk */
function size (chunk) {
  return typeof chunk === 'string' ? Buffer.byteLength(chunk) : /** @type {Uint8Array} */ (chunk).byteLength
}

/**
 * @param {any} prototype
 * @param {string[]} names
 * @param {(original: Method) => Method} wrap
 */
function replace (prototype, names, wrap) {
  const name = names.find((name) => typeof prototype[name] === 'function')
  if (name === undefined) {
    note(new Error(`this undici has none of ${names.join(', ')}: calls are counted, but not exactly`))
    return
  }
  const value = wrap(prototype[name])
  Object.defineProperty(value, 'name', { value: name })
  prepared.get(prototype)?.push({ name, original: prototype[name], ours: value })
  Object.defineProperty(prototype, name, { configurable: true, writable: true, value })
}

/** Leaves the prototypes as they were, but for those of which somebody has wrapped a method in the meantime. */
function restore () {
  for (const [prototype, all] of prepared) {
    if (!all.every(({ name, ours }) => prototype[name] === ours)) continue
    for (const { name, original } of all) Object.defineProperty(prototype, name, { configurable: true, writable: true, value: original })
    delete prototype[kTells]
    prepared.delete(prototype)
  }
  latest = null
}

/** @type {[string, (message: unknown) => void][]} */
const subscriptions = [
  ['undici:request:create', onCreate],
  ['undici:client:beforeConnect', beforeConnect]
]
/**
 * Listened to only while there are fresh connections: on others each request would cost a message for nothing.
 *
 * @type {[string, (message: unknown) => void]}
 */
const sendHeaders = ['undici:client:sendHeaders', onSendHeaders]
let listening = false
/**
 * Those that a copy of undici needs whose methods are not known.
 *
 * @type {[string, (message: unknown) => void][]}
 */
const further = [
  ['undici:request:headers', onHeaders],
  ['undici:request:trailers', onTrailers],
  ['undici:request:error', onError]
]
/** Whether there is one. */
let needed = false

function listenForAll () {
  if (needed) return
  needed = true
  listenFurther()
}

function listenFurther () {
  for (const [name, see] of further) {
    // They may still be there.
    channels.unsubscribe(name, see)
    channels.subscribe(name, see)
  }
}

const prototype = net.Socket.prototype
/** @type {Method} */
const socketConnect = prototype.connect

/** @type {Method} */
function connect () {
  try {
    if (active) onSocketConnect(this)
  } catch (error) {
    note(error)
  }
  return Reflect.apply(socketConnect, this, arguments)
}

/**
 * Ours, and what stood in its place, by the `globalThis` that has it: a context of its own may have another `fetch`.
 *
 * @type {WeakMap<object, { ours: any, original: typeof fetch }>}
 */
const fetches = new WeakMap()
/**
 * All of ours: such a context may have taken it from Node's own.
 *
 * @type {WeakSet<object>}
 */
const known = new WeakSet()

/** @param {any} globals */
function hookFetch (globals) {
  const original = globals.fetch
  // Where somebody wrapped ours in the meantime, it is still in place below theirs.
  if (fetches.has(globals) || typeof original !== 'function' || known.has(original)) return
  const ours = obeying(original, () => active)
  known.add(ours)
  fetches.set(globals, { ours, original })
  globals.fetch = ours
}

/** @param {any} globals */
function unhookFetch (globals) {
  const hooked = fetches.get(globals)
  if (hooked === undefined || globals.fetch !== hooked.ours) return
  globals.fetch = hooked.original
  fetches.delete(globals)
}

/** @param {object} globals of whoever asks */
function install (globals) {
  hookFetch(globalThis)
  hookFetch(globals)
  if (active) return
  active = true
  for (const [name, see] of subscriptions) channels.subscribe(name, see)
  if (needed) listenFurther()
  if (prototype.connect === socketConnect) prototype.connect = connect
}

/** @param {object} globals of whoever asks; in other contexts ours does what the original does */
function uninstall (globals) {
  if (!active) return
  active = false
  for (const [name, see] of subscriptions) channels.unsubscribe(name, see)
  // Those under way end as they began.
  whenIdle(() => {
    if (active) return
    for (const [name, see] of further) channels.unsubscribe(name, see)
    restore()
  })
  listenNoMore()
  if (prototype.connect === connect) prototype.connect = socketConnect
  unhookFetch(globals)
  unhookFetch(globalThis)
}

module.exports = { install, uninstall }
