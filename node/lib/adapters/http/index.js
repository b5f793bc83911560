'use strict'
// http and https, and so axios, got, node-fetch and all that stands on them: every request of either module
// is an `http.ClientRequest`, whoever made it and however it got hold of `request`. Its prototype, and the
// parser below, are where Farcall looks on: no listener is added to a request or a response, because each
// would show, and some would act ('data' makes a stream flow, 'response' keeps a body waiting for a
// reader, 'error' swallows a crash).

const http = require('node:http')
const { clearTimeout } = require('node:timers')
const { whenIdle } = require('../../exchange.js')
const { note } = require('../../problems.js')
const { forget } = require('./body.js')
const { endLate, isElsewhere, patient, seeCloses } = require('./face.js')
const { goOn, handOver, hold, isHeld } = require('./holding.js')
const { drop, guard, takes } = require('./instead.js')
const { original, put, takeBack } = require('./methods.js')
const { abandon, see } = require('./outcome.js')
const { watchParsers } = require('./parser.js')
const { exchangeOf, kExchange, kHeld, seeBody } = require('./request.js')
const { seeSocket } = require('./socket.js')

/** @typedef {import('./request.js').Method} Method */

let active = false

/**
 * The methods that take the place of Node's: each looks, then does what Node's does. Written out one by one,
 * so that V8 can inline each for itself.
 *
 * @type {Record<string, Method>}
 */
const ours = {
  onSocket (socket) {
    try {
      if (socket && (active || this[kExchange])) {
        const exchange = exchangeOf(this)
        if (exchange !== null) {
          // Most were asked for when they were given to their agent, before there was a socket.
          if (active && !exchange.asked && !this.destroyed && isHeld(exchange) && holdSocket(this, socket)) return
          seeSocket(exchange, this, socket)
          if (exchange.decision !== undefined && this[kHeld]?.open) guard(socket)
        }
      }
    } catch (error) {
      note(error)
    }
    return Reflect.apply(original.onSocket, this, arguments)
  },

  write (chunk, encoding) {
    try {
      if ((active || this[kExchange]) && !this.finished && !this.destroyed) seeBody(this, chunk, encoding)
    } catch (error) {
      note(error)
    }
    const args = this[kHeld] !== undefined ? patient(this, [...arguments]) : arguments
    const result = Reflect.apply(original.write, this, args)
    if (this[kHeld] !== undefined) goOnWith(this)
    return result
  },

  end (chunk, encoding) {
    try {
      if ((active || this[kExchange]) && !this.finished) {
        seeBody(this, chunk, encoding)
        if (this[kHeld] !== undefined) {
          this[kHeld].ended = true
          if (endLate(this, [chunk, encoding, arguments[2]])) return this
        }
      }
    } catch (error) {
      note(error)
    }
    // From Node 24 on it says so as well where what is written is not taken.
    const args = this[kHeld] !== undefined ? patient(this, [...arguments]) : arguments
    const result = Reflect.apply(original.end, this, args)
    if (this[kHeld] !== undefined) goOnWith(this)
    return result
  },

  flushHeaders () {
    const result = Reflect.apply(original.flushHeaders, this, arguments)
    if (this[kHeld] !== undefined) goOnWith(this)
    return result
  },

  destroy (error) {
    try {
      const exchange = this[kExchange]
      if (exchange && !exchange.settled && !this.destroyed) abandon(exchange, this, error)
      if (exchange && this[kHeld] !== undefined) {
        if (drop(this, error)) return this
        if (this[kHeld].waits && !this.destroyed) {
          this[kHeld].waits = false
          const result = Reflect.apply(original.destroy, this, arguments)
          // As an agent does that has no socket for it: the request says that it is over.
          Reflect.apply(original.onSocket, this, [null])
          return result
        }
      }
    } catch (problem) {
      note(problem)
    }
    return Reflect.apply(original.destroy, this, arguments)
  },

  emit (type, argument) {
    try {
      const exchange = this[kExchange]
      if (exchange && !exchange.settled) see(exchange, this, type, argument)
      if (exchange && exchange.decision !== undefined && takes(this, type, argument)) return true
    } catch (error) {
      note(error)
    }
    if (type !== 'socket' || !this[kHeld]?.replays) return Reflect.apply(original.emit, this, arguments)
    return seeCloses(this, argument, () => Reflect.apply(original.emit, this, arguments))
  },

  setTimeout (ms, callback) {
    const held = this[kHeld]
    if (held !== undefined) held.idle = ms
    held?.race?.made?.setTimeout(ms)
    if (held === undefined || !isElsewhere(held)) return Reflect.apply(original.setTimeout, this, arguments)
    if (callback) this.once('timeout', callback)
    const under = held.again ?? held.second
    under?.setTimeout(ms)
    return this
  }
}

