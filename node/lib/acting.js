'use strict'
// fetch where rules decide: asks before each attempt, waits, refuses, answers in the vendor's place, and tries
// again.

const { setTimeout, clearTimeout } = require('node:timers')
const { argumentsOf, read } = require('./asking.js')
const { race, shadow } = require('./beside.js')
const { now } = require('./clock.js')
const { giveBack } = require('./keeping.js')
const { isForeign, keptResponse, storedResponse } = require('./kept.js')
const { beginCall, openCall } = require('./opening.js')
const { park } = require('./parking.js')
const { performed } = require('./performing.js')
const { note } = require('./problems.js')
const { RefusedError, wireError } = require('./refused.js')
const { isDeciding } = require('./ruling.js')

/** @typedef {import('./asking.js').Asking} Asking */
/** @typedef {import('./native.js').NextStep} NextStep */
/** @typedef {InstanceType<typeof import('./decision.js').Decision>} Call */
/** @typedef {(this: any, ...args: any[]) => Promise<Response>} Fetch */

/** Timers take no longer waits (`timers.setTimeout`). */
const LONGEST_MS = 2 ** 31 - 1
/**
 * Waits, and no longer than the application does.
 *
 * @param {number} ms
 * @param {AbortSignal | undefined} signal
 */
function wait (ms, signal) {
  return new Promise((/** @type {(value?: unknown) => void} */ resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason)
      return
    }
    const onAbort = () => {
      clearTimeout(timer)
      reject(/** @type {AbortSignal} */ (signal).reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, Math.min(Math.ceil(ms), LONGEST_MS))
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** @param {unknown} cause */
function fetchFailed (cause) {
  return new TypeError('fetch failed', { cause })
}

/**
 * The response, broken off after so many bytes of its body.
 *
 * @param {Response} response
 * @param {number} bytes
 * @param {Call} decision
 */
function cut (response, bytes, decision) {
  if (response.body === null) return response
  const reader = response.body.getReader()
  let left = bytes
  const body = new ReadableStream({
    type: 'bytes',
    async pull (controller) {
      const { done, value } = await reader.read()
      if (done) {
        controller.close()
        controller.byobRequest?.respond(0)
        return
      }
      // A body that ends right there is whole.
      const breaks = value.byteLength > left
      const part = value.subarray(0, left)
      left -= part.byteLength
      if (part.byteLength > 0) controller.enqueue(part)
      if (!breaks) return
      const error = wireError(5)
      decision.failed(error)
      controller.error(new TypeError('terminated', { cause: error }))
      await reader.cancel(error)
    },
    cancel: (reason) => reader.cancel(reason)
  })
  const { status, statusText, headers, url } = response
  return Object.defineProperty(new Response(body, { status, statusText, headers }), 'url', { value: url, configurable: true })
}

/**
 * Sends one attempt.
 *
 * @param {Fetch} original
 * @param {any} self
 * @param {Asking} asking
 * @param {NextStep} step
 * @param {<R>(fn: () => R) => R} perform
 * @param {unknown[]} args
 * @returns {Promise<import('./beside.js').Came>}
 */
async function once (original, self, asking, step, perform, args) {
  const { ms } = step
  let signal = asking.signal
  let timer
  let late = false
  if (ms !== undefined) {
    const giving = new AbortController()
    timer = setTimeout(() => {
      late = true
      giving.abort(new DOMException('the attempt took longer than its rule allows', 'TimeoutError'))
    }, Math.min(Math.ceil(ms), LONGEST_MS))
    signal = signal === undefined ? giving.signal : AbortSignal.any([signal, giving.signal])
  }
  let given = args
  try {
    given = argumentsOf(asking, step, args[0], args[1], signal)
  } catch (error) {
    note(error)
  }
  try {
    return { response: await perform(() => Reflect.apply(original, self, given)) }
  } catch (cause) {
    return { error: late ? fetchFailed(wireError(4)) : cause, cause, let: !late && asking.signal?.aborted === true }
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Performs an attempt, and what is to be sent beside it.
 *
 * @param {Fetch} original
 * @param {any} self
 * @param {Asking} asking
 * @param {NextStep} step
 * @param {Call} decision
 * @param {unknown[]} args
 */
async function attempt (original, self, asking, step, decision, args) {
  const { signal } = asking
  if (step.shadow) {
    // Not the application's signal: it lets go of its call, not of the copy.
    shadow(decision, (step, perform, signal) => once(original, self, { ...asking, signal }, step, perform, args))
  }
  const came = await (step.hedgeMs === undefined
    ? once(original, self, asking, step, (fn) => decision.perform(fn), args)
    : race(decision, step, async (step, perform, own) => {
      const either = signal === undefined ? own : AbortSignal.any([signal, own])
      const came = await once(original, self, { ...asking, signal: either }, step, perform, args)
      return { ...came, let: came.let && signal?.aborted === true }
    }))
  const { response } = came
  if (response === undefined) decision.failed(came.cause)
  else if (decision.exchange === undefined) {
    // A `fetch` that somebody put in the place of undici's is not seen by the channels, nor are its bodies.
    decision.uncacheable()
    decision.answer(undefined, response.status, () => [...response.headers].flat())
  } else if (step.conditional && response.redirected && response.status === 304) {
    // It confirms what it led to, and not what is kept of the place that it led from.
    decision.unconfirmed()
  }
  return came
}

/**
 * @param {Fetch} original
 * @param {any} self
 * @param {Asking} asking
 * @param {Call} decision
 * @param {unknown[]} args
 * @returns {Promise<Response>}
 */
async function act (original, self, asking, decision, args) {
  /** @type {{ response?: Response, error?: unknown, let?: boolean } | undefined} */
  let last
  let truncate
  for (;;) {
    const step = decision.step()
    if (step.kind !== 'settled' && step.kind !== 'park') {
      // Another attempt follows, or none: this response is nobody's. One that cannot be let go of is gone already.
      last?.response?.body?.cancel().catch(() => {})
    }
    switch (step.kind) {
      case 'send':
        truncate = step.truncate
        last = await attempt(original, self, asking, step, decision, args)
        if (last.let) {
          decision.cancel()
          throw last.error
        }
        break
      case 'wait':
        try {
          await wait(step.ms ?? 0, asking.signal)
        } catch (reason) {
          decision.cancel()
          throw reason
        }
        break
      case 'park':
        await park(decision, asking)
        break
      case 'refuse':
        throw new RefusedError(step)
      case 'respond':
        asking.signal?.throwIfAborted()
        return storedResponse(asking.url, step)
      case 'fail':
        throw fetchFailed(wireError(step.error))
      default:
        if (last?.response === undefined) throw last?.error
        return truncate === undefined ? last.response : cut(last.response, truncate, decision)
    }
  }
}

/** Kinds of clients, by what they add to requests below (`Head::client`). */
const FETCH = 1

/**
 * Whether an answer cannot be kept, although the engine may want to: fetch follows redirects by itself, decodes what we
 * would not, and knows no other statuses.
 *
 * @param {number} status
 * @param {string[]} headers
 */
function declines (status, headers) {
  if (status >= 300 && status < 400 ? status !== 300 && status !== 304 : status > 599) return true
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at].length === 16 && /^content-encoding$/i.test(headers[at]) && isForeign(headers[at + 1])) return true
  }
  return false
}

/**
 * Begins a call: its decision, or the answer that is kept.
 *
 * @param {Asking} asking
 */
function begin ({ method, url, headers, words, bytes: body, content, replayable, client, detour, full }) {
  if (client === undefined) {
    const all = [...new Headers(headers)].flat()
    const begun = beginCall({ method, url, headers: all, body, content, replayable, parks: true, hedges: true, detour })
    if (full) begun.full()
    return begun
  }
  const begun = openCall({ method, url, words, body, content, replayable, client, kind: FETCH, parks: true, hedges: true, detour })
  if (typeof begun === 'string') return begun
  begun.declines = declines
  if (full) begun.full()
  return begun
}

/**
 * @param {Promise<unknown>} acted
 * @param {Asking} asking whose body needs no room any more when that is over
 */
function whenOver (acted, { room }) {
  const over = () => giveBack(room)
  acted.then(over, over)
}

/**
 * A `fetch` that obeys the rules, and is `original` where there are none.
 *
 * @param {Fetch} original
 * @param {() => boolean} isActive whether it is to obey any
 * @returns {Fetch}
 */
function obeying (original, isActive) {
  return /** @this {any} */ function fetch (/** @type {any} */ _input, /** @type {any} */ init = undefined) {
    let asking, begun
    try {
      // Inside a call that has been decided on already, the outer one's word holds.
      if (isActive() && isDeciding(now()) && performed() === undefined) {
        asking = read(_input, init)
        if (asking !== undefined) begun = begin(asking)
        if (typeof begun === 'string') {
          const { signal, url, room } = /** @type {Asking} */ (asking)
          giveBack(room)
          return signal?.aborted ? Promise.reject(signal.reason) : Promise.resolve(keptResponse(url, begun))
        }
      }
    } catch (error) {
      note(error)
      begun = undefined
      if (asking !== undefined) giveBack(asking.room)
    }
    if (asking === undefined || begun === undefined) return Reflect.apply(original, this, arguments)
    // `arguments` itself would then be made for every call.
    const acted = act(original, this, asking, begun, arguments.length < 2 ? [_input] : [_input, init])
    if (asking.room > 0) whenOver(acted, asking)
    return acted
  }
}

module.exports = { LONGEST_MS, obeying }
