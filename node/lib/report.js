'use strict'
// The read side: the same answers as `farcall report --json`.

const { native } = require('./native.js')

const UNITS = Object.freeze({ ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 })

/**
 * @param {string | number | Date} since a duration (`"90s"`, `"1h"`), milliseconds, or a moment
 * @returns {number} milliseconds before now
 */
function sinceMs (since) {
  if (since instanceof Date) return Math.max(0, Date.now() - since.getTime())
  if (typeof since === 'number' && since >= 0) return since
  const found = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*$/.exec(String(since))
  if (found) return Number(found[1]) * UNITS[/** @type {keyof typeof UNITS} */ (found[2])]
  throw new RangeError(`since: ${JSON.stringify(since)} is not a duration: write 90s, 15m, 1h or 7d`)
}

/**
 * See index.d.ts.
 *
 * @param {string} question
 * @param {{ since?: string | number | Date, filter?: string | string[] }} [options]
 * @returns {Promise<any>}
 */
async function report (question, options = {}) {
  const filters = typeof options.filter === 'string' ? [options.filter] : options.filter ?? []
  return JSON.parse(await native().report(question, sinceMs(options.since ?? '1h'), filters))
}

module.exports = { report, sinceMs }
