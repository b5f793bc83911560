'use strict'
// One exchange on the wire, from its request to its settlement: what both adapters tell of it.

const account = require('./account.js')
const { now } = require('./clock.js')
const { ErrorType, classify } = require('./errors.js')
const { currentScope } = require('./scope.js')

/** How a call came out, beside the numbers of ErrorType: whole, or let go of by the application. */
const COMPLETE = 0
const ABANDONED = 9

/** @typedef {import('./scope.js').Scope} Scope */
/** @typedef {InstanceType<typeof import('./connecting.js').ConnectTimes>} ConnectTimes */

/**
 * A call. No method throws, and all do nothing once it is settled. Times are milliseconds of
 * `performance.now()`, negative for what did not happen.
 */
class Exchange {
  begun = now()
  headAt = -1
  ended = -1
  status = 0
  /** How it came out; negative while it is under way. */
  how = -1
  /** Bytes of the request's body that went out. */
  sent = 0
  /** Bytes of the response's body that came in, as they were on the wire. */
  received = 0
  /** Whether its connection is still being made. */
  connecting = false
  /** Whether the client said that its time was up. */
  timedOut = false
  /** @type {ConnectTimes | undefined} what making its connection took */
  times = undefined
  /** @type {Exchange | undefined} its neighbours among those under way */
  next = undefined
  /** @type {Exchange | undefined} */
  previous = undefined

  /**
   * @param {string} origin scheme, host and port where it is not the scheme's own: `https://api.stripe.com`
   * @param {string} method
   * @param {string} path with or without the query, which is dropped
   * @param {Scope | undefined} scope on whose behalf
   */
  constructor (origin, method, path, scope) {
    this.origin = origin
    this.method = method
    this.path = path
    this.scope = scope
    this.next = first
    if (first !== undefined) first.previous = this
    first = this
    underWay += 1
  }

  get settled () {
    return this.how >= 0
  }

  /** Whether the head of a response was seen. */
  get answered () {
    return this.headAt >= 0
  }

  /**
   * The head of the final response arrived.
   *
   * @param {number} status
   */
  head (status) {
    if (this.how >= 0) return
    this.status = status
    this.headAt = now()
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
    if (this.how >= 0) return
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
    if (this.how >= 0) return
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
    if (this.how >= 0) return
    this.how = how
    this.ended = now()
    const { next, previous } = this
    if (next !== undefined) next.previous = previous
    if (previous !== undefined) previous.next = next
    else first = next
    this.next = this.previous = undefined
    underWay -= 1
    account.add(this)
  }
}

/** @type {Exchange | undefined} the calls under way, the latest first */
let first
let underWay = 0

/**
 * Begins a call in the running code's scope.
 *
 * @param {string} origin
 * @param {string} method
 * @param {string} path
 */
function begin (origin, method, path) {
  return new Exchange(origin, method, path, currentScope())
}

/** How many calls are under way in this thread. */
function inFlight () {
  return underWay
}

/** Lets go of all calls under way: the thread ends. */
function abandonAll () {
  while (first !== undefined) first.abandon()
}

module.exports = { Exchange, abandonAll, begin, inFlight }
