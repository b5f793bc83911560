'use strict'
// Where rules decide: a request waits for their word, and is stopped, changed or answered by it.

const { AsyncResource } = require('node:async_hooks')
const { clearImmediate, setImmediate, setTimeout } = require('node:timers')
const { SHOWN } = require('../../asking.js')
const { LONGEST_MS } = require('../../acting.js')
const { cannedSocket } = require('../../canned.js')
const { nameOf } = require('../../clients.js')
const { detourOf } = require('../../detours.js')
const { ErrorType } = require('../../errors.js')
const { pairs, parse } = require('../../kept.js')
const { native } = require('../../native.js')
const { beginCall, openCall } = require('../../opening.js')
const { note } = require('../../problems.js')
const { RefusedError, timeoutError, wireError } = require('../../refused.js')
const { isCaching, isDeciding, isParking, replayBytes } = require('../../ruling.js')
const { elsewhere, tellKept } = require('./attempts.js')
const { beginToKeep, contentOf, forget, isWhole, keepAtMost, putBody } = require('./body.js')
const { copy } = require('./copying.js')
const { beforeChanges, change, essence, headOf, headersOf, isFramed, isSingular, isThere } = require('./head.js')
const { hedge, redo } = require('./instead.js')
const { original } = require('./methods.js')
const { MOST, isKeepable, isKept, park } = require('./parking.js')
const { exchangeOf, kExchange, kHeld } = require('./request.js')
const { seeSocket } = require('./socket.js')

/** @typedef {import('./request.js').Exchange} Exchange */

/**
 * Whether rules may hold a request back: asked once, when it is about to go out. Throws where the addon does.
 *
 * @param {Exchange} exchange
 */
function isHeld (exchange) {
  exchange.asked = true
  // It began just now, as a rule. An attempt of a call that was decided on further out is not held.
  return isDeciding(exchange.begun) && exchange.decision === undefined && !exchange.settled
}

/** Kinds of clients, by what they add to requests below (`Head::client`). */
const HTTP = 2

/** What hears of an exchange that is none: the answer was there already. */
const nobody = { attach () {}, answer () {}, body () {}, over () {}, settle () {}, cancel () {} }

/**
 * Stands for the agent of a request and the connection that it would make, with its certificates: all that may tell a
 * vendor who asks, beside the headers. Undefined where no answer may be kept.
 *
 * @param {any} request
 * @param {any} agent
 * @param {any} options
 */
function clientOf (request, agent, options) {
  if (!isCaching() || agent === undefined || request.method !== 'GET' || typeof options !== 'object') return
  // One that is made for a single request.
  if (options.agent === false || typeof agent.getName !== 'function') return
  // Which the name of a connection says nothing of.
  const context = options.secureContext ? nameOf(options.secureContext) : ''
  return `${nameOf(agent)} ${context} ${agent.getName(options)}`
}

/**
 * Holds a request back until the rules let it go. Returns whether it does: then `release` is called later, or in
 * here already, or never.
 *
 * @param {any} request
 * @param {any} options of the connection; undefined where there is one already
 * @param {(options: any) => void} release
 * @param {any} [agent] whose request it is
 */
function hold (request, options, release, agent) {
  /** @type {{ whole: (() => void) | undefined, [name: string]: any }} */
  const held = { timer: undefined, waits: false, truncate: undefined, open: false, options, agent, whole: undefined, full: false,
    parks: false, replays: false, keep: undefined, decision: undefined, number: 1, race: undefined, again: undefined, second: undefined, message: undefined }
  request[kHeld] = held
  keepBody(request, held)
  const client = clientOf(request, agent, options)
  if (client === undefined) {
    if (held.keep !== undefined && isKept(request)) awaitBody(request, options, orFail(request, release))
    else begin(request, options, release)
    return true
  }
  const go = orFail(request, release)
  const open = () => {
    held.waits = false
    if (request.destroyed) return
    try {
      if (!answer(request, options, go, client)) begin(request, options, go)
    } catch (error) {
      note(error)
      forget(held)
      if (request[kExchange].decision === undefined) go(options)
    }
  }
  if (request._header) {
    open()
    return true
  }
  // More headers may be set until it is written, and credentials among them. Who waits for a socket before he writes
  // gets one; then it has to turn out that nothing was added.
  held.waits = true
  const timer = setImmediate(() => {
    if (held.whole === undefined) return
    held.whole = undefined
    held.early = true
    open()
  })
  held.whole = () => {
    held.whole = undefined
    clearImmediate(timer)
    open()
  }
  return true
}

