'use strict'
// How a call for which rules decide begins: what is known of its request crosses to the engine.

const { Decision } = require('./decision.js')
const { native } = require('./native.js')
const { currentScope } = require('./scope.js')

/**
 * What is known of a request before it is sent.
 *
 * @typedef {object} Asked
 * @property {string} method
 * @property {string} url
 * @property {string[]} headers names and values in turn
 * @property {number} [body] bytes
 * @property {Uint8Array} [content]
 * @property {boolean} replayable
 * @property {boolean} [parks] whether it can be handed over to the outbox
 * @property {boolean} [hedges] whether a second attempt can be made beside a slow one
 * @property {boolean} [keeps] whether it can be although it cannot be sent again
 * @property {number} [detour] by which it goes (detours.js); 0 for none
 */

/**
 * The same for one all of whose headers are known, and whose answer can be kept.
 *
 * @typedef {object} Opened
 * @property {string} method
 * @property {string} url with its query
 * @property {string} words names and values of the headers, a line each
 * @property {number | undefined} body
 * @property {Uint8Array | undefined} content
 * @property {boolean} replayable
 * @property {number} kind of client; answers are kept apart by it, and by `client`
 * @property {string} client
 * @property {number} [patience] how many milliseconds the client waits for an answer at most; 0 where it does not say
 * @property {boolean} [parks] whether it can be handed over to the outbox
 * @property {boolean} [hedges] whether a second attempt can be made beside a slow one
 * @property {number} [detour] by which it goes (detours.js); 0 for none
 */

/** As in node/src/kept.rs. */
const REPLAYABLE = 1
const BATCH = 2
const PARKS = 4
const HEDGES = 8
/** Where the number of a detour begins. */
const DETOUR = 4

/**
 * Begins a call in the running code's scope, or another.
 *
 * @param {Asked} request
 * @param {import('./scope.js').Scope | undefined} [scope]
 */
function beginCall (request, scope = currentScope()) {
  return new Decision(native().begin({
    ...request,
    customer: scope?.customer,
    tags: scope === undefined ? [] : Object.entries(scope.tags).flat(),
    batch: scope?.priority === 'batch'
  }))
}

/**
 * Begins a call whose answer may be kept, in the running code's scope or another: the answer, where there is one, as
 * node/src/kept.rs writes it.
 *
 * @param {Opened} request
 * @param {import('./scope.js').Scope | undefined} [scope]
 * @returns {InstanceType<typeof Decision> | string}
 */
function openCall ({ method, url, words, body, content, replayable, kind, client, patience = 0, parks, hedges, detour = 0 }, scope = currentScope()) {
  const batch = scope?.priority === 'batch'
  const flags = (replayable ? REPLAYABLE : 0) | (batch ? BATCH : 0) | (parks ? PARKS : 0) | (hedges ? HEDGES : 0) | detour << DETOUR
  let known
  if (body !== 0 || scope !== undefined) {
    const tags = scope === undefined ? undefined : Object.entries(scope.tags)
    if (body !== 0 || tags?.length) known = { body, content, tags: tags?.flat() }
  }
  const begun = native().open(method, url, words, flags, kind, client, patience, scope?.customer, known)
  return typeof begun === 'string' ? begun : new Decision(begun)
}

module.exports = { beginCall, openCall }
