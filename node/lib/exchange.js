'use strict'
// One exchange on the wire, from its request to its settlement: what both adapters tell of it.

const account = require('./account.js')
const { now } = require('./clock.js')
const { ErrorType, classify } = require('./errors.js')
const { performed } = require('./performing.js')
const { observe } = require('./reading.js')
const { isDeciding } = require('./ruling.js')
const { currentScope } = require('./scope.js')

/** How a call came out, beside the numbers of ErrorType: whole, or let go of by the application. */
const COMPLETE = 0
const ABANDONED = 9

/** @typedef {import('./scope.js').Scope} Scope */
/** @typedef {InstanceType<typeof import('./connecting.js').ConnectTimes>} ConnectTimes */

/**
 * A call. No method throws, and all do nothing once it is settled. Times are milliseconds of
 * `clock.js`, negative for what did not happen.
 */
class Exchange {
  /**
   * @param {string} origin scheme, host and port where it is not the scheme's own (`https://api.stripe.com`);
   *   only the scheme (`https:`) where the authority comes apart
   * @param {string | undefined} authority host and port
   * @param {string} method
   * @param {string} path with or without the query, which is dropped
   * @param {Scope | undefined} scope on whose behalf
   */
  constructor (origin, authority, method, path, scope) {
    this.origin = origin
    this.authority = authority
    this.method = method
    this.path = path
    this.scope = scope
    this.begun = now()
    this.headAt = -1
    this.status = 0
    /** How it came out; negative while it is under way. */
    this.how = -1
    /** Bytes of the request's body that went out. */
    this.sent = 0
    /** Bytes of the response's body that came in, as they were on the wire. */
    this.received = 0
    /** Whether its connection is still being made. */
    this.connecting = false
    /** Whether the client said that its time was up. */
    this.timedOut = false
    /** @type {ConnectTimes | undefined} what making its connection took */
    this.times = undefined
    /** @type {import('./decision.js').Hearing | undefined} where rules decide: what it is an attempt of */
    this.decision = undefined
    /** Whether somebody asked if rules decide. */
    this.asked = false
    /** Bytes of the response's body that the engine was shown. */
    this.shown = 0
    /** @type {Exchange | undefined} its neighbours among those under way */
    this.next = first
    /** @type {Exchange | undefined} */
    this.previous = undefined
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
   * @param {readonly (string | Buffer)[]} [headers] names and values in turn
   */
  head (status, headers) {
    if (this.how >= 0) return
    this.status = status
    this.headAt = now()
    if (this.decision !== undefined) this.#answer(headers)
  }

  // Apart from the above, because what a closure holds is allocated whether it is made or not.
  /** @param {readonly (string | Buffer)[] | undefined} headers */
  #answer (headers) {
    this.decision?.answer(this, this.status, () => headers?.map((word) => word.toString('latin1')) ?? [])
  }

  /** The last byte of the response arrived. */
  end () {
    settle(this, COMPLETE)
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
    if (type !== ErrorType.CANCELLED && type !== ErrorType.OTHER) settle(this, type)
    else settle(this, this.timedOut ? ErrorType.TIMEOUT : ABANDONED)
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
    else settle(this, type)
  }

  /**
   * It failed, with an error of this type.
   *
   * @param {number} type
   */
  failAs (type) {
    settle(this, type)
  }
}

/**
 * The end of a call, the first time.
 *
 * @param {Exchange} call
 * @param {number} how
 */
function settle (call, how) {
  if (call.how >= 0) return
  call.how = how
  const { next, previous } = call
  if (next !== undefined) next.previous = previous
  if (previous !== undefined) previous.next = next
  else first = next
  call.next = call.previous = undefined
  underWay -= 1
  if (call.decision === undefined) account.add(call, now())
  else call.decision.over(call)
  if (waiting.length > 0) tellIdle()
}

/** @type {Exchange | undefined} the calls under way, the latest first */
let first
let underWay = 0
/** How many requests of the application's are not over although none of their exchanges is under way. */
let open = 0
/** @type {(() => void)[]} who waits for none to be under way */
let waiting = []

function tellIdle () {
  if (underWay > 0 || open > 0) return
  const told = waiting
  waiting = []
  for (const tell of told) tell()
}

/**
 * Calls `tell` once no call of this thread is under way, now or later.
 *
 * @param {() => void} tell throws nothing
 */
function whenIdle (tell) {
  if (underWay === 0 && open === 0) tell()
  else waiting.push(tell)
}

/** A request of the application's is not over, whatever becomes of its exchanges, until what this returns is called. */
function keepOpen () {
  open += 1
  return () => {
    open -= 1
    if (waiting.length > 0) tellIdle()
  }
}

/**
 * Begins a call in the running code's scope.
 *
 * @param {string} origin as for an Exchange
 * @param {string | undefined} authority
 * @param {string} method
 * @param {string} path
 */
function begin (origin, authority, method, path) {
  const exchange = new Exchange(origin, authority, method, path, currentScope())
  const decision = performed()
  if (decision !== undefined) decision.attach(exchange)
  else if (!isDeciding(exchange.begun)) observe(exchange)
  return exchange
}

/** How many calls are under way in this thread. */
function inFlight () {
  return underWay
}

/** Lets go of all calls under way: the thread ends. */
function abandonAll () {
  while (first !== undefined) first.abandon()
}

module.exports = { Exchange, abandonAll, begin, inFlight, keepOpen, whenIdle }
