'use strict'
// Calls that a rule may park: what is written of a request is kept until it is over, so that it can be handed over to
// the outbox; not more than `MOST` of one, nor than there is room for (keeping.js).

const { giveBack, takeRoom } = require('../../keeping.js')
const { note } = require('../../problems.js')
const { headersOf } = require('./head.js')
const { kHeld, size } = require('./request.js')

/** @typedef {import('../../decision.js').Hearing} Hearing */

/** Bytes of a body; a larger one is not kept. */
const MOST = 1024 * 1024

/** What belongs to a connection or to the length of a message, and what Node adds: a delivery has its own. */
const OWN = new Set(['connection', 'content-length', 'date', 'expect', 'host', 'keep-alive', 'proxy-authorization',
  'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])

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
 * Keeps what is written of a request from now on.
 *
 * @param {any} held
 */
function beginToKeep (held) {
  held.kept = 0
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
  if (held.kept + bytes > MOST) forget(held)
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
 * Whether a request, as it is written by now, can be handed over.
 *
 * @param {any} request
 */
function isKeepable (request) {
  return isWhole(request) && !headersOf(request).some((word, at) => at % 2 === 0 && word.toLowerCase() === 'upgrade')
}

/**
 * Tells whether all of a request is there to be handed over, where that may come to it; to be told before a step.
 *
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 */
function tellKept (request, decision) {
  if (request[kHeld].full) decision.full()
  else if (request[kHeld].keep !== undefined) decision.keeps(isKeepable(request))
}

/**
 * Remembers what a rule changes in a request: a delivery has its own changes made.
 *
 * @param {any} request
 * @param {string[]} changes names and values in turn
 */
function beforeChanges (request, changes) {
  const held = request[kHeld]
  if (held.chunks === undefined) return
  held.changed = new Set(changes.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase()))
  held.before = held.changed.size === 0 ? [] : only(headersOf(request), (name) => held.changed.has(name))
}

/**
 * @param {string[]} words names and values in turn
 * @param {(name: string) => boolean} isWanted
 */
function only (words, isWanted) {
  return words.filter((_, at) => isWanted(words[at & ~1].toLowerCase()))
}

/**
 * What is handed over: the request as the application wrote it.
 *
 * @param {any} request
 */
function parcelOf (request) {
  const { chunks, changed, before = [], url } = request[kHeld]
  const headers = only(headersOf(request), (name) => !OWN.has(name) && !changed?.has(name))
  return { url, headers: [...headers, ...only(before, (name) => !OWN.has(name))], body: Buffer.concat(chunks) }
}

/**
 * Hands a request over; resolves once it is on the disk or cannot be. Throws nothing.
 *
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 */
async function park (request, decision) {
  try {
    const { url, headers, body } = parcelOf(request)
    forget(request[kHeld])
    await decision.park(request.method, url, headers, body)
  } catch (error) {
    note(error)
  }
}

module.exports = { beforeChanges, beginToKeep, forget, isKeepable, isKept, isWhole, park, tellKept }
