'use strict'
// A response that no vendor sent, for a request of http: a socket that answers it and goes nowhere.

const { Duplex } = require('node:stream')

class CannedSocket extends Duplex {
  /**
   * @param {Buffer} answer
   * @param {() => unknown} [stops] asked when the head of the request arrives: whether this is not its answer
   */
  constructor (answer, stops) {
    super({ allowHalfOpen: true })
    this.answer = answer
    this.stops = stops
  }

  // What of net.Socket requests use.
  setTimeout () { return this }
  setNoDelay () { return this }
  setKeepAlive () { return this }
  ref () { return this }
  unref () { return this }
  destroySoon () { this.destroy() }

  /** @override */
  _read () {}

  /**
   * The request has arrived, or begins to: as with a vendor, the answer does not wait for its end.
   *
   * @override
   * @param {unknown} _chunk
   * @param {string} _encoding
   * @param {() => void} done
   */
  _write (_chunk, _encoding, done) {
    if (this.answer.length > 0 && !this.#isStopped()) this.push(this.answer)
    this.answer = Buffer.alloc(0)
    done()
  }

  #isStopped () {
    const { stops } = this
    this.stops = undefined
    return stops?.() ?? false
  }
}

/**
 * @param {import('./native.js').NextStep} step
 * @param {() => unknown} [stops]
 */
function cannedSocket ({ status, headers = [], body = Buffer.alloc(0) }, stops) {
  let head = `HTTP/1.1 ${status} ${require('node:http').STATUS_CODES[status ?? 0] ?? ''}\r\n`
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (!/^(content-length|transfer-encoding|connection)$/i.test(headers[at])) head += `${headers[at]}: ${headers[at + 1]}\r\n`
  }
  head += `content-length: ${body.length}\r\nconnection: close\r\n\r\n`
  return new CannedSocket(Buffer.concat([Buffer.from(head, 'latin1'), body]), stops)
}

module.exports = { cannedSocket }
