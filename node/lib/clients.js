'use strict'
// Stands for what adds to a request, credentials perhaps, below all that Farcall sees: kept answers are kept apart by it.
// Threads of a process share what is kept, and processes may: so no name is given twice, and only what is Node's own, and
// adds nothing, goes by the same name everywhere.

const http = require('node:http')
const https = require('node:https')
const { native } = require('./native.js')

/** What undici sends requests with, where nobody says with what. */
const kGlobalDispatcher = Symbol.for('undici.globalDispatcher.1')

/** The name of what comes with Node. */
const NODES = 'node'

/** What options of an agent may say without a word about who asks. */
const HARMLESS = new Set(['keepAlive', 'keepAliveMsecs', 'scheduling', 'timeout', 'noDelay', 'path', 'proxyEnv',
  'maxSockets', 'maxFreeSockets', 'maxTotalSockets'])

/** @type {WeakMap<object, string>} */
const names = new WeakMap()
/** Whether nobody had loaded undici yet, when that was last looked at. */
let untouched = false

/**
 * The name of a dispatcher or an agent.
 *
 * @param {object} client
 */
function nameOf (client) {
  let name = names.get(client)
  if (name === undefined) {
    // To load this takes longer than all the rest.
    name = require('node:crypto').randomUUID()
    names.set(client, name)
  }
  return name
}

function globalDispatcher () {
  return /** @type {any} */ (globalThis)[kGlobalDispatcher]
}

/** The dispatcher of a `fetch` that is told of none. */
function commonDispatcher () {
  if (untouched) {
    untouched = false
    // The one that is made now is Node's own.
    if (globalDispatcher() === undefined && typeof Response === 'function' && globalDispatcher()) {
      names.set(globalDispatcher(), NODES)
    }
  }
  return globalDispatcher()
}

/** Learns what comes with Node, before anybody puts something else there. */
function learn () {
  for (const { globalAgent: agent, Agent: type } of [http, https]) {
    const { options = {} } = /** @type {any} */ (agent)
    const plain = Object.getPrototypeOf(agent) === type.prototype && !Object.hasOwn(agent, 'createConnection') &&
      Object.keys(options).every((name) => HARMLESS.has(name))
    if (plain && !names.has(agent)) names.set(agent, NODES)
  }
  untouched = globalDispatcher() === undefined
  // Undici takes its time to load: only where answers are kept.
  if (untouched && native().caches()) commonDispatcher()
}

module.exports = { commonDispatcher, learn, nameOf }