/**
 * Keeps what is written of a request, where any rule may need it once more.
 *
 * @param {any} request
 * @param {any} held
 */
function keepBody (request, held) {
  // One that has a connection already is made by somebody who knows how.
  if (held.options === null || typeof held.options !== 'object') return
  const replayed = replayBytes()
  held.parks = isParking() && isKept(request)
  held.replays = replayed > 0
  // What was written before it came to its agent was not kept.
  if ((!held.parks && !held.replays) || request.finished || exchangeOf(request)?.sent !== 0) return
  if (held.replays) held.context = new AsyncResource('farcall.call')
  beginToKeep(held, Math.max(held.parks ? MOST : 0, replayed))
}

/**
 * A release for a later turn of the event loop: nobody is there to catch what connecting throws, so the request fails.
 *
 * @param {any} request
 * @param {(options: any) => void} release
 * @returns {(options: any) => void}
 */
function orFail (request, release) {
  return (options) => {
    try {
      release(options)
    } catch (error) {
      stop(request, error)
    }
  }
}

/**
 * Waits for what the application writes in this turn of the event loop: a rule may have the call parked without sending
 * it, and only what is whole can be. What is written later is kept while it goes out.
 *
 * @param {any} request
 * @param {any} options
 * @param {(options: any) => void} release
 */
function awaitBody (request, options, release) {
  const held = request[kHeld]
  held.waits = true
  const open = () => {
    held.whole = undefined
    held.waits = false
    if (request.destroyed) {
      forget(held)
      return
    }
    try {
      begin(request, options, release)
    } catch (error) {
      note(error)
      forget(held)
      if (request[kExchange].decision === undefined) release(options)
    }
  }
  const timer = setImmediate(open)
  held.whole = () => {
    if (!isWhole(request)) return
    clearImmediate(timer)
    open()
  }
}

/**
 * The head of a request is whole: goes on with it, where that was waited for.
 *
 * @param {any} request
 */
function goOn (request) {
  request[kHeld]?.whole?.()
}

/**
 * @param {any} request
 * @param {any} options
 * @param {(options: any) => void} release
 */
function begin (request, options, release) {
  const exchange = /** @type {Exchange} */ (exchangeOf(request))
  const held = request[kHeld]
  const headers = headersOf(request)
  const parks = held.parks && (held.chunks !== undefined || held.full)
  const detour = parks ? detourOf(request, held.agent, options) : 0
  const whole = isWhole(request)
  const shown = whole && held.replays && held.kept > 0 && held.kept <= SHOWN
  const content = shown ? contentOf(request) : undefined
  const decision = beginCall({
    method: exchange.method,
    url: urlOf(exchange, exchange.path),
    headers,
    body: whole ? held.kept : lengthOf(request),
    content,
    // What is written is gone, but for what is kept of it.
    replayable: false,
    parks,
    // Of what is not handed over whatever happens, nothing is kept for that.
    keeps: detour !== 0 || (parks && isKeepable(request)),
    hedges: held.replays,
    detour
  }, exchange.scope)
  decision.exchange = exchange
  held.decision = decision
  const mayBeParked = parks && decision.mayBeParked()
  held.parks = mayBeParked && detour === 0
  if (held.parks) held.url = request.path.charCodeAt(0) === 47 ? urlOf(exchange, request.path) : request.path
  // Another model may take the place of the one that it asks for, whether it can be sent again or not.
  held.content = content
  if (mayRepeat(request, decision, headers) || mayBeParked) decision.spare = held.open = true
  else decision.final = true
  exchange.decision = decision
  advance(request, decision, options, release)
}

