'use strict'
// Answers that are kept, and are to be forgotten.

const { native } = require('./native.js')

/**
 * See index.d.ts.
 *
 * @param {{ vendor?: string, endpoint?: string, method?: string, customer?: string }} [match]
 */
async function purgeCache (match = {}) {
  return native().purgeCache(Object.entries(match).flat().map(String))
}

module.exports = { purgeCache }
