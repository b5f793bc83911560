'use strict'
// Bytes of requests' bodies that are kept for another attempt or for the outbox: bounded for all of a thread together,
// because as many may be under way as the application likes.

const { native } = require('./native.js')
const { note } = require('./problems.js')

/** What one thread keeps at a time. */
const MOST = 64 * 1024 * 1024

let kept = 0

/**
 * Asks for room for so many bytes. Where there is none, they are not to be kept, and that counts. Throws nothing.
 *
 * @param {number} bytes
 * @returns {boolean}
 */
function takeRoom (bytes) {
  if (kept + bytes <= MOST) {
    kept += bytes
    return true
  }
  try {
    native().countUnkept()
  } catch (error) {
    note(error)
  }
  return false
}

/** @param {number} bytes that were given room, and are kept no more */
function giveBack (bytes) {
  kept -= bytes
}

module.exports = { giveBack, takeRoom }
