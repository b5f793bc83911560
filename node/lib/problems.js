'use strict'
// Failing open: what goes wrong in a hook is counted here and in the ledger (`farcall doctor` shows it), and
// the application goes on as if nothing was.

const { native } = require('./native.js')

let count = 0
/** @type {unknown} */
let last

/**
 * Counts an exception of ours. Throws nothing.
 *
 * @param {unknown} error
 */
function note (error) {
  count += 1
  last = error
  try {
    native().countFailure()
  } catch {
    // The addon itself is the problem: the count here has to do.
  }
}

/** How many there were, and the last one in words. */
function problems () {
  return { count, last: last === undefined ? null : String(last) }
}

module.exports = { note, problems }
