'use strict'
// A call for which rules decide: it crosses to the engine when it begins, and performs step by step what the
// engine says. Where no rule decides anything there is none of these, and calls go in bundles (account.js).

const { ErrorType, classify } = require('./errors.js')
const { perform, performed } = require('./performing.js')
const { note } = require('./problems.js')

/** @typedef {InstanceType<typeof import('./exchange.js').Exchange>} Exchange */
/** @typedef {import('./native.js').NativeDecision} NativeDecision */
/** @typedef {import('./native.js').NextStep} NextStep */
/** @typedef {import('./performing.js').Attaching} Attaching */

/** As in exchange.js. */
const COMPLETE = 0
const ABANDONED = 9

/**
 * Who hears of an exchange where rules decide.
 *
 * @typedef {Attaching & { answer: (exchange: Exchange, status: number, headers: () => string[]) => void,
 *   body: (exchange: Exchange, chunk: unknown) => void, over: (exchange: Exchange) => void }} Hearing
 */

class Decision {
  /** @param {NativeDecision} call */
  constructor (call) {
    this.call = call
    /** @type {Exchange | undefined} the attempt under way, or the last one */
    this.exchange = undefined
    /** Whether there was an attempt. */
    this.sent = false
    /** Whether one is to begin. */
    this.open = false
    /** Whether the attempt under way is the last. */
    this.final = false
    /** Whether the engine knows how the call came out. */
    this.done = false
    /** How the attempt came out; negative while it is under way. */
    this.how = -1
    /** Whether the engine looks at the body of the response. */
    this.reads = false
    /** @type {number | undefined} after how many bytes the response breaks off for the application */
    this.truncate = undefined
    /** Whether the application may get something else than what the attempt comes to, although it is the last. */
    this.spare = false
    /** @type {((status: number, headers: string[]) => boolean) | undefined} whether an answer cannot be kept */
    this.declines = undefined
    /** @type {Exchange[] | undefined} what ended while the request is handed over to the outbox, which has the call */
    this.late = undefined
  }

  /**
   * What to do next. Throws nothing: where the engine fails, the call goes out.
   *
   * @returns {NextStep}
   */
  step () {
    /** @type {NextStep} */
    let step
    try {
      step = this.call.step()
    } catch (error) {
      note(error)
      step = { kind: this.sent ? 'settled' : 'send' }
    }
    if (step.kind === 'send') {
      this.exchange = undefined
      this.how = -1
      this.reads = false
      this.open = this.sent = true
      this.truncate = step.truncate
    } else if (step.kind === 'settled') this.settle()
    else if (step.kind !== 'wait' && step.kind !== 'park') {
      this.done = true
      this.reads = false
    }
    return step
  }

  /**
   * The one step of an exchange that goes out now, as it is, unless this says 'refuse' or 'fail'. Throws nothing.
   *
   * @param {Exchange} exchange
   */
  stepAtOnce (exchange) {
    /** @type {NextStep} */
    let step
    try {
      // The time that an attempt under fetch has is that of its further hops as well.
      step = this.call.stepAtOnce(performed() !== undefined)
    } catch (error) {
      note(error)
      step = { kind: 'send' }
    }
    this.exchange = exchange
    this.final = true
    exchange.decision = this
    if (step.kind === 'send') this.sent = true
    else this.done = true
    return step
  }

  /**
   * The attempt's exchange began. Returns whether this is the one: a redirect's next hop is a call of its own.
   *
   * @param {Exchange} exchange
   */
  attach (exchange) {
    if (!this.open) return
    this.open = false
    this.exchange = exchange
    exchange.decision = this
  }

  /**
   * Looks on at an exchange that goes out as it is.
   *
   * @param {Exchange} exchange
   */
  watch (exchange) {
    if (this.step().kind !== 'send') return
    this.attach(exchange)
    this.final = true
  }

  /**
   * Runs `fn`, which performs the attempt.
   *
   * @template R
   * @param {() => R} fn
   * @param {Attaching} [attempt] whose exchange begins in there, where it is one of several
   * @returns {R}
   */
  perform (fn, attempt = this) {
    return perform(attempt, fn)
  }

  /**
   * A second attempt beside the slow one under way, where there is room for it. Throws nothing.
   *
   * @returns {NextStep | undefined}
   */
  hedge () {
    try {
      return this.call.hedge() ?? undefined
    } catch (error) {
      note(error)
    }
  }

  /**
   * Of two attempts that of this number ended with this status, or else an error of this type; both are 0 where it was
   * given up, since the other one answered. Throws nothing.
   *
   * @param {number} number
   * @param {number} status
   * @param {number} error
   */
  lost (number, status, error) {
    try {
      this.call.lost(number, status, error)
    } catch (problem) {
      note(problem)
    }
  }

  /**
   * A copy to send beside the call, and how, where there is room for one. Throws nothing.
   *
   * @returns {{ decision: Decision, step: NextStep } | undefined}
   */
  shadow () {
    try {
      const copy = this.call.shadow()
      if (copy === null) return
      const decision = new Decision(copy.decision())
      decision.open = decision.sent = true
      return { decision, step: copy.step() }
    } catch (error) {
      note(error)
    }
  }

  /**
   * Counts the bytes of an attempt that is of no more interest. Throws nothing.
   *
   * @param {Exchange} exchange
   */
  countOnly (exchange) {
    if (this.done) return
    try {
      this.call.count(exchange.sent, exchange.received, -1, -1, -1)
    } catch (error) {
      note(error)
    }
  }

