'use strict'
// Whether there are rules: where none decides anything, nobody is asked before a call.

const { native } = require('./native.js')

/** How long a reload of the rules may go unnoticed: asking costs more than looking at the clock. */
const ASK_MS = 10

let asked = -Infinity
let decides = false
let caches = false
let parks = false
let replayed = 0

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
    replayed = decides ? native().replayBytes() : 0
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

/** How many bytes of a body rules may want kept, as of when `isDeciding` was asked; 0 for none. */
function replayBytes () {
  return replayed
}

module.exports = { isCaching, isDeciding, isParking, replayBytes }