/** @param {any} request */
function goOnWith (request) {
  try {
    goOn(request)
  } catch (error) {
    note(error)
  }
}

/** @type {any} */
const agentPrototype = http.Agent.prototype
/** @type {Method | undefined} */
let originalAddRequest

/** @type {Method} */
function addRequest (request, options, port, localAddress) {
  /** @type {Held | undefined} */
  let held
  try {
    if (active) {
      const exchange = exchangeOf(request)
      // One that is destroyed (its signal had aborted) only waits to be told so.
      if (exchange !== null && !exchange.asked && !request.destroyed && isHeld(exchange)) {
        held = { now: true, released: false, error: undefined }
        // `arguments` itself would then be made for every request.
        holdRequest(this, arguments.length > 2 ? [request, options, port, localAddress] : [request, options], held)
      }
    }
  } catch (error) {
    note(error)
    // It goes out as it is, unless it is on its way.
    if (held !== undefined && !held.released) held = undefined
  }
  if (held !== undefined) {
    held.now = false
    if (held.error === undefined) return
    unmade(request, held.error.thrown)
    throw held.error.thrown
  }
  try {
    return Reflect.apply(/** @type {Method} */ (originalAddRequest), this, arguments)
  } catch (error) {
    unmade(request, error)
    throw error
  }
}

/**
 * Its connection cannot be made at all: nobody ever gets this request, nor would anybody hear of what becomes of it.
 *
 * @param {any} request
 * @param {unknown} error
 */
function unmade (request, error) {
  try {
    const exchange = request[kExchange]
    if (!exchange || exchange.settled) return
    if (request[kHeld] !== undefined) {
      clearTimeout(request[kHeld].timer)
      forget(request[kHeld])
    }
    exchange.fail(error)
    exchange.decision?.settle?.()
  } catch (problem) {
    note(problem)
  }
}

/**
 * A request that the rules were asked about: whether that is under way still, whether they let it go, and what connecting
 * threw at that, which is for whoever makes the request.
 *
 * @typedef {{ now: boolean, released: boolean, error: { thrown: unknown } | undefined }} Held
 */

// The closures have functions of their own: what a closure holds is allocated whether it is made or not.

/**
 * @param {any} agent
 * @param {unknown[]} args
 * @param {Held} held
 */
function holdRequest (agent, [request, options, ...rest], held) {
  const original = /** @type {Method} */ (originalAddRequest)
  hold(request, options, (options) => {
    held.released = true
    try {
      Reflect.apply(original, agent, [request, named(request, options), ...rest])
    } catch (error) {
      if (!held.now) throw error
      held.error = { thrown: error }
    }
  }, agent)
}

/**
 * The options of a connection that is made later, or from deeper down. Agents that stand on agent-base (https-proxy-agent and its like)
 * tell by the stack whether it is to be one with TLS, unless the options do: AWS's SDK gives no protocol.
 *
 * @param {any} request
 * @param {any} options
 */
function named ({ protocol }, options) {
  return typeof options === 'object' && options !== null && !options.protocol ? { ...options, protocol } : options
}

/**
 * @param {any} request
 * @param {any} socket
 */
function holdSocket (request, socket) {
  return hold(request, undefined, () => handOver(request, socket))
}

function install () {
  if (active) return
  active = true
  if (originalAddRequest === undefined) {
    originalAddRequest = agentPrototype.addRequest
    agentPrototype.addRequest = addRequest
  }
  put(ours)
  watchParsers(true)
}

function uninstall () {
  if (!active) return
  active = false
  if (agentPrototype.addRequest === addRequest) {
    agentPrototype.addRequest = originalAddRequest
    originalAddRequest = undefined
  }
  // Those under way end as they began.
  whenIdle(() => {
    if (active) return
    takeBack(ours)
    watchParsers(false)
  })
}

module.exports = { install, uninstall }