/**
 * Whether there may be another attempt. Keeps no more of what is written than that takes, or the outbox.
 *
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 * @param {string[]} headers
 */
function mayRepeat (request, decision, headers) {
  const held = request[kHeld]
  const replayed = held.replays && held.keep !== undefined && !isSingular(headers) ? decision.replayBytes() : 0
  held.replays = replayed > 0
  keepAtMost(held, Math.max(held.parks ? MOST : 0, replayed))
  held.bare = !isKept(request) && !isFramed(headers)
  return held.replays
}

/**
 * How many milliseconds the client waits for an answer at most; 0 where it does not say. What its agent says is no word of
 * the client's: Node's own has five seconds for an idle connection.
 *
 * @param {any} request
 * @returns {number}
 */
function patienceOf (request) {
  const { idle = request.timeout ?? 0 } = request[kHeld]
  // follow-redirects, under axios, says it of a socket and before to nobody.
  const limit = request._redirectable?.listeners?.('socket').find((/** @type {Function} */ listener) => listener.name === 'destroyOnTimeout')
  let patience = idle
  limit?.({ setTimeout: (/** @type {number} */ ms) => { patience = ms }, removeListener () {}, addListener () {} })
  return Number(patience)
}

/**
 * The same where the answer may be kept: gives what is kept, or keeps what comes. Returns whether it does.
 *
 * @param {any} request
 * @param {any} options
 * @param {(options: any) => void} release
 * @param {string} client
 */
function answer (request, options, release, client) {
  const exchange = /** @type {Exchange} */ (exchangeOf(request))
  const headers = headersOf(request)
  let empty = exchange.sent === 0
  for (let at = 0; at < headers.length; at += 2) {
    if (/^(upgrade|transfer-encoding)$/i.test(headers[at])) return false
    if (/^content-length$/i.test(headers[at])) empty &&= Number(headers[at + 1]) === 0
  }
  const decision = openCall({
    method: exchange.method,
    url: request.path.charCodeAt(0) === 47 ? urlOf(exchange, request.path) : request.path,
    words: headers.join('\n'),
    body: empty ? 0 : undefined,
    content: undefined,
    replayable: empty && request[kHeld].replays && !isSingular(headers),
    kind: HTTP,
    client,
    patience: patienceOf(request),
    hedges: request[kHeld].replays
  }, exchange.scope)
  const early = request[kHeld].early ? essence(headers) : undefined
  const isOther = () => early !== undefined && (exchange.sent > 0 || essence(headersOf(request)) !== early)
  if (typeof decision === 'string') {
    forget(request[kHeld])
    const { status, head, body } = parse(decision)
    exchange.decision = request[kHeld].decision = nobody
    exchange.abandon()
    const kept = { kind: /** @type {const} */ ('respond'), status, headers: pairs(head), body: Buffer.from(body, 'latin1') }
    handOver(request, cannedSocket(kept, () => {
      const other = isOther()
      if (other) redo(request)
      return other
    }))
    return true
  }
  decision.declines = isOther
  decision.exchange = exchange
  request[kHeld].decision = decision
  mayRepeat(request, decision, headers)
  decision.spare = request[kHeld].open = true
  exchange.decision = decision
  advance(request, decision, options, release)
  return true
}

/**
 * @param {Exchange} exchange
 * @param {string} path
 */
function urlOf ({ origin, authority }, path) {
  return (authority === undefined ? origin : origin + '//' + authority) + (path === '' ? '/' : path)
}

/**
 * @param {any} request
 * @param {InstanceType<typeof import('../../decision.js').Decision>} decision
 * @param {any} options
 * @param {(options: any) => void} release
 */
