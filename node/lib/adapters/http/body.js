'use strict'
// What is written of a request is kept until it is over, where it may be needed once more: for another attempt, or for
// the outbox. Not more than a rule asks for of one, nor than there is room for (keeping.js).

const { giveBack, takeRoom } = require('../../keeping.js')
const { kHeld, size } = require('./request.js')

/**
 * Keeps what is written of a request from now on.
 *
 * @param {any} held
 * @param {number} most bytes; a larger body is not kept
 */
function beginToKeep (held, most) {
  held.kept = 0
  held.most = most
  held.chunks = []
  held.keep = keep
}

/**
 * Keeps nothing of a request any more.
 *
 * @param {any} held
 */
function forget (held) {
  if (held.chunks === undefined) return
  held.chunks = undefined
  giveBack(held.kept)
}

/**
 * Keeps so much at most from now on; 0 for nothing.
 *
 * @param {any} held
 * @param {number} most
 */
function keepAtMost (held, most) {
  held.most = most
  if (most === 0) held.keep = undefined
  if (most === 0 || held.kept > most) forget(held)
}

/**
 * Keeps more of a body.
 *
 * @param {any} held
 * @param {unknown} chunk
 * @param {unknown} encoding
 */
function keep (held, chunk, encoding) {
  // A function may stand in the place of the last chunk.
  if (held.chunks === undefined || (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk))) return
  const bytes = size(chunk, encoding)
  if (held.kept + bytes > held.most) forget(held)
  else if (takeRoom(bytes)) {
    held.kept += bytes
    // The application may write into its own later on.
    held.chunks.push(typeof chunk === 'string'
      ? Buffer.from(chunk, typeof encoding === 'string' ? /** @type {BufferEncoding} */ (encoding) : 'utf8')
      : Buffer.from(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)))
  } else {
    forget(held)
    held.full = true
  }
}

/**
 * Whether all of a body was written, in our sight: some clients end a request only once a socket took what they wrote.
 *
 * @param {any} request
 */
function isWhole (request) {
  const { chunks, kept, ended } = request[kHeld]
  return chunks !== undefined && (ended || kept === Number(request.getHeader('content-length') ?? NaN))
}

/**
 * All of a body, once it is whole.
 *
 * @param {any} request
 * @returns {Buffer}
 */
function contentOf (request) {
  const { chunks } = request[kHeld]
  return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)
}

/**
 * Puts another body in the place of one that is written whole, and waits for a socket under this head.
 *
 * @param {any} request
 * @param {string} head
 * @param {Buffer} body
 */
function putBody (request, head, body) {
  const callbacks = request.outputData.map((/** @type {any} */ { callback }) => callback).filter(Boolean)
  const done = (/** @type {any} */ error) => { for (const callback of callbacks) callback(error) }
  request._header = head
  request.outputData = [
    { data: head, encoding: 'latin1', callback: null },
    { data: body, encoding: null, callback: callbacks.length > 0 ? done : null }
  ]
  request.outputSize = head.length + body.length
}

module.exports = { beginToKeep, contentOf, forget, isWhole, keepAtMost, putBody }
