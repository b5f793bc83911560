'use strict'
// One exchange on the wire, from its request to its settlement: what both adapters tell the engine.

const { Names } = require('./names.js')
const { native } = require('./native.js')
const { note } = require('./problems.js')
const { currentScope, scopeNumber } = require('./scope.js')
const { ErrorType, classify } = require('./errors.js')

/** How `settle` is told of a whole response, and of one that the application let go of. */
const COMPLETE = 0
const ABANDONED = 9

/** @typedef {import('./scope.js').Scope} Scope */
/** @typedef {InstanceType<typeof import('./connecting.js').ConnectTimes>} ConnectTimes */

const origins = new Names(
  (/** @type {string} */ origin) => {
    const url = URL.canParse(origin) ? new URL(origin) : undefined
    const tls = url?.protocol === 'https:' || url?.protocol === 'wss:'
    return native().nameOrigin(tls, url?.hostname ?? '', Number(url?.port) || (tls ? 443 : 80))
  },
  () => native().forgetOrigins()
)

const methods = new Names(
  (/** @type {string} */ method) => native().nameMethod(method),
  () => native().forgetMethods()
)

/**
 * A call under way. No method throws, and all do nothing once it is settled.
 */
class Exchange {
  /** @type {number} */
  #ticket
  #settled = false
  /** Whether the head of a response was seen. */
  answered = false
  /** Bytes of the request's body that went out. */
  sent = 0
  /** Bytes of the response's body that came in, as they were on the wire. */
  received = 0
  /** Whether the client said that its time was up. */
  timedOut = false
  /** Whether its connection is still being made. */
  connecting = false
  /** On whose behalf the call is made. */
  scope

  /**
   * @param {number} ticket
   * @param {Scope | undefined} scope
   */
  constructor (ticket, scope) {
    this.#ticket = ticket
    this.scope = scope
  }

  get settled () {
    return this.#settled
  }

  /**
   * The head of the final response arrived.
   *
   * @param {number} status
   */
  head (status) {
    if (this.#settled) return
    this.answered = true
    try {
      native().head(this.#ticket, status)
    } catch (error) {
      note(error)
    }
  }

  /**
   * The connection that carries it was made for it, and took this.
   *
   * @param {ConnectTimes} times
   */
  connected (times) {
    if (this.#settled) return
    try {
      native().connected(this.#ticket, times.dns, times.connect, times.tls)
    } catch (error) {
      note(error)
    }
  }

  /** The last byte of the response arrived. */
  end () {
    this.#settle(COMPLETE)
  }

  /**
   * The application let go of it, for the reason that it gave, if any. A reason of a type that the ledger
   * knows counts as that: clients end a call themselves at a timeout, or after an error.
   *
   * @param {unknown} [reason]
   */
  abandon (reason) {
    if (this.#settled) return
    const type = reason === undefined ? ErrorType.CANCELLED : classify(reason)
    if (type !== ErrorType.CANCELLED && type !== ErrorType.OTHER) this.#settle(type)
    else this.#settle(this.timedOut ? ErrorType.TIMEOUT : ABANDONED)
  }

  /**
   * It failed, with this error.
   *
   * @param {unknown} error
   */
  fail (error) {
    if (this.#settled) return
    const type = classify(error)
    if (type === ErrorType.CANCELLED) this.abandon()
    else this.#settle(type)
  }

  /**
   * It failed, with an error of this type.
   *
   * @param {number} type
   */
  failAs (type) {
    this.#settle(type)
  }

  /** @param {number} how */
  #settle (how) {
    if (this.#settled) return
    this.#settled = true
    try {
      native().settle(this.#ticket, how, this.sent, this.received)
    } catch (error) {
      note(error)
    }
  }
}

/**
 * Begins a call in the running code's scope, or in `scope` where given. May throw.
 *
 * @param {string} origin scheme, host and port where it is not the scheme's own: `https://api.stripe.com`
 * @param {string} method
 * @param {string} path with or without the query, which is dropped
 * @param {Scope} [scope]
 */
function begin (origin, method, path, scope = currentScope()) {
  const ticket = native().begin(origins.numberOf(origin), methods.numberOf(method), scopeNumber(scope), path)
  return new Exchange(ticket, scope)
}

module.exports = { Exchange, begin }
