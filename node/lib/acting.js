'use strict'
// fetch where rules decide: asks before each attempt, waits, refuses, answers in the vendor's place, and tries
// again.

const { setTimeout, clearTimeout } = require('node:timers')
const { race, shadow } = require('./beside.js')
const { now } = require('./clock.js')
const { Decision, isDeciding, performed } = require('./decision.js')
const { native } = require('./native.js')
const { park } = require('./parking.js')
const { note } = require('./problems.js')
const { RefusedError, wireError } = require('./refused.js')

/** @typedef {import('./native.js').NextStep} NextStep */
/** @typedef {InstanceType<typeof import('./decision.js').Decision>} Call */
/** @typedef {(this: any, ...args: any[]) => Promise<Response>} Fetch */

/** Timers take no longer waits (`timers.setTimeout`). */
const LONGEST_MS = 2 ** 31 - 1
/** Bodies up to this size are shown to the engine, which looks for the model that they ask for. */
const SHOWN = 256 * 1024

/**
 * A request, as the application gave it to `fetch`.
 *
 * @typedef {object} Asking
 * @property {string} url
 * @property {string} method
 * @property {Headers} headers
 * @property {number | undefined} bytes
 * @property {unknown} body the one of `init`, in a form that can be read again where `replayable`
 * @property {Uint8Array | undefined} content
 * @property {boolean} replayable
 * @property {AbortSignal | undefined} signal
 */

/**
 * Reads what `fetch` was called with; undefined where it would not send anything, or Farcall cannot tell.
 *
 * @param {any} input
 * @param {any} init
 * @returns {Asking | undefined}
 */
function read (input, init) {
  const request = input instanceof Request ? input : undefined
  const url = request?.url ?? String(input)
  if (!/^https?:/i.test(url) || !URL.canParse(url)) return
  const method = String(init?.method ?? request?.method ?? 'GET').toUpperCase()
  const headers = new Headers(init?.headers ?? request?.headers)
  const signal = init?.signal ?? request?.signal ?? undefined
  const asking = { url, method, headers, signal, content: undefined, bytes: undefined, replayable: false }
  const body = init?.body ?? undefined
  if (body === undefined) {
    if (request?.body) return { ...asking, body }
    return { ...asking, body, bytes: 0, replayable: true }
  }
  if (typeof body === 'string') {
    const json = body.charCodeAt(0) === 123 && body.length <= SHOWN
    const content = json ? Buffer.from(body) : undefined
    return { ...asking, body, content, bytes: content?.byteLength ?? Buffer.byteLength(body), replayable: true }
  }
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
    // The application may write into it before the next attempt.
    const copy = Buffer.from(
      body instanceof ArrayBuffer ? new Uint8Array(body) : new Uint8Array(body.buffer, body.byteOffset, body.byteLength)
    )
    const content = copy.byteLength <= SHOWN ? copy : undefined
    return { ...asking, body: copy, content, bytes: copy.byteLength, replayable: true }
  }
  if (body instanceof Blob) return { ...asking, body, bytes: body.size, replayable: true }
  if (body instanceof URLSearchParams || body instanceof FormData) return { ...asking, body, replayable: true }
  return { ...asking, body }
}

/**
 * What to call `fetch` with for an attempt.
 *
 * @param {Asking} asking
 * @param {NextStep} step
 * @param {any} input
 * @param {any} init
 * @param {AbortSignal | undefined} signal
 */
function argumentsOf (asking, step, input, init, signal) {
  const headers = new Headers(asking.headers)
  for (let at = 0; at + 1 < (step.headers?.length ?? 0); at += 2) {
    headers.set(/** @type {any} */ (step.headers)[at], /** @type {any} */ (step.headers)[at + 1])
  }
  /** @type {any} */
  const changed = { headers, signal }
  if (asking.body !== undefined) changed.body = asking.body
  if (step.model !== undefined && asking.content !== undefined) {
    const body = native().replaceModel(asking.content, step.model)
    if (body !== null) {
      // A string brings its content type along; what it is made into here must not lose it.
      if (typeof asking.body === 'string' && !headers.has('content-type')) {
        headers.set('content-type', 'text/plain;charset=UTF-8')
      }
      headers.delete('content-length')
      changed.body = body
    }
  }
  let target = input
  if (step.host !== undefined || step.pathPrefix !== undefined) {
    const url = new URL(asking.url)
    if (step.host !== undefined) {
      url.port = ''
      url.host = step.host
    }
    if (step.pathPrefix !== undefined) url.pathname = step.pathPrefix + url.pathname
    target = input instanceof Request ? new Request(url, input) : url
  }
  // What else the application's options say holds, inherited or not.
  return [target, Object.assign(Object.create(init ?? null), changed)]
}

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
 * A response that no vendor sent.
 *
 * @param {string} url
 * @param {NextStep} step
 */
function stored (url, { status, headers = [], body }) {
  const made = new Headers()
  for (let at = 0; at + 1 < headers.length; at += 2) made.append(headers[at], headers[at + 1])
  const response = new Response(body !== undefined && body.length > 0 ? body : null, { status, headers: made })
  return Object.defineProperty(response, 'url', { value: url, configurable: true })
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
      const part = value.subarray(0, left)
      left -= part.byteLength
      if (part.byteLength > 0) controller.enqueue(part)
      if (left > 0) return
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
 * @param {IArguments} args
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
  /** @type {unknown[]} */
  let given = [...args]
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
 * @param {IArguments} args
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
  // A `fetch` that somebody put in the place of undici's is not seen by the channels.
  else if (decision.exchange === undefined) decision.answer(undefined, response.status, () => [...response.headers].flat())
  return came
}

/**
 * @param {Fetch} original
 * @param {any} self
 * @param {Asking} asking
 * @param {Call} decision
 * @param {IArguments} args
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
        return stored(asking.url, step)
      case 'fail':
        throw fetchFailed(wireError(step.error))
      default:
        if (last?.response === undefined) throw last?.error
        return truncate === undefined ? last.response : cut(last.response, truncate, decision)
    }
  }
}

/**
 * A `fetch` that obeys the rules, and is `original` where there are none.
 *
 * @param {Fetch} original
 * @returns {Fetch}
 */
function obeying (original) {
  return /** @this {any} */ function fetch (/** @type {any} */ _input, /** @type {any} */ init = undefined) {
    let asking, decision
    try {
      // Inside a call that has been decided on already, the outer one's word holds.
      if (isDeciding(now()) && performed() === undefined) {
        asking = read(_input, init)
        if (asking !== undefined) {
          const { method, url, headers, bytes: body, content, replayable } = asking
          decision = Decision.begin({ method, url, headers: [...headers].flat(), body, content, replayable, parks: true })
        }
      }
    } catch (error) {
      note(error)
      decision = undefined
    }
    if (asking === undefined || decision === undefined) return Reflect.apply(original, this, arguments)
    return act(original, this, asking, decision, arguments)
  }
}

module.exports = { LONGEST_MS, SHOWN, obeying }
