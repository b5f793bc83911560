'use strict'
// Why an exchange failed, as the ledger counts it. The numbers are those of `farcall::ErrorType`.

const ErrorType = Object.freeze({
  DNS: 1,
  CONNECT: 2,
  TLS: 3,
  TIMEOUT: 4,
  RESET: 5,
  PROTOCOL: 6,
  CANCELLED: 7,
  OTHER: 8
})

/** Codes of Node (`errors.html`, `dns.html`), of libuv and of undici. */
const BY_CODE = new Map(Object.entries({
  ENOTFOUND: ErrorType.DNS,
  EAI_AGAIN: ErrorType.DNS,
  EAI_FAIL: ErrorType.DNS,
  EAI_NODATA: ErrorType.DNS,
  EAI_NONAME: ErrorType.DNS,
  ENODATA: ErrorType.DNS,
  ESERVFAIL: ErrorType.DNS,
  EREFUSED: ErrorType.DNS,
  ECONNREFUSED: ErrorType.CONNECT,
  EHOSTUNREACH: ErrorType.CONNECT,
  EHOSTDOWN: ErrorType.CONNECT,
  ENETUNREACH: ErrorType.CONNECT,
  ENETDOWN: ErrorType.CONNECT,
  EADDRNOTAVAIL: ErrorType.CONNECT,
  EACCES: ErrorType.CONNECT,
  EPERM: ErrorType.CONNECT,
  EPROTO: ErrorType.TLS,
  DEPTH_ZERO_SELF_SIGNED_CERT: ErrorType.TLS,
  SELF_SIGNED_CERT_IN_CHAIN: ErrorType.TLS,
  HOSTNAME_MISMATCH: ErrorType.TLS,
  INVALID_CA: ErrorType.TLS,
  PATH_LENGTH_EXCEEDED: ErrorType.TLS,
  INVALID_PURPOSE: ErrorType.TLS,
  ETIMEDOUT: ErrorType.TIMEOUT,
  ESOCKETTIMEDOUT: ErrorType.TIMEOUT,
  ERR_SOCKET_CONNECTION_TIMEOUT: ErrorType.TIMEOUT,
  UND_ERR_CONNECT_TIMEOUT: ErrorType.TIMEOUT,
  UND_ERR_HEADERS_TIMEOUT: ErrorType.TIMEOUT,
  UND_ERR_BODY_TIMEOUT: ErrorType.TIMEOUT,
  ECONNRESET: ErrorType.RESET,
  EPIPE: ErrorType.RESET,
  ERR_STREAM_PREMATURE_CLOSE: ErrorType.RESET,
  UND_ERR_SOCKET: ErrorType.RESET,
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: ErrorType.PROTOCOL,
  UND_ERR_HEADERS_OVERFLOW: ErrorType.PROTOCOL,
  ERR_HTTP_INVALID_HEADER_VALUE: ErrorType.PROTOCOL,
  ERR_HTTP2_STREAM_ERROR: ErrorType.RESET,
  ERR_HTTP2_STREAM_CANCEL: ErrorType.RESET,
  ERR_HTTP2_SESSION_ERROR: ErrorType.RESET,
  ERR_HTTP2_GOAWAY_SESSION: ErrorType.RESET,
  ABORT_ERR: ErrorType.CANCELLED,
  UND_ERR_ABORTED: ErrorType.CANCELLED,
  UND_ERR_DESTROYED: ErrorType.CANCELLED,
  UND_ERR_CLOSED: ErrorType.CANCELLED,
  ERR_CANCELED: ErrorType.CANCELLED
}))

/**
 * @param {string} code
 * @param {string} message
 * @returns {number | undefined}
 */
function ofCode (code, message) {
  // axios reports its own timeout under the code of a broken connection.
  if (code === 'ECONNABORTED') return /time/i.test(message) ? ErrorType.TIMEOUT : ErrorType.RESET
  if (code === 'ECONNRESET' && message.includes('before secure TLS connection')) return ErrorType.TLS
  const known = BY_CODE.get(code)
  if (known !== undefined) return known
  if (code.startsWith('HPE_') || code.startsWith('ERR_HTTP2_')) return ErrorType.PROTOCOL
  if (/^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|CRL_|ERROR_IN_C)/.test(code)) return ErrorType.TLS
}

/**
 * The number of the type of an error, looked for in its code and name, in what caused it (`fetch` wraps
 * the reason) and in the first of several (one connection attempt for each address).
 *
 * @param {unknown} error
 * @returns {number}
 */
function classify (error) {
  /** @type {any} */
  let at = error
  let found
  for (let depth = 0; depth < 5 && typeof at === 'object' && at !== null; depth += 1) {
    const message = typeof at.message === 'string' ? at.message : ''
    if (at.name === 'TimeoutError') return ErrorType.TIMEOUT
    // undici's, which does not always have a code.
    if (at.name === 'HTTPParserError') return ErrorType.PROTOCOL
    if (typeof at.code === 'string') found = ofCode(at.code, message) ?? found
    // An abort says what it was for: `AbortSignal.timeout()` is a timeout, not the application's wish.
    else if (at.name === 'AbortError') found ??= ErrorType.CANCELLED
    if (found !== undefined && found !== ErrorType.CANCELLED) return found
    at = at.cause ?? at.errors?.[0]
  }
  return found ?? ErrorType.OTHER
}

module.exports = { ErrorType, classify }
