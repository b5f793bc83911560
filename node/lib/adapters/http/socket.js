'use strict'
// The connection of a request: made for it, or taken over from another.

const { timeConnecting } = require('../../connecting.js')
const { exchangeOf, kExchange } = require('./request.js')

const kWatched = Symbol('farcall.watched')

/** @typedef {import('./request.js').Exchange} Exchange */
/** @typedef {import('node:net').Socket} Socket */

/**
 * Marks the call whose socket was idle for as long as the client allows: follow-redirects, under axios, then
 * destroys the socket, and the request hears of no timeout.
 *
 * @this {any}
 */
function onSocketTimeout () {
  const exchange = this._httpMessage?.[kExchange]
  if (exchange) exchange.timedOut = true
}

/**
 * Times the connection where it is made for this request.
 *
 * @param {Exchange} exchange
 * @param {Socket} socket
 * @param {boolean} tls
 */
function time (exchange, socket, tls) {
  exchange.connecting = true
  timeConnecting(socket, tls, (times, done) => {
    exchange.connecting = !done
    exchange.times = times
  })
}

/**
 * @param {any} request
 * @param {any} socket
 */
function seeSocket (request, socket) {
  const exchange = exchangeOf(request)
  if (!exchange || socket[kWatched]) return
  socket[kWatched] = true
  socket.on('timeout', onSocketTimeout)
  if (socket.connecting) time(exchange, socket, request.protocol === 'https:')
}

module.exports = { seeSocket }
