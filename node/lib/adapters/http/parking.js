'use strict'
// Calls that a rule may park: what was written of a request is kept until it is over, so that it can be handed over to
// the outbox. It is as much as the application writes before it comes back to the event loop, and not more than `MOST`.

const { note } = require('../../problems.js')
const { headersOf } = require('./head.js')
const { kHeld } = require('./request.js')

/** @typedef {import('../../decision.js').Hearing} Hearing */

/** Bytes of a body; a larger one is not kept. */
const MOST = 1024 * 1024

/** What belongs to a connection or to the length of a message, and what Node adds: a delivery has its own. */
const OWN = new Set(['connection', 'content-length', 'date', 'expect', 'host', 'keep-alive', 'proxy-connection', 'te', 'trailer',
  'transfer-encoding', 'upgrade'])

/** Asks for something that nobody would get later. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/**
 * Whether it makes sense to keep what is written of a request.
 *
 * @param {any} request
 */
function isKept (request) {
  return !SAFE.has(request.method)
}

/**
 * Keeps more of a body.
 *
 * @param {any} held
 * @param {unknown} chunk
 * @param {unknown} encoding
 */
function keep (held, chunk, encoding) {
  if (held.chunks === undefined) return
  // The application may write into its own later on.
  const bytes = typeof chunk === 'string'
    ? Buffer.from(chunk, typeof encoding === 'string' ? /** @type {BufferEncoding} */ (encoding) : 'utf8')
    : Buffer.from(/** @type {Uint8Array} */ (chunk))
  held.kept += bytes.length
  if (held.kept > MOST) held.chunks = undefined
  else held.chunks.push(bytes)
}

/**
 * Whether all of a body was written: some clients end a request only once a socket took what they wrote.
 *
 * @param {any} request
 */
function isWhole (request) {
  const { chunks, kept } = request[kHeld]
  return chunks !== undefined && (request.finished || kept === Number(request.getHeader('content-length') ?? NaN))
}

/**
 * What is to be handed over, as the application wrote it, if all of it is there.
 *
 * @param {any} request
 * @param {string} url
 * @returns {{ url: string, headers: string[], body: Buffer } | undefined}
 */
function parcelOf (request, url) {
  const { chunks } = request[kHeld]
  const isComplete = isWhole(request)
  request[kHeld].chunks = undefined
  if (!isComplete) return
  const words = headersOf(request)
  if (words.some((word, at) => at % 2 === 0 && word.toLowerCase() === 'upgrade')) return
  const headers = words.filter((_, at) => !OWN.has(words[at & ~1].toLowerCase()))
  return { url, headers, body: Buffer.concat(chunks) }
}

/**
 * Hands a request over; resolves once it is on the disk or cannot be. Throws nothing.
 *
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 */
async function park (request, decision) {
  try {
    const { url, headers, body } = request[kHeld].parcel
    await decision.park(request.method, url, headers, body)
  } catch (error) {
    note(error)
  }
}

module.exports = { isKept, isWhole, keep, parcelOf, park }