function advance (request, decision, options, release) {
  const held = request[kHeld]
  const { exchange } = decision
  tellKept(request, decision)
  const step = decision.step()
  held.waits = false
  switch (step.kind) {
    case 'wait':
      held.waits = true
      held.timer = setTimeout(() => {
        if (!request.destroyed) advance(request, decision, options, orFail(request, release))
      }, Math.min(Math.ceil(step.ms ?? 0), LONGEST_MS))
      return
    case 'park':
      held.waits = true
      park(request, decision).then(() => {
        if (!request.destroyed && !decision.done) advance(request, decision, options, release)
      }).catch(note)
      return
    case 'refuse':
      forget(held)
      stop(request, new RefusedError(step))
      return
    case 'fail':
      forget(held)
      stop(request, wireError(step.error))
      return
    case 'respond':
      forget(held)
      exchange?.abandon()
      handOver(request, cannedSocket(step))
      return
    default:
      // Of one attempt, and this is its exchange.
      decision.open = false
      decision.exchange = exchange
      held.truncate = step.truncate
      held.number = step.number
      if (step.ms !== undefined) {
        held.timer = setTimeout(() => {
          if (request.destroyed || request.res) return
          held.late = true
          const queued = !request.socket && leaveQueue(held.agent, request)
          request.destroy(timeoutError())
          held.late = false
          // As its agent does once it has no socket for it: the request says that it is over.
          if (queued) Reflect.apply(original.onSocket, request, [null])
        }, Math.min(Math.ceil(step.ms), LONGEST_MS)).unref()
      }
      if (step.hedgeMs !== undefined && held.open) hedge(request, step.hedgeMs)
      release(changed(request, options, step))
      if (step.shadow) copy(request)
  }
}

/**
 * What a rule changes in a request. Returns the options of its connection.
 *
 * @param {any} request
 * @param {any} options
 * @param {import('../../native.js').NextStep} step
 */
function changed (request, options, step) {
  const held = request[kHeld]
  const { content } = held
  held.content = undefined
  try {
    if (held.open || step.shadow) beforeChanges(request, step)
    change(request, step)
    if (step.model !== undefined && content !== undefined) changeModel(request, content, step.model)
  } catch (error) {
    note(error)
  }
  return elsewhere(request, options, step.host)
}

/**
 * Has a request that is written whole, and not sent, ask for another model.
 *
 * @param {any} request
 * @param {Buffer} content
 * @param {string} model
 */
function changeModel (request, content, model) {
  const body = native().replaceModel(content, model)
  if (body === null) return
  if (!isThere(request)) throw new Error('the body of a request is not where it was')
  putBody(request, headOf(request._header, body.byteLength), body)
  request[kExchange].sent += body.byteLength - content.byteLength
}

/**
 * Takes a request out of those that wait for a connection of their agent: nobody would tell it that it is over before there
 * is one. Returns whether it was there.
 *
 * @param {any} agent
 * @param {any} request
 */
function leaveQueue (agent, request) {
  for (const [name, waiting] of Object.entries(agent?.requests ?? {})) {
    const at = waiting.indexOf(request)
    if (at === -1) continue
    waiting.splice(at, 1)
    if (waiting.length === 0) delete agent.requests[name]
    return true
  }
  return false
}

/**
 * The request does not go out.
 *
 * @param {any} request
 * @param {unknown} error
 */
function stop (request, error) {
  request[kExchange].abandon()
  Reflect.apply(original.onSocket, request, [null, error])
}

/**
 * @param {any} request
 * @param {any} socket
 */
function handOver (request, socket) {
  const lost = socket.destroyed ? wireError(ErrorType.RESET) : undefined
  if (lost === undefined) seeSocket(request[kExchange], request, socket)
  Reflect.apply(original.onSocket, request, lost === undefined ? [socket] : [socket, lost])
}

/** @param {any} request */
function lengthOf (request) {
  const length = Number(request.getHeader('content-length') ?? NaN)
  if (Number.isSafeInteger(length) && length >= 0) return length
  return request.method === 'GET' || request.method === 'HEAD' ? 0 : undefined
}

module.exports = { goOn, handOver, hold, isHeld }
