'use strict'
// Calls that must not be lost: kept on the disk once `put` resolves, and delivered until the vendor took them.

const { setTimeout: sleep } = require('node:timers/promises')
const { native } = require('./native.js')
const { currentScope } = require('./scope.js')

/** Between two looks whether a call was delivered. */
const LOOK_MS = 25
const LONGEST_LOOK_MS = 1_000

/** The code of an error that says nothing about a call: the outbox cannot be asked now, and may be later. */
const UNAVAILABLE = 'ERR_FARCALL_OUTBOX_UNAVAILABLE'

/** What `put` may be told; anything else is a mistake. */
const KNOWN = new Set([
  'method', 'url', 'headers', 'body', 'json', 'customer', 'orderKey', 'idempotencyKey', 'idempotencyHeader', 'maxAgeMs',
  'maxAttempts', 'timeoutMs', 'delayMs'
])

/**
 * A header's value as the addon takes it: a text of which each character is a byte, or where to find it.
 *
 * @param {import('../index.js').OutboxHeader} value
 */
function header (value) {
  return typeof value === 'object' && value !== null ? { ...value } : String(value)
}

/**
 * What a value is, for people.
 *
 * @param {unknown} value
 */
const kind = (value) => value === null ? 'null' : typeof value

/** @param {unknown} body */
function bytes (body) {
  if (body === undefined || body === null) return Buffer.alloc(0)
  if (typeof body === 'string') return Buffer.from(body)
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  throw new TypeError(`body is a string or bytes, not ${kind(body)}; what is sent as JSON is given as json`)
}

/**
 * What the addon answers; where the outbox cannot be asked now, the error says so by its code.
 *
 * @template T
 * @param {Promise<T>} asked
 * @returns {Promise<T>}
 */
async function answered (asked) {
  try {
    return await asked
  } catch (/** @type {any} */ error) {
    if (error.code === 'QueueFull') error.code = UNAVAILABLE
    throw error
  }
}

/**
 * A number that an option has; none where it is left out. One that cannot be meant is not taken for the default.
 *
 * @param {string} option
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 */
function number (option, value, least, most) {
  if (value === undefined) return undefined
  if (typeof value !== 'number') throw new TypeError(`${option} is a number, not ${kind(value)}`)
  if (!(value >= least && value <= most)) throw new RangeError(`${option} is ${least} at least, and ${most} at most, not ${value}`)
  return Math.round(value)
}

/**
 * @param {{ [option: string]: any }} call
 * @param {string} option a time in milliseconds
 * @param {number} [least]
 */
const millis = (call, option, least = 0) => number(option, call[option], least, Number.MAX_SAFE_INTEGER)

/**
 * See index.d.ts.
 *
 * @param {import('../index.js').OutboxCall} call
 * @returns {Promise<import('../index.js').OutboxReceipt>}
 */
async function put (call) {
  // Python's takes method and URL in turn: whoever comes from there is told what this one takes.
  if (typeof call !== 'object' || call === null) {
    throw new TypeError('outbox.put takes one object: outbox.put({ method, url, ... })')
  }
  for (const name of Object.keys(call)) if (!KNOWN.has(name)) throw new TypeError(`outbox.put knows no \`${name}\``)
  const { json } = call
  /** @type {[string, ReturnType<typeof header>][]} */
  const headers = Object.entries(call.headers ?? {}).map(([name, value]) => [name, header(value)])
  if (json !== undefined && call.body !== undefined) throw new TypeError('a call has a body or json, not both')
  if (json !== undefined && !headers.some(([name]) => name.toLowerCase() === 'content-type')) {
    headers.push(['content-type', 'application/json'])
  }
  const parcel = JSON.stringify({
    method: call.method,
    url: String(call.url),
    headers,
    customer: call.customer ?? currentScope()?.customer,
    order_key: call.orderKey,
    idempotency_key: call.idempotencyKey,
    idempotency_header: call.idempotencyHeader,
    max_age_ms: millis(call, 'maxAgeMs', 1),
    max_attempts: number('maxAttempts', call.maxAttempts, 1, 0xffff_ffff),
    timeout_ms: millis(call, 'timeoutMs'),
    delay_ms: millis(call, 'delayMs')
  })
  const receipt = await answered(native().outboxPut(parcel, bytes(json === undefined ? call.body : JSON.stringify(json))))
  const { id, idempotency_key: idempotencyKey } = JSON.parse(receipt)
  return receiptOf(id, idempotencyKey)
}

/**
 * @param {number} id
 * @param {string} idempotencyKey
 * @returns {import('../index.js').OutboxReceipt}
 */
function receiptOf (id, idempotencyKey) {
  const receipt = { id, idempotencyKey }
  // Not shown, nor copied along.
  return Object.defineProperty(/** @type {any} */ (receipt), 'done', { value: (/** @type {any} */ options) => done(id, options) })
}

