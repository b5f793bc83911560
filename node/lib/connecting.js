'use strict'
// What making a connection takes, part by part. Listeners go on the new socket only, until it is connected.

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
  let since = performance.now()
  socket.once('lookup', () => {
    const now = performance.now()
    times.dns = now - since
    since = now
  })
  socket.once('connect', () => {
    const now = performance.now()
    times.connect = now - since
    since = now
    see(times, !tls)
  })
  if (!tls) return
  socket.once('secureConnect', () => {
    times.tls = performance.now() - since
    see(times, true)
  })
}

module.exports = { ConnectTimes, timeConnecting }
