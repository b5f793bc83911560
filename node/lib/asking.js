'use strict'
// What `fetch` was called with, read once, and written again for each attempt.

const { commonDispatcher, nameOf } = require('./clients.js')
const { detourOfDispatcher } = require('./detours.js')
const { takeRoom } = require('./keeping.js')
const { native } = require('./native.js')
const { isParking } = require('./ruling.js')

/** @typedef {import('./native.js').NextStep} NextStep */

/** Bodies up to this size are copied, as the application may write into its own: what the outbox takes. */
const COPIED = 16 * 1024 * 1024

/** Bodies up to this size are shown to the engine, which looks for the model that they ask for. */
const SHOWN = 256 * 1024

/**
 * A request, as the application gave it to `fetch`.
 *
 * @typedef {object} Asking
 * @property {string} url without a fragment
 * @property {string} method
 * @property {any} headers as they were given, in a form that can be read again
 * @property {string} words names and values of the headers, a line each
 * @property {number | undefined} bytes
 * @property {unknown} body the one of `init`, in a form that can be read again where `replayable`
 * @property {Uint8Array | undefined} content
 * @property {boolean} replayable
 * @property {AbortSignal | undefined} signal
 * @property {string | undefined} client what answers are kept apart by; undefined where none may be kept
 * @property {number} room that was asked for its body (keeping.js)
 * @property {boolean} full whether there was none
 * @property {number} detour by which it goes; looked for where rules park calls
 */

/** Many ask for the same again and again. */
const latest = { given: '', url: '' }

/**
 * @param {string} given
 * @returns {string | undefined} undefined where `fetch` would not send anything
 */
function normal (given) {
  if (given === latest.given) return latest.url
  if (!/^https?:/i.test(given) || !URL.canParse(given)) return
  const { href, username, password } = new URL(given)
  if (username !== '' || password !== '') return
  const hash = href.indexOf('#')
  latest.url = hash < 0 ? href : href.slice(0, hash)
  latest.given = given
  return latest.url
}

const NAME = /^[\w!#$%&'*+.^`|~-]+$/
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/**
 * Names and values of headers, a line each; undefined where they are not simply an object of strings.
 *
 * @param {any} given
 */
function simpleWords (given) {
  const prototype = Object.getPrototypeOf(given)
  if (prototype !== Object.prototype && prototype !== null) return
  let words = ''
  for (const name of Object.keys(given)) {
    const value = given[name]
    if (typeof value !== 'string' || !VALUE.test(value) || !NAME.test(name)) return
    words += words === '' ? name + '\n' + value : '\n' + name + '\n' + value
  }
  return words
}

/**
 * @param {any} given
 * @returns {Headers | undefined} undefined where they are none: that is fetch's to say
 */
function headersOf (given) {
  try {
    return new Headers(given)
  } catch {}
}

/**
 * Stands for the dispatcher of a request: it may add headers, and credentials among them, that nobody here sees.
 *
 * @param {any} dispatcher
 */
function clientOf (dispatcher) {
  return dispatcher === undefined || dispatcher === null ? '' : nameOf(dispatcher)
}

/** What `cache` among the options of a request says, in the words of `Cache-Control` (Fetch, section 4.6). */
const CACHE_MODES = new Map([
  ['no-store', 'no-store'],
  ['reload', 'no-cache'],
  ['no-cache', 'no-cache'],
  ['force-cache', 'max-stale'],
  ['only-if-cached', 'only-if-cached, max-stale']
])

/**
 * Reads what `fetch` was called with; undefined where it would not send anything, or Farcall cannot tell.
 *
 * @param {any} input
 * @param {any} init
 * @returns {Asking | undefined}
 */
function read (input, init) {
  const common = commonDispatcher()
  const request = input instanceof Request ? /** @type {any} */ (input) : undefined
  const url = normal(request?.url ?? String(input))
  if (url === undefined) return
  const method = init?.method === undefined && request === undefined
    ? 'GET'
    : String(init?.method ?? request?.method ?? 'GET').toUpperCase()
  let headers = init?.headers ?? request?.headers
  let words = headers === undefined ? '' : simpleWords(headers)
  if (words === undefined) {
    headers = headersOf(headers)
    if (headers === undefined) return
    words = [...headers].flat().join('\n')
  }
  const mode = CACHE_MODES.get(init?.cache ?? request?.cache)
  if (mode !== undefined) words += (words === '' ? '' : '\n') + 'cache-control\n' + mode
  // One that the options take off a Request is none.
  const signal = (init?.signal === undefined ? request?.signal : init.signal) ?? undefined
  const dispatcher = init?.dispatcher ?? (request && dispatcherOf(request)) ?? common
  // What is to be checked against a digest, undici has to fetch.
  const client = init?.integrity || request?.integrity ? undefined : clientOf(dispatcher)
  const detour = isParking() ? detourOfDispatcher(dispatcher, url) : 0
  const asking = { url, method, headers, words, signal, client, detour, content: undefined, bytes: undefined, replayable: false, room: 0, full: false }
  const body = init?.body ?? undefined
  if (body === undefined) {
    if (request?.body) return { ...asking, body }
    return Object.assign(asking, { body, bytes: 0, replayable: true })
  }
  if (typeof body === 'string') {
    const json = body.charCodeAt(0) === 123 && body.length <= SHOWN
    const content = json ? Buffer.from(body) : undefined
    return { ...asking, body, content, bytes: content?.byteLength ?? Buffer.byteLength(body), replayable: true }
  }
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
    const given = body instanceof ArrayBuffer ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    const bytes = given.byteLength
    const full = bytes <= COPIED && !takeRoom(bytes)
    if (full || bytes > COPIED) return { ...asking, body, content: bytes <= SHOWN ? given : undefined, bytes, full }
    // The application may write into it before the next attempt.
    const copy = Buffer.from(given)
    return { ...asking, body: copy, content: bytes <= SHOWN ? copy : undefined, bytes, replayable: true, room: bytes }
  }
  if (body instanceof Blob) return { ...asking, body, bytes: body.size, replayable: true }
  if (body instanceof URLSearchParams || body instanceof FormData) return { ...asking, body, replayable: true }
  return { ...asking, body }
}

