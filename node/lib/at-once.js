'use strict'
// Requests that are seen only when undici is about to send them: its own functions and clients, the further hops of
// a redirect under fetch, a fetch that was taken hold of before Farcall was installed. Rules can stop them, but
// neither hold them up nor answer them.

const { SHOWN } = require('./asking.js')
const { beginCall } = require('./opening.js')
const { RefusedError, wireError } = require('./refused.js')
const { isDeciding } = require('./ruling.js')

/** @typedef {InstanceType<typeof import('./exchange.js').Exchange>} Exchange */

/**
 * Names and values in turn: a list of them, or the text of the head (undici 5).
 *
 * @param {unknown} headers
 * @returns {string[]}
 */
function headersOf (headers) {
  if (Array.isArray(headers)) return headers.map(String)
  return String(headers ?? '').split('\r\n').flatMap((line) => {
    const colon = line.indexOf(':')
    return colon > 0 ? [line.slice(0, colon), line.slice(colon + 1).trim()] : []
  })
}

/**
 * Asks the rules about a request of undici's that is being created, and fails it where they say so: undici sends none
 * that has failed. Throws where the addon does.
 *
 * @param {any} request
 * @param {Exchange} exchange
 */
function askAtOnce (request, exchange) {
  // An attempt of a call that was decided on further out has a decision.
  if (exchange.decision !== undefined || !isDeciding(exchange.begun)) return
  const { body } = request
  const content = body instanceof Uint8Array ? body : undefined
  const step = beginCall({
    method: exchange.method,
    url: exchange.origin + (exchange.path === '' ? '/' : exchange.path),
    headers: headersOf(request.headers),
    body: content?.byteLength ?? request.contentLength ?? (body ? undefined : 0),
    content: content !== undefined && content.byteLength <= SHOWN ? content : undefined,
    replayable: false
  }).stepAtOnce(exchange)
  if (step.kind === 'send') return
  const error = step.kind === 'refuse' ? new RefusedError(step) : wireError(step.error)
  exchange.abandon()
  Reflect.apply(request.onError ?? request.onResponseError, request, [error])
}

module.exports = { askAtOnce }
