'use strict'

// Taken once, so that a test's fake clock does not reach the ledger.
const { hrtime } = process

/** Milliseconds of the monotonic clock. `performance.now` reads the same one, with more around it. */
function now () {
  const time = hrtime()
  return time[0] * 1e3 + time[1] * 1e-6
}

module.exports = { now }
