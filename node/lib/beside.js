'use strict'
// What is sent beside an attempt: a second one where the first is slow, and, by `fetch`, shadow copies.

const { clearTimeout, setTimeout } = require('node:timers')
const { classify } = require('./errors.js')
const { note } = require('./problems.js')

/** @typedef {InstanceType<typeof import('./exchange.js').Exchange>} Exchange */
/** @typedef {InstanceType<typeof import('./decision.js').Decision>} Call */
/** @typedef {import('./native.js').NextStep} NextStep */
/**
 * What an attempt came to; `cause` is the error as it was thrown, `let` whether the application let go.
 *
 * @typedef {{ response?: Response, error?: unknown, cause?: unknown, let?: boolean }} Came
 */
/**
 * Performs an attempt: `perform` runs what sends it, `signal` ends it.
 *
 * @typedef {(step: NextStep, perform: <R>(fn: () => R) => R, signal: AbortSignal) => Promise<Came>} Send
 */

/** No more is read of a copy's answer. */
const READ = 4 * 1024 * 1024

/**
 * One of two attempts. Its exchange tells it what it would tell the call, which hears of it only once this is the one
 * that counts.
 */
class Side {
  /**
   * @param {Call} decision
   * @param {number} number
   */
  constructor (decision, number) {
    this.decision = decision
    this.number = number
    /** @type {Exchange | undefined} */
    this.exchange = undefined
    /** @type {{ status: number, headers: string[] } | undefined} */
    this.head = undefined
    /** @type {unknown[]} what came of the body so far */
    this.chunks = []
    this.isOver = false
    this.lost = false
  }

  /** @param {Exchange} exchange */
  attach (exchange) {
    if (this.exchange !== undefined) return
    this.exchange = exchange
    exchange.decision = this
  }

  /**
   * @param {Exchange} exchange
   * @param {number} status
   * @param {() => string[]} headers
   */
  answer (exchange, status, headers) {
    if (exchange === this.exchange) this.head = { status, headers: headers() }
  }

  /**
   * @param {Exchange} exchange
   * @param {unknown} chunk
   */
  body (exchange, chunk) {
    if (exchange === this.exchange && !this.lost) this.chunks.push(chunk)
  }

  /** @param {Exchange} exchange */
  over (exchange) {
    if (exchange !== this.exchange) return
    this.isOver = true
    if (this.lost) this.decision.countOnly(exchange)
  }

  /** This is the attempt that counts: the call hears of it, and of what follows. */
  adopt () {
    const { decision, exchange, head, chunks } = this
    decision.open = false
    decision.exchange = exchange
    if (exchange === undefined) return
    exchange.decision = decision
    if (head !== undefined) decision.answer(exchange, head.status, () => head.headers)
    for (const chunk of chunks) decision.body(exchange, chunk)
    if (this.isOver) decision.over(exchange)
  }

  /** It is of no more interest. */
  letGo () {
    this.lost = true
    this.chunks = []
    if (this.isOver && this.exchange !== undefined) this.decision.countOnly(this.exchange)
  }
}

/**
 * Whether the answer to one of two attempts ends their race: the vendor did not fail, nor ask to be left alone.
 *
 * @param {number} status 0 for none
 */
function isOfUse (status) {
  return status > 0 && status < 500 && status !== 429
}

/** One that `fetch` makes. */
class Leg extends Side {
  /**
   * @param {Call} decision
   * @param {NextStep} step
   * @param {Send} send
   */
  constructor (decision, step, send) {
    super(decision, step.number ?? 0)
    /** @type {Came | undefined} */
    this.came = undefined
    this.giving = new AbortController()
    this.ended = send(step, (fn) => decision.perform(fn, this), this.giving.signal).then((came) => {
      this.came = came
      if (this.lost) came.response?.body?.cancel().catch(() => {})
      return this
    })
  }

  /** @override */
  letGo () {
    this.lost = true
    this.chunks = []
    this.giving.abort(new DOMException('another attempt answered', 'AbortError'))
    this.came?.response?.body?.cancel().catch(() => {})
    if (this.isOver && this.exchange !== undefined) this.decision.countOnly(this.exchange)
  }

  /** How it ended: a status, or else the type of its error. */
  get ending () {
    const { response, cause } = this.came ?? {}
    return response === undefined ? { status: 0, error: classify(cause) } : { status: response.status, error: 0 }
  }
}

/**
 * What comes of an attempt, and of a second one beside it where the first is slow. The first answer that is of use
 * counts; one that fails while the other is under way is let go of.
 *
 * @param {Call} decision
 * @param {NextStep} step
 * @param {Send} send
 * @returns {Promise<Came>}
 */
async function race (decision, step, send) {
  const first = new Leg(decision, step, send)
  let timer
  const due = new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
    timer = setTimeout(resolve, Math.ceil(step.hedgeMs ?? 0))
  })
  await Promise.race([first.ended, due])
  clearTimeout(timer)
  const extra = first.came === undefined ? decision.hedge() : undefined
  if (extra === undefined) return count(await first.ended)
  const second = new Leg(decision, extra, send)
  const one = await Promise.race([first.ended, second.ended])
  const other = one === first ? second : first
  if (isOfUse(one.ending.status) || one.came?.let === true) {
    decision.lost(other.number, 0, 0)
    other.letGo()
    return count(one)
  }
  const { status, error } = one.ending
  decision.lost(one.number, status, error)
  one.letGo()
  return count(await other.ended)
}

/** @param {Leg} leg */
function count (leg) {
  leg.adopt()
  return /** @type {Came} */ (leg.came)
}

/**
 * Sends a copy of the call that is about to be sent, where the engine has one for it. Nothing that happens to it
 * comes back.
 *
 * @param {Call} decision
 * @param {Send} send
 */
function shadow (decision, send) {
  const told = decision.shadow()
  if (told !== undefined) measure(told.decision, told.step, send).catch(note)
}

/**
 * Makes a copy's one attempt, reads its answer and throws it away.
 *
 * @param {Call} copy
 * @param {NextStep} step
 * @param {Send} send
 */
async function measure (copy, step, send) {
  const giving = new AbortController()
  const timer = setTimeout(() => {
    giving.abort(new DOMException('the copy took too long', 'TimeoutError'))
  }, Math.ceil(step.ms ?? 0))
  timer.unref()
  const { response, cause } = await send({ ...step, ms: undefined }, (fn) => copy.perform(fn), giving.signal)
  try {
    if (response === undefined) copy.failed(cause)
    else if (copy.exchange === undefined) copy.answer(undefined, response.status, () => [...response.headers].flat())
    copy.settle()
    let read = 0
    for await (const chunk of response?.body ?? []) {
      read += chunk.byteLength
      if (read > READ) break
    }
  } catch {
    // The exchange has told of it.
  } finally {
    clearTimeout(timer)
  }
}

module.exports = { READ, Side, isOfUse, race, shadow }
