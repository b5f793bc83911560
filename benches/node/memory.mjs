// Connections that answer from memory: a client's own code and what looks on at it run in full, the network, the kernel
// and a server do not.
import { createRequire } from 'node:module'
import { Duplex } from 'node:stream'

const require = createRequire(import.meta.url)
const BODY = JSON.stringify({ scenario: 'ok', ok: true })
const ANSWER = Buffer.from('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n' +
  `date: Sat, 01 Jan 2000 00:00:00 GMT\r\ncontent-length: ${BODY.length}\r\n\r\n${BODY}`)
const URL = 'http://127.0.0.1:8080/scenario/ok'

/** Answers each request without a body, in a later turn of the loop. */
class Connection extends Duplex {
  setTimeout() { return this }
  setNoDelay() { return this }
  setKeepAlive() { return this }
  ref() { return this }
  unref() { return this }
  destroySoon() { this.destroy() }
  _read() {}
  _write(_chunk, _encoding, done) {
    setImmediate(() => this.push(ANSWER))
    done()
  }
}

/** A function that makes one call and reads its answer. */
export function client(name) {
  if (name === 'node/fetch') {
    // What Node's own undici connects with.
    require('node:net').connect = () => {
      const connection = new Connection()
      process.nextTick(() => connection.emit('connect'))
      return connection
    }
    return async () => { await (await fetch(URL)).arrayBuffer() }
  }
  // Some instrumentations take hold of a module when it is next required.
  const http = require('node:http')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  agent.createConnection = () => new Connection()
  return () => new Promise((resolve, reject) => {
    http.get(URL, { agent }, (response) => response.resume().on('end', resolve)).on('error', reject)
  })
}