/**
 * See index.d.ts.
 *
 * @param {{ headers: { get: (name: string) => string | null } }} response
 * @returns {Promise<import('../index.js').OutboxReceipt | null>}
 */
async function parked (response) {
  const found = /^parked; id=(-?\d+)$/.exec(response.headers.get('farcall-outbox') ?? '')
  if (found === null) return null
  const id = Number(found[1])
  return receiptOf(id, (await item(id)).idempotency_key)
}

/**
 * What the vendor answered, once it took the call.
 *
 * @param {number} id
 * @param {{ timeoutMs?: number }} [options]
 * @returns {Promise<import('../index.js').OutboxAnswer>}
 */
async function done (id, { timeoutMs = Infinity } = {}) {
  const found = await until(timeoutMs, async () => {
    const { state, error } = await item(id)
    if (state === 'dead') throw new Error(`call ${id} of the outbox was given up: ${error}`)
    if (state !== 'delivered') return null
    const found = await answer(id)
    if (found === null) throw new Error(`call ${id} of the outbox was delivered, and its answer could not be kept`)
    return found
  })
  if (found.value) return found.value
  throw new Error(`call ${id} of the outbox is not delivered yet`, { cause: found.error })
}

/**
 * See index.d.ts.
 *
 * @param {number} id
 * @returns {Promise<import('../index.js').OutboxItem>}
 */
async function item (id) {
  return JSON.parse(await answered(native().outboxItem(id)))
}

/**
 * See index.d.ts.
 *
 * @param {number} id
 * @param {{ timeoutMs?: number }} [options]
 * @returns {Promise<import('../index.js').OutboxItem>}
 */
async function wait (id, { timeoutMs = 60_000 } = {}) {
  /** @type {import('../index.js').OutboxItem | undefined} */
  let last
  const found = await until(timeoutMs, async () => {
    last = await item(id)
    return last.state === 'pending' ? null : last
  })
  if (found.error) throw found.error
  return /** @type {import('../index.js').OutboxItem} */ (found.value ?? last)
}

/**
 * Looks until there is something or the time is up; then with the error of the last look, where the outbox could not be
 * asked.
 *
 * @template T
 * @param {number} timeoutMs
 * @param {() => Promise<T | null>} look
 * @returns {Promise<{ value: T | null, error?: unknown }>}
 */
async function until (timeoutMs, look) {
  // A time that was computed may be over already, or have no end.
  number('timeoutMs', timeoutMs, -Infinity, Infinity)
  const end = performance.now() + timeoutMs
  // Longer and longer: a call may wait for days.
  for (let pause = LOOK_MS; ; pause = Math.min(pause * 1.5, LONGEST_LOOK_MS)) {
    /** @type {{ value: T | null, error?: unknown }} */
    let found
    try {
      found = { value: await look() }
    } catch (/** @type {any} */ error) {
      if (error.code !== UNAVAILABLE) throw error
      found = { value: null, error }
    }
    const left = end - performance.now()
    if (found.value !== null || left <= 0) return found
    await sleep(Math.min(pause, left))
  }
}

/**
 * See index.d.ts.
 *
 * @param {number} id
 * @returns {Promise<import('../index.js').OutboxAnswer | null>}
 */
async function answer (id) {
  const found = await answered(native().outboxAnswer(id))
  return found ? { ...JSON.parse(found.head), body: found.body } : null
}

/**
 * See index.d.ts.
 *
 * @param {string} name
 * @param {{ prefix?: string, suffix?: string }} [around]
 * @returns {import('../index.js').OutboxHeader}
 */
function callback (name, { prefix, suffix } = {}) {
  return { callback: name, prefix, suffix }
}

/**
 * See index.d.ts.
 *
 * @param {string} name
 * @param {() => string | Promise<string>} ask
 */
function credential (name, ask) {
  if (typeof name !== 'string') throw new TypeError(`the name of a credential is a string, not ${kind(name)}`)
  if (typeof ask !== 'function') throw new TypeError(`the credential ${name} comes from a function, not from ${kind(ask)}`)
  native().outboxCredential(name, (number) => { give(number, ask) })
}

/**
 * Answers a delivery. Of an error its class alone is told: its message may hold what is not to be kept.
 *
 * @param {number} number
 * @param {() => string | Promise<string>} ask
 */
async function give (number, ask) {
  try {
    const value = await ask()
    if (typeof value === 'string') native().outboxGive(number, value, undefined)
    else native().outboxGive(number, undefined, ` (it gave ${kind(value)}, and no string)`)
  } catch (/** @type {any} */ error) {
    native().outboxGive(number, undefined, ` (${error instanceof Error ? error.constructor.name : typeof error})`)
  }
}

module.exports = { outbox: Object.freeze({ answer, callback, credential, item, parked, put, wait }) }
