'use strict'
// Calls that a rule may park: a request whose body was kept is handed over to the outbox.

const { note } = require('../../problems.js')
const { contentOf, forget, isWhole } = require('./body.js')
const { headersOf, only } = require('./head.js')
const { kHeld } = require('./request.js')

/** @typedef {import('../../decision.js').Hearing} Hearing */

/** Bytes of a body; a larger one is not handed over. */
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
 * Whether a request, as it is written by now, can be handed over.
 *
 * @param {any} request
 */
function isKeepable (request) {
  return isWhole(request) && request[kHeld].kept <= MOST && !headersOf(request).some((word, at) => at % 2 === 0 && word.toLowerCase() === 'upgrade')
}

/**
 * What is handed over: the request as the application wrote it.
 *
 * @param {any} request
 */
function parcelOf (request) {
  const { changed, before = [], url } = request[kHeld]
  const headers = only(headersOf(request), (name) => !OWN.has(name) && !changed?.has(name))
  return { url, headers: [...headers, ...only(before, (name) => !OWN.has(name))], body: contentOf(request) }
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

module.exports = { MOST, isKeepable, isKept, park }
