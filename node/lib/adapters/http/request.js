'use strict'
// A request and the exchange that it is.

const { authorityOf } = require('../../authority.js')
const { begin } = require('../../exchange.js')

const kExchange = Symbol('farcall.exchange')
/** Where rules decide: what the request waits for, or how its attempt is cut short. */
const kHeld = Symbol('farcall.held')

/** @typedef {InstanceType<typeof import('../../exchange.js').Exchange>} Exchange */
/** @typedef {(this: any, ...args: any[]) => any} Method */

/**
 * A ClientRequest, with what is not in its public types.
 *
 * @typedef {import('node:http').ClientRequest & {
 *   parser: any,
 *   res: import('node:http').IncomingMessage | null,
 *   _header: string | null,
 *   socketPath?: string,
 *   [kExchange]?: Exchange | null,
 * }} Request
 */

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
  let authority = authorityOf(request)
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
 * Whether the response has no body (RFC 9110, section 6.4.1).
 *
 * @param {Request} request
 */
function isEmpty ({ method, res }) {
  return method === 'HEAD' || res?.statusCode === 204 || res?.statusCode === 304 ||
    res?.headers['content-length'] === '0'
}

/** @param {unknown} chunk @param {unknown} encoding */
function size (chunk, encoding) {
  if (typeof chunk === 'string') {
    return Buffer.byteLength(chunk, typeof encoding === 'string' ? /** @type {BufferEncoding} */ (encoding) : 'utf8')
  }
  return ArrayBuffer.isView(chunk) ? chunk.byteLength : 0
}

/**
 * @param {any} request
 * @param {unknown} chunk
 * @param {unknown} encoding
 */
function seeBody (request, chunk, encoding) {
  const exchange = exchangeOf(request)
  if (!exchange || !chunk) return
  exchange.sent += size(chunk, encoding)
  request[kHeld]?.keep?.(request[kHeld], chunk, encoding)
}

module.exports = { exchangeOf, isEmpty, kExchange, kHeld, seeBody, size }
