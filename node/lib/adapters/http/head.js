'use strict'
// The head of a request: what it says, and what a rule changes in it, whether it is written already or not.

/** What asks whether what is kept is still good. */
const CONDITIONS = new Set(['if-none-match', 'if-modified-since'])

/**
 * Names and values in turn.
 *
 * @param {any} request
 * @returns {string[]}
 */
function headersOf (request) {
  if (request._header) {
    return request._header.split('\r\n').slice(1).flatMap((/** @type {string} */ line) => {
      const colon = line.indexOf(':')
      return colon > 0 ? [line.slice(0, colon), line.slice(colon + 1).trim()] : []
    })
  }
  return Object.entries(request.getHeaders()).map(([name, value]) => [name, String(value)]).flat()
}

/**
 * Changes where a request goes, and headers of it: names and values in turn.
 *
 * @param {any} request
 * @param {{ headers: string[], host: string | undefined, pathPrefix: string | undefined }} changes
 */
function change (request, { headers, host, pathPrefix }) {
  const all = host === undefined ? headers : [...headers, 'host', host]
  if (request._header) {
    if (all.length > 0 || pathPrefix !== undefined) rewrite(request, all, pathPrefix ?? '')
    return
  }
  for (let at = 0; at + 1 < all.length; at += 2) request.setHeader(all[at], all[at + 1])
  if (pathPrefix !== undefined) request.path = pathPrefix + request.path
}

/**
 * The same once the head is written and waits for a socket. Throws where it does not lie where Node keeps it.
 *
 * @param {any} request
 * @param {string[]} headers
 * @param {string} prefix
 */
function rewrite (request, headers, prefix) {
  const old = /** @type {string} */ (request._header)
  const lines = old.slice(0, -4).split('\r\n')
  lines[0] = lines[0].replace(/^(\S+ )(?=\/)/, (method) => method + prefix)
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at].toLowerCase() + ':'
    const place = lines.findIndex((line, n) => n > 0 && line.toLowerCase().startsWith(name))
    lines.splice(place < 0 ? lines.length : place, 1, `${headers[at]}: ${headers[at + 1]}`)
  }
  const head = lines.join('\r\n') + '\r\n\r\n'
  if (request._headerSent) {
    const first = request.outputData[0]
    if (typeof first?.data !== 'string' || !first.data.startsWith(old)) throw new Error('the head of a request is not where it was')
    first.data = head + first.data.slice(old.length)
    request.outputSize += head.length - old.length
  }
  request._header = head
}

/** What Node adds when it writes a head, and what tells nobody who asks. */
const ADDED = new Set(['connection', 'content-length', 'date', 'host', 'keep-alive'])

/**
 * What of a head tells who asks for what, whether it is written or not.
 *
 * @param {string[]} headers names and values in turn
 */
function essence (headers) {
  const lines = []
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at].toLowerCase()
    if (!ADDED.has(name) && !CONDITIONS.has(name)) lines.push(`${name}: ${headers[at + 1]}`)
  }
  return lines.sort().join('\n')
}

module.exports = { CONDITIONS, change, essence, headersOf }
