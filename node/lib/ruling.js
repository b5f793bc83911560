'use strict'
// Whether there are rules: where none decides anything, nobody is asked before a call.

const { native } = require('./native.js')

/** How long a reload of the rules may go unnoticed: asking costs more than looking at the clock. */
const ASK_MS = 10

let asked = -Infinity
let decides = false
let caches = false
let parks = false

/**
 * Whether rules decide anything. Throws where the addon does.
 *
 * @param {number} at what the clock says
 */
function isDeciding (at) {
  if (at - asked >= ASK_MS) {
    decides = native().decides()
    caches = decides && native().caches()
    parks = decides && native().parks()
    asked = at
  }
  return decides
}

/** Whether rules keep answers, as of when `isDeciding` was asked. */
function isCaching () {
  return caches
}

/** Whether rules park calls, as of when `isDeciding` was asked. */
function isParking () {
  return parks
}

module.exports = { isCaching, isDeciding, isParking }
