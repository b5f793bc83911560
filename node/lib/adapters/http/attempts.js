'use strict'
// Attempts after the first: requests of their own, made as the application's was and by the same agent, of which the
// application hears only what they come to.

const http = require('node:http')
const { isIP } = require('node:net')
const { native } = require('../../native.js')
const { contentOf, isWhole } = require('./body.js')
const { FRAMING, headersOf, isFramed, isSingular, only, settings, targetOf } = require('./head.js')
const { isKeepable } = require('./parking.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {import('../../native.js').NextStep} NextStep */

/**
 * Where to connect to instead. A proxy that gets whole URLs stays where it is.
 *
 * @param {any} request
 * @param {any} options
 * @param {string | undefined} host
 */
function elsewhere (request, options, host) {
  if (host === undefined || typeof options !== 'object' || request.path.charCodeAt(0) !== 47) return options
  const { hostname, port } = new URL(request.protocol + '//' + host)
  const name = hostname.replace(/^\[|\]$/g, '')
  return {
    ...options,
    host: name,
    hostname: name,
    port: Number(port) || (request.protocol === 'https:' ? 443 : 80),
    servername: isIP(name) ? '' : name
  }
}

/**
 * The headers of a further attempt: those of the application, in its letters, with what the step changes.
 *
 * @param {any} request
 * @param {NextStep} step
 * @param {number} bytes of its body
 */
function headersFor (request, step, bytes) {
  const { changed, before = [] } = request[kHeld]
  const written = headersOf(request)
  const words = only(written, (name) => !FRAMING.has(name) && !changed?.has(name)).concat(before)
  if (isFramed(written)) words.push('Content-Length', String(bytes))
  /** @type {Map<string, [string, string[]]>} */
  const all = new Map()
  for (let at = 0; at + 1 < words.length; at += 2) {
    const known = all.get(words[at].toLowerCase())
    if (known === undefined) all.set(words[at].toLowerCase(), [words[at], [words[at + 1]]])
    else known[1].push(words[at + 1])
  }
  const set = settings(step)
  for (let at = 0; at + 1 < set.length; at += 2) all.set(set[at].toLowerCase(), [set[at], [set[at + 1]]])
  return Object.fromEntries([...all.values()].map(([name, values]) => [name, values.length === 1 ? values[0] : values]))
}

/**
 * What a further attempt sends.
 *
 * @param {any} request
 * @param {NextStep} step
 */
function bodyFor (request, { model }) {
  const { chunks } = request[kHeld]
  const body = chunks === undefined ? Buffer.alloc(0) : contentOf(request)
  return model === undefined ? body : native().replaceModel(body, model) ?? body
}

/**
 * Makes a request as `http.request` and `https.request` do. Agents that stand on agent-base (https-proxy-agent and its
 * like) tell which of them asks by the stack: each has its name in there.
 *
 * @type {Record<string, (options: any) => any>}
 */
const by = {
  'node:http:': (options) => new /** @type {any} */ (http).ClientRequest(options),
  'node:https:': (options) => new /** @type {any} */ (http).ClientRequest(options)
}

/**
 * A request of Farcall's own, by the protocol of the application's.
 *
 * @param {any} request
 * @param {any} options
 */
function requestAs ({ protocol }, options) {
  return (by['node:' + protocol] ?? by['node:http:'])({ ...options, protocol })
}

/**
 * Makes the request of a further attempt; it is to be ended with the body. Throws where no connection can be made at all.
 *
 * @param {any} request
 * @param {NextStep} step
 * @param {Buffer} body
 */
function make (request, step, body) {
  const { options, agent, path = request.path, idle } = request[kHeld]
  const made = requestAs(request, {
    ...elsewhere(request, options, step.host),
    agent,
    path: targetOf(path, step),
    headers: headersFor(request, step, body.byteLength),
    setHost: false,
    auth: undefined,
    timeout: idle ?? options.timeout
  })
  if (step.truncate !== undefined) made[kHeld] = { truncate: step.truncate, open: false }
  return made
}

/**
 * Whether there can be another attempt of a request, as it is written by now.
 *
 * @param {any} request
 */
function isReplayable (request) {
  return isWhole(request) && !isSingular(headersOf(request))
}

/**
 * Tells what of a request is there, to be sent again or to be handed over; to be told before a step.
 *
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 */
function tellKept (request, decision) {
  const held = request[kHeld]
  if (held.parks) {
    if (held.full) decision.full()
    else decision.keeps(isKeepable(request))
  }
  // Whether one that looks as if it had no body has one is seen before it is sent again.
  const is = isReplayable(request) || (held.bare && !decision.sent)
  if (held.replays) decision.replays(is ? held.kept : undefined)
}

/**
 * Runs what is called by the events of an attempt as what the application's request calls: a connection was made for
 * whoever came first.
 *
 * @template R
 * @param {any} request
 * @param {() => R} fn
 * @returns {R}
 */
function inContext (request, fn) {
  const { context } = request[kHeld]
  return context === undefined ? fn() : context.runInAsyncScope(fn)
}

/**
 * What of an answer did not arrive yet is not waited for. Counted at once: the call may be over before the connection is.
 *
 * @param {any} request
 */
function leaveBehind (request) {
  const held = request[kHeld]
  const { leaving } = held
  held.leaving = undefined
  if (leaving === undefined) return
  if (leaving.complete) leaving.resume()
  else {
    leaving.req[kExchange]?.abandon()
    leaving.destroy()
  }
}

module.exports = { bodyFor, elsewhere, inContext, isReplayable, leaveBehind, make, requestAs, tellKept }
