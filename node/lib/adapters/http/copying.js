'use strict'
// Shadow copies: beside a request of the application's one of Farcall's own, by the same agent. Nobody gets its answer.

const { clearTimeout, setTimeout } = require('node:timers')
const { READ } = require('../../beside.js')
const { timeoutError } = require('../../refused.js')
const { inContext, make } = require('./attempts.js')
const { headersOf, isSingular } = require('./head.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {InstanceType<typeof import('../../decision.js').Decision>} Call */
/** @typedef {import('../../native.js').NextStep} NextStep */

/** One in so many of an agent's connections may be a copy's, where the agent bounds them: the application waits for no copy. */
const SHARE = 4

/** @type {WeakMap<object, number>} how many copies are under way, by their agent */
const underWay = new WeakMap()

/**
 * Sends a copy of a request that goes out, where there is room for one, once the application has ended it: until then
 * it may set headers, and one with a body has no copy.
 *
 * @param {any} request
 */
function copy (request) {
  const held = request[kHeld]
  // One that has a connection already is made by somebody who knows how.
  if (held.agent === undefined || typeof held.options !== 'object') return
  if (request.finished) begin(request)
  else {
    held.whole = () => {
      if (!request.finished) return
      held.whole = undefined
      begin(request)
    }
  }
}

/** @param {any} request */
function begin (request) {
  const { agent, decision } = request[kHeld]
  if (request.destroyed || request[kExchange].sent > 0 || !hasRoom(agent) || isSingular(headersOf(request))) return
  const told = decision.shadow()
  if (told !== undefined) measure(request, agent, told.decision, told.step)
}

/** @param {any} agent */
function hasRoom (agent) {
  const { maxSockets = Infinity, maxTotalSockets = Infinity } = agent
  return (underWay.get(agent) ?? 0) < Math.floor(Math.min(maxSockets, maxTotalSockets) / SHARE)
}

/**
 * Makes a copy's one attempt, reads its answer and throws it away.
 *
 * @param {any} request
 * @param {object} agent
 * @param {Call} copy
 * @param {NextStep} step
 */
function measure (request, agent, copy, step) {
  const fail = (/** @type {unknown} */ error) => {
    copy.failed(error)
    copy.settle()
  }
  /** @type {any} */
  let made
  try {
    made = inContext(request, () => copy.perform(() => make(request, step, Buffer.alloc(0))))
  } catch (error) {
    // No connection can be made at all.
    fail(error)
    return
  }
  underWay.set(agent, (underWay.get(agent) ?? 0) + 1)
  const timer = setTimeout(() => made.destroy(timeoutError()), Math.ceil(step.ms ?? 0)).unref()
  made.on('response', (/** @type {any} */ response) => {
    // One that began when Farcall was uninstalled already is seen by nobody else.
    if (copy.exchange === undefined) copy.answer(undefined, response.statusCode, () => response.rawHeaders)
    copy.settle()
    let left = READ
    response.on('error', () => {})
    response.on('data', (/** @type {Buffer} */ chunk) => {
      left -= chunk.length
      if (left < 0) response.destroy()
    })
  })
  made.on('error', fail)
  made.on('close', () => {
    clearTimeout(timer)
    underWay.set(agent, (underWay.get(agent) ?? 1) - 1)
  })
  made.end()
}

module.exports = { copy }
