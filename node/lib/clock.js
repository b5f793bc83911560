'use strict'

/** Milliseconds of the monotonic clock; taken once, so that a test's fake clock does not reach the ledger. */
const now = performance.now.bind(performance)

module.exports = { now }