  /**
   * The head of a response arrived. Throws nothing.
   *
   * @param {Exchange | undefined} exchange
   * @param {number} status
   * @param {() => string[]} headers names and values in turn
   */
  answer (exchange, status, headers) {
    if (exchange !== this.exchange || this.done) return
    try {
      const shown = this.call.wantsHeaders(status) ? headers() : []
      if (this.declines?.(status, shown)) this.call.uncacheable()
      this.reads = this.call.answer(status, shown)
    } catch (error) {
      note(error)
    }
  }

  /** Whether a rule may have the call parked. Throws nothing. */
  mayBeParked () {
    try {
      return this.call.mayBeParked()
    } catch (error) {
      note(error)
      return false
    }
  }

  /**
   * Whether the whole body is there to be handed over to the outbox. Throws nothing.
   *
   * @param {boolean} whole
   */
  keeps (whole) {
    try {
      this.call.keeps(whole)
    } catch (error) {
      note(error)
    }
  }

  /** How many bytes of the request's body are worth keeping for another attempt; 0 for none. Throws nothing. */
  replayBytes () {
    try {
      return this.call.replayBytes()
    } catch (error) {
      note(error)
      return 0
    }
  }

  /**
   * Of how many bytes the body is, once all of it is there to be sent again. Throws nothing.
   *
   * @param {number | undefined} bytes
   */
  replays (bytes) {
    try {
      this.call.replays(bytes)
    } catch (error) {
      note(error)
    }
  }

  /** The attempt came to nothing, and another one follows: what is left of it says no more. */
  leave () {
    this.exchange = undefined
    this.how = -1
    this.reads = false
  }

  /** There was no room to keep the body for the outbox. Throws nothing. */
  full () {
    try {
      this.call.full()
    } catch (error) {
      note(error)
    }
  }

  /**
   * Hands the request over to the outbox, as the step asked.
   *
   * @param {string} method
   * @param {string} url
   * @param {string[]} headers names and values in turn
   * @param {Buffer} body
   */
  async park (method, url, headers, body) {
    /** @type {Exchange[]} */
    const late = []
    this.late = late
    this.reads = false
    try {
      return await this.call.park(method, url, headers, body)
    } finally {
      this.late = undefined
      for (const exchange of late) this.over(exchange)
    }
  }

  /** The answer that comes cannot be kept. Throws nothing. */
  uncacheable () {
    try {
      this.call.uncacheable()
    } catch (error) {
      note(error)
    }
  }

  /** What answered 304 is not what the condition is about. Throws nothing. */
  unconfirmed () {
    if (this.done) return
    try {
      this.call.uncacheable()
      this.reads = this.call.answer(304, [])
    } catch (error) {
      note(error)
    }
  }

  /**
   * More of the response's body arrived. Throws nothing.
   *
   * @param {Exchange} exchange
   * @param {unknown} chunk
   */
  body (exchange, chunk) {
    if (!this.reads || exchange !== this.exchange || !(chunk instanceof Uint8Array)) return
    try {
      this.call.read(chunk)
      exchange.shown += chunk.byteLength
    } catch (error) {
      note(error)
    }
  }

  /**
   * An attempt is over. Throws nothing.
   *
   * @param {Exchange} exchange
   */
  over (exchange) {
    if (this.done) return
    if (this.late !== undefined) {
      this.late.push(exchange)
      return
    }
    try {
      const { times } = exchange
      const received = exchange.received - exchange.shown
      this.call.count(exchange.sent, received, times?.dns ?? -1, times?.connect ?? -1, times?.tls ?? -1)
      // A response that a retry let go of says no more.
      if (exchange === this.exchange) this.#ended(exchange.how)
    } catch (error) {
      note(error)
    }
  }

  /**
   * The attempt failed with this error, whoever saw it. Throws nothing.
   *
   * @param {unknown} error
   */
  failed (error) {
    this.open = false
    if (this.done || this.how >= 0) return
    if (this.exchange !== undefined) {
      this.exchange.fail(error)
      return
    }
    try {
      this.#ended(classify(error))
    } catch (problem) {
      note(problem)
    }
  }

  /** @param {number} how */
  #ended (how) {
    this.how = how
    if (how !== COMPLETE && how !== ABANDONED) this.call.failed(how)
    if (this.final || (this.spare && how === ABANDONED)) this.#finish()
  }

  /** There will be no other attempt. Throws nothing. */
  settle () {
    this.final = true
    this.open = false
    try {
      if (this.exchange === undefined || this.how >= 0) this.#finish()
    } catch (error) {
      note(error)
    }
  }

  #finish () {
    if (this.done) return
    this.done = true
    // The last byte may have arrived before the application came to where it breaks off.
    const { exchange, truncate } = this
    const breaks = truncate !== undefined && exchange !== undefined && exchange.received > truncate
    if (breaks && (this.how === COMPLETE || this.how === ABANDONED)) this.call.failed(ErrorType.RESET)
    if (this.how === ABANDONED && !breaks) this.call.abandon()
    else this.call.end()
  }

  /** The application let go before there was an answer. Throws nothing. */
  cancel () {
    this.final = true
    this.open = false
    if (this.exchange !== undefined && !this.exchange.settled) this.exchange.abandon()
    if (this.done) return
    this.done = true
    try {
      this.call.abandon()
    } catch (error) {
      note(error)
    }
  }
}

module.exports = { Decision }
