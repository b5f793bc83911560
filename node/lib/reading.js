'use strict'
// Calls that no rule decides about and whose answer says more than its status, what it costs or what is left of a quota:
// they are told to the engine while they are under way, as those that rules decide about are, and not in a bundle when
// they are over.

const { native } = require('./native.js')
const { beginCall } = require('./opening.js')
const { note } = require('./problems.js')

/** @typedef {InstanceType<typeof import('./exchange.js').Exchange>} Exchange */

/** How long a change of prices may go unnoticed, and the most hosts that are remembered. */
const ASK_MS = 1000
const MOST = 1024

/**
 * Whether the engine reads this host's answers, by authority or origin.
 *
 * @type {Map<string, boolean>}
 */
const known = new Map()
let asked = -Infinity
/**
 * Where the last call went, and the answer for it: most go where the one before went.
 *
 * @type {{ key: string | undefined, answer: boolean }}
 */
const latest = { key: undefined, answer: false }

/** @param {Exchange} exchange */
function reads ({ origin, authority, begun }) {
  const key = authority ?? origin
  if (begun - asked >= ASK_MS || known.size >= MOST) {
    known.clear()
    latest.key = undefined
    asked = begun
  }
  if (key === latest.key) return latest.answer
  let answer = known.get(key)
  if (answer === undefined) {
    const url = authority === undefined ? origin : origin + '//' + authority
    answer = URL.canParse(url) && native().readsAnswers(new URL(url).hostname)
    known.set(key, answer)
  }
  latest.key = key
  latest.answer = answer
  return answer
}

/**
 * Shows the engine this exchange as it happens, where it reads the answer. Throws nothing.
 *
 * @param {Exchange} exchange
 */
function observe (exchange) {
  try {
    if (!reads(exchange) || native().decides()) return
    const { origin, authority, method, path } = exchange
    const url = (authority === undefined ? origin : origin + '//' + authority) + (path === '' ? '/' : path)
    beginCall({ method, url, headers: [], replayable: false }).watch(exchange)
  } catch (error) {
    note(error)
  }
}

module.exports = { observe }
