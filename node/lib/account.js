'use strict'
// Calls that have come out, on their way to the engine: in bundles, because crossing to Rust costs more than
// the account of a call. A bundle leaves when it is full, a moment after its first call, and before anybody
// reads (flush, report, exit).

const { setTimeout } = require('node:timers')
const { now } = require('./clock.js')
const { Names } = require('./names.js')
const { native } = require('./native.js')
const { note } = require('./problems.js')

/** @typedef {InstanceType<typeof import('./exchange.js').Exchange>} Exchange */
/** @typedef {import('./scope.js').Scope} Scope */

/** Calls in a bundle, and how long the first of them waits at most. */
const FULL = 64
const WAIT_MS = 100

/** Numbers for each call; node/src/call.rs reads them in the same order. */
const FIELDS = 13

/** @type {NodeJS.Timeout | undefined} */
let timer

const numbers = new Float64Array(FULL * FIELDS)
/**
 * One for each call in `numbers`, and passed as one string: no client lets a line break into a path.
 *
 * @type {string[]}
 */
const paths = new Array(FULL).fill('')
/** How many calls were written since the last bundle left. */
let written = 0

// A table of names that is full starts again: what was written with its numbers has to cross before.
const origins = new Names(
  (/** @type {string} */ origin) => {
    const url = URL.canParse(origin) ? new URL(origin) : undefined
    const tls = url?.protocol === 'https:' || url?.protocol === 'wss:'
    return native().nameOrigin(tls, url?.hostname ?? '', Number(url?.port) || (tls ? 443 : 80))
  },
  () => {
    cross()
    native().forgetOrigins()
  }
)

/**
 * Where the last call went: most go where the one before went, and to compare is cheaper than to join the parts
 * and to look that up.
 *
 * @type {{ origin: string | undefined, authority: string | undefined, number: number }}
 */
const latest = { origin: undefined, authority: undefined, number: -1 }

/** @param {Exchange} call */
function originOf ({ origin, authority }) {
  if (authority === latest.authority && origin === latest.origin) return latest.number
  // Nothing else numbers origins, so a number that the table forgot is never the latest; nor where this throws.
  latest.origin = undefined
  latest.number = origins.numberOf(authority === undefined ? origin : origin + '//' + authority)
  latest.origin = origin
  latest.authority = authority
  return latest.number
}

const methods = new Names(
  (/** @type {string} */ method) => native().nameMethod(method),
  () => {
    cross()
    native().forgetMethods()
  }
)

const scopes = new Names(
  (/** @type {Scope} */ { customer, tags }) => native().nameScope(customer, Object.entries(tags).flat()),
  () => {
    cross()
    native().forgetScopes()
  }
)

/**
 * Takes a call that has come out. Throws nothing.
 *
 * @param {Exchange} call
 * @param {number} ended
 */
function add (call, ended) {
  try {
    write(call, ended)
  } catch (error) {
    note(error)
  }
  if (written >= FULL) send()
  else if (timer === undefined) timer = setTimeout(onTime, WAIT_MS).unref()
}

function onTime () {
  timer = undefined
  send()
}

/** Tells the engine of all that have come out. Throws nothing. */
function send () {
  try {
    cross()
  } catch (error) {
    note(error)
  }
}

/**
 * Written at once, while the call is at hand, and not when the bundle leaves: so nothing outlives its request.
 *
 * @param {Exchange} call
 * @param {number} ended
 */
function write (call, ended) {
  // These may let the bundle go.
  const origin = originOf(call)
  const method = methods.numberOf(call.method)
  const scope = call.scope === undefined ? -1 : scopes.numberOf(call.scope)
  const { times } = call
  const at = written * FIELDS
  numbers[at] = origin
  numbers[at + 1] = method
  numbers[at + 2] = scope
  numbers[at + 3] = call.begun
  numbers[at + 4] = call.headAt
  numbers[at + 5] = ended
  numbers[at + 6] = call.status
  numbers[at + 7] = call.how
  numbers[at + 8] = call.sent
  numbers[at + 9] = call.received
  numbers[at + 10] = times === undefined ? -1 : times.dns
  numbers[at + 11] = times === undefined ? -1 : times.connect
  numbers[at + 12] = times === undefined ? -1 : times.tls
  paths[written] = call.path
  written += 1
}

/** What was written crosses to Rust. */
function cross () {
  if (written === 0) return
  const count = written
  written = 0
  native().account(now(), numbers, count, (count < FULL ? paths.slice(0, count) : paths).join('\n'))
}

module.exports = { FULL, add, send }
