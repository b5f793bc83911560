'use strict'
// The head of a request: what it says, and what a rule changes in it, whether it is written already or not.

const { kHeld } = require('./request.js')

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
 * @param {string[]} words names and values in turn
 * @param {(name: string) => boolean} isWanted told in lower case
 */
function only (words, isWanted) {
  return words.filter((_, at) => isWanted(words[at & ~1].toLowerCase()))
}

/** What another attempt cannot repeat: an exchange that does not end with its answer, or a body in several acts. */
const SINGULAR = new Set(['expect', 'trailer', 'upgrade'])

/** @param {string[]} words names and values in turn */
function isSingular (words) {
  return words.some((word, at) => at % 2 === 0 && SINGULAR.has(word.toLowerCase()))
}

/** What goes by the body, and how it is sent. */
const FRAMING = new Set(['content-length', 'transfer-encoding'])

/** @param {string[]} words names and values in turn */
function isFramed (words) {
  return only(words, (name) => FRAMING.has(name)).length > 0
}

/**
 * @typedef {object} Changes
 * @property {string[]} [headers] names and values in turn
 * @property {string} [host]
 * @property {string} [pathPrefix]
 */

/**
 * What a request asks for where a rule changes that: a path, or all of a URL, as a proxy wants it.
 *
 * @param {string} path
 * @param {Changes} changes
 */
function targetOf (path, { host, pathPrefix = '' }) {
  if (path.charCodeAt(0) === 47 || !URL.canParse(path)) return pathPrefix + path
  const url = new URL(path)
  if (host !== undefined) {
    url.port = ''
    url.host = host
  }
  url.pathname = pathPrefix + url.pathname
  return url.href
}

/** @param {Changes} changes */
function settings ({ headers = [], host }) {
  return host === undefined ? headers : [...headers, 'host', host]
}

/**
 * Remembers what a rule changes in a request: what is sent later has its own changes made.
 *
 * @param {any} request
 * @param {Changes} changes
 */
function beforeChanges (request, changes) {
  const held = request[kHeld]
  held.path = request.path
  held.changed = new Set(settings(changes).filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase()))
  held.before = held.changed.size === 0 ? [] : only(headersOf(request), (name) => held.changed.has(name))
}

/**
 * Changes where a request goes, and headers of it. Throws where it is written, and does not lie where Node keeps it.
 *
 * @param {any} request
 * @param {Changes} changes
 */
function change (request, changes) {
  const all = settings(changes)
  const target = targetOf(request.path, changes)
  if (request._header) {
    if (all.length > 0 || target !== request.path) write(request, rewritten(request._header, all, target))
    return
  }
  for (let at = 0; at + 1 < all.length; at += 2) request.setHeader(all[at], all[at + 1])
  request.path = target
}

/**
 * A head with another target and other headers.
 *
 * @param {string} head
 * @param {string[]} headers names and values in turn
 * @param {string} [target]
 */
function rewritten (head, headers, target) {
  const lines = head.slice(0, -4).split('\r\n')
  if (target !== undefined) lines[0] = lines[0].replace(/^(\S+) \S+/, (_, method) => `${method} ${target}`)
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at].toLowerCase() + ':'
    const place = lines.findIndex((line, n) => n > 0 && line.toLowerCase().startsWith(name))
    lines.splice(place < 0 ? lines.length : place, 1, `${headers[at]}: ${headers[at + 1]}`)
  }
  return lines.join('\r\n') + '\r\n\r\n'
}

/**
 * A head for a body of so many bytes.
 *
 * @param {string} head
 * @param {number} bytes
 */
function headOf (head, bytes) {
  return rewritten(head.replace(/\r\ntransfer-encoding:[^\r]*/i, ''), ['Content-Length', String(bytes)])
}

/**
 * Whether the head of a request waits for a socket where Node keeps it.
 *
 * @param {any} request
 */
function isThere (request) {
  const first = request.outputData[0]
  return request._headerSent && typeof first?.data === 'string' && first.data.startsWith(request._header)
}

/**
 * @param {any} request
 * @param {string} head
 */
function write (request, head) {
  const old = /** @type {string} */ (request._header)
  if (request._headerSent) {
    if (!isThere(request)) throw new Error('the head of a request is not where it was')
    const first = request.outputData[0]
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

module.exports = { FRAMING, beforeChanges, change, essence, headOf, headersOf, isFramed, isSingular, isThere, only, settings, targetOf }
