'use strict'
// What making a connection takes, part by part. Listeners go on the new socket only, until it is connected.

const { now } = require('./clock.js')

/** Milliseconds; negative for a part that did not happen (no TLS, a literal address). */
class ConnectTimes {
  dns = -1
  connect = -1
  tls = -1
}

/**
 * Times a socket that is about to connect.
 *
 * @param {import('node:net').Socket} socket
 * @param {boolean} tls whether a handshake follows
 * @param {(times: ConnectTimes, done: boolean) => void} see told after the connection, and after the handshake
 */
function timeConnecting (socket, tls, see) {
  const times = new ConnectTimes()
  let since = now()
  socket.once('lookup', () => {
    const at = now()
    times.dns = at - since
    since = at
  })
  socket.once('connect', () => {
    const at = now()
    times.connect = at - since
    since = at
    see(times, !tls)
  })
  if (!tls) return
  socket.once('secureConnect', () => {
    times.tls = now() - since
    see(times, true)
  })
}

module.exports = { ConnectTimes, timeConnecting }
