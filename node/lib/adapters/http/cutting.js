'use strict'
// A response that a rule breaks off.

const { ErrorType } = require('../../errors.js')
const { wireError } = require('../../refused.js')
const { kExchange, kHeld } = require('./request.js')

/**
 * What the application gets of a chunk of a response that a rule breaks off.
 *
 * @param {any} request
 * @param {Buffer} chunk
 * @param {number} left
 */
function cut (request, chunk, left) {
  // A body that ends right there is whole.
  request[kHeld].truncate = Math.max(left - chunk.length, 0)
  if (chunk.length <= left) return chunk
  const error = wireError(ErrorType.RESET)
  request[kExchange].failAs(ErrorType.RESET)
  process.nextTick(() => request.res?.destroy(error))
  return chunk.subarray(0, left)
}

module.exports = { cut }