/**
 * What a Request is to be sent with; later versions of undici do not show it.
 *
 * @param {any} request
 */
function dispatcherOf (request) {
  const symbol = Object.getOwnPropertySymbols(request).find(({ description }) => description === 'dispatcher')
  return symbol && request[symbol]
}

/**
 * What to call `fetch` with for an attempt.
 *
 * @param {Asking} asking
 * @param {NextStep} step
 * @param {any} input
 * @param {any} init
 * @param {AbortSignal | undefined} signal
 */
function argumentsOf (asking, step, input, init, signal) {
  const headers = new Headers(asking.headers)
  for (let at = 0; at + 1 < (step.headers?.length ?? 0); at += 2) {
    headers.set(/** @type {any} */ (step.headers)[at], /** @type {any} */ (step.headers)[at + 1])
  }
  /** @type {any} */
  const changed = { headers, signal: signal ?? init?.signal }
  // To a request with conditions fetch adds `Cache-Control: no-cache` where nothing is said of its own cache, which it
  // does not have: then caches on the way would not answer.
  if (step.conditional && (init?.cache ?? 'default') === 'default') changed.cache = 'force-cache'
  if (asking.body !== undefined) changed.body = asking.body
  if (step.model !== undefined && asking.content !== undefined) {
    const body = native().replaceModel(asking.content, step.model)
    if (body !== null) {
      // A string brings its content type along; what it is made into here must not lose it.
      if (typeof asking.body === 'string' && !headers.has('content-type')) {
        headers.set('content-type', 'text/plain;charset=UTF-8')
      }
      headers.delete('content-length')
      changed.body = body
    }
  }
  let target = input
  if (step.host !== undefined || step.pathPrefix !== undefined) {
    const url = new URL(asking.url)
    if (step.host !== undefined) {
      url.port = ''
      url.host = step.host
    }
    if (step.pathPrefix !== undefined) url.pathname = step.pathPrefix + url.pathname
    target = input instanceof Request ? new Request(url, input) : url
  }
  // Defined, because what they inherit from may be frozen.
  return [target, Object.defineProperties(optionsOf(init), Object.getOwnPropertyDescriptors(changed))]
}

/** What a Request says of how to fetch it, beside its URL, its headers and its signal. */
const OPTIONS = ['method', 'body', 'duplex', 'cache', 'credentials', 'integrity', 'keepalive', 'mode', 'redirect', 'referrer',
  'referrerPolicy']

/**
 * What else the application's options say holds, inherited or not.
 *
 * @param {any} init
 */
function optionsOf (init) {
  if (!(init instanceof Request)) return Object.create(init ?? null)
  // A Request among them tells of itself only when it is asked in person.
  /** @type {any} */
  const options = {}
  for (const name of OPTIONS) {
    const value = /** @type {any} */ (init)[name]
    if (value !== undefined) options[name] = value
  }
  const dispatcher = dispatcherOf(init)
  if (dispatcher !== undefined) options.dispatcher = dispatcher
  return options
}

module.exports = { SHOWN, argumentsOf, read }
