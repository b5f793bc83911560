'use strict'
// What the application gets instead of an answer, because a rule says so.

const { leave } = require('./common.js')
const { ErrorType } = require('./errors.js')

/** @typedef {import('./native.js').NextStep} NextStep */

/** A call that was not sent: a rule says so. See index.d.ts. One class for all copies of this package, for `instanceof`. */
const RefusedError = leave('RefusedError', class RefusedError extends Error {
  /** @param {Pick<NextStep, 'message' | 'by' | 'rule' | 'reason' | 'until'>} refusal */
  constructor ({ message, by, rule, reason, until }) {
    super(message)
    this.by = by ?? ''
    this.rule = rule ?? ''
    this.reason = reason ?? ''
    this.until = until ?? null
    this.code = 'ERR_FARCALL_REFUSED'
  }
})
Object.defineProperty(RefusedError.prototype, 'name', { value: 'FarcallRefusedError', configurable: true, writable: true })

/**
 * What Node says of each type of error: code and words.
 *
 * @type {Map<number, string[]>}
 */
const WORDS = new Map([
  [ErrorType.DNS, ['ENOTFOUND', 'getaddrinfo ENOTFOUND']],
  [ErrorType.CONNECT, ['ECONNREFUSED', 'connect ECONNREFUSED']],
  [ErrorType.TLS, ['EPROTO', 'write EPROTO']],
  [ErrorType.TIMEOUT, ['ETIMEDOUT', 'connect ETIMEDOUT']],
  [ErrorType.RESET, ['ECONNRESET', 'socket hang up']],
  [ErrorType.PROTOCOL, ['HPE_INVALID_CONSTANT', 'Parse Error: Expected HTTP/']]
])

/**
 * An error as the wire would have made it, of one of the types in errors.js.
 *
 * @param {number | undefined} type
 */
function wireError (type) {
  const [code, message] = WORDS.get(type ?? 0) ?? ['EIO', 'i/o error']
  return Object.assign(new Error(message), { code })
}

/** The attempt took longer than a rule allows. */
function timeoutError () {
  return Object.assign(new Error('the attempt took longer than its rule allows'), { code: 'ETIMEDOUT' })
}

module.exports = { RefusedError, timeoutError, wireError }
