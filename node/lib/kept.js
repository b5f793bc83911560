'use strict'
// An answer that the cache hands out, as fetch would have: its body is as it was on the wire, and what nobody asks for
// is not made. Undici's own Response makes a stream for every body, which takes longer than all the rest of a hit.

const { STATUS_CODES } = require('node:http')
const { Readable } = require('node:stream')
const zlib = require('node:zlib')

/** What fetch decodes (RFC 9110, section 8.4.1); an answer in another coding is not kept. */
const CODINGS = new Set(['gzip', 'x-gzip', 'deflate', 'br'])
/** Statuses of responses without a body. */
const EMPTY = new Set([204, 205, 304])
/** What is decoded at once, and not as a stream. */
const AT_ONCE = 64 * 1024
const MOST_AT_ONCE = 1024 * 1024

/**
 * What node/src/kept.rs writes: status, whether the body is ASCII, header lines, body.
 *
 * @typedef {object} Text
 * @property {number} status
 * @property {string} head lines of `name: value`, each after a line break
 * @property {string} body a character for each byte
 * @property {boolean} ascii
 */

/**
 * @param {string} text
 * @returns {Text}
 */
function parse (text) {
  const line = text.indexOf('\n')
  const end = text.indexOf('\n\n', line)
  return {
    status: Number.parseInt(text, 10),
    ascii: text.charCodeAt(line - 1) === 65,
    head: text.slice(line, end),
    body: text.slice(end + 2)
  }
}

/**
 * Names and values in turn.
 *
 * @param {string} head
 */
function pairs (head) {
  return head.split('\n').slice(1).flatMap((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 2)]
  })
}

/**
 * The codings of a body, the outermost last.
 *
 * @param {string | null | undefined} header
 */
function codings (header) {
  return header ? header.toLowerCase().split(',').map((coding) => coding.trim()).filter((coding) => coding !== 'identity') : []
}

/**
 * Whether fetch hands out other bytes than arrived, and Farcall does not know which.
 *
 * @param {string | null | undefined} header
 */
function isForeign (header) {
  return !codings(header).every((coding) => CODINGS.has(coding))
}

/** As fetch does it: a body whose end is missing is handed out as far as it goes. */
const LENIENT = { flush: zlib.constants.Z_SYNC_FLUSH, finishFlush: zlib.constants.Z_SYNC_FLUSH }
const LENIENT_BR = {
  flush: zlib.constants.BROTLI_OPERATION_FLUSH,
  finishFlush: zlib.constants.BROTLI_OPERATION_FLUSH
}

/**
 * @param {Buffer} bytes
 * @param {string[]} list
 * @returns {Buffer | undefined} undefined where it is too long, or cannot be decoded
 */
function decodeAtOnce (bytes, list) {
  if (bytes.byteLength > AT_ONCE) return
  try {
    return list.reduceRight((bytes, coding) => {
      if (coding === 'br') return zlib.brotliDecompressSync(bytes, { ...LENIENT_BR, maxOutputLength: MOST_AT_ONCE })
      const options = { ...LENIENT, maxOutputLength: MOST_AT_ONCE }
      if (coding !== 'deflate') return zlib.gunzipSync(bytes, options)
      return isZlib(bytes) ? zlib.inflateSync(bytes, options) : zlib.inflateRawSync(bytes, options)
    }, bytes)
  } catch {
    // The stream tells of it where it comes to that.
  }
}

/**
 * Whether `deflate` is meant as the specification has it, and not bare.
 *
 * @param {Uint8Array} bytes
 */
function isZlib (bytes) {
  return ((bytes[0] ?? 0) & 0x0f) === 0x08
}

/**
 * @param {Buffer} bytes
 * @param {string[]} list
 */
function decodeStream (bytes, list) {
  let first = true
  const stream = list.reduceRight((/** @type {Readable} */ from, coding) => {
    const bare = coding === 'deflate' && first && !isZlib(bytes)
    first = false
    const to = coding === 'br'
      ? zlib.createBrotliDecompress(LENIENT_BR)
      : coding === 'deflate' ? bare ? zlib.createInflateRaw(LENIENT) : zlib.createInflate(LENIENT) : zlib.createGunzip(LENIENT)
    from.once('error', (error) => to.destroy(error))
    return from.pipe(to)
  }, Readable.from([bytes], { objectMode: false }))
  const chunks = stream[Symbol.asyncIterator]()
  return new ReadableStream({
    type: 'bytes',
    async pull (controller) {
      try {
        const { done, value } = await chunks.next()
        if (done) {
          controller.close()
          controller.byobRequest?.respond(0)
        } else controller.enqueue(new Uint8Array(value))
      } catch (cause) {
        controller.error(new TypeError('terminated', { cause }))
      }
    },
    cancel () {
      stream.destroy()
    }
  })
}

/** @param {Uint8Array} bytes */
function exactly (bytes) {
  const copy = new Uint8Array(bytes.byteLength)
  copy.set(bytes)
  return copy
}

const utf8 = new TextDecoder()

function define () {
  // What it declares as fields are accessors, which may be overridden.
  const Base = /** @type {new (body?: any, init?: any) => object} */ (Response)
  return class Kept extends Base {
    #url
    #text
    /** @type {Headers | undefined} */
    #headers
    /** @type {Response | undefined} undici's own, once somebody wants what only that has */
    #whole
    #used = false

    /**
     * @param {string} url
     * @param {Text} text
     */
    constructor (url, text) {
      super(null, { status: text.status, statusText: STATUS_CODES[text.status] })
      this.#url = url
      this.#text = text
    }

    get url () {
      return this.#url
    }

    get type () {
      return /** @type {'basic'} */ ('basic')
    }

    get headers () {
      if (this.#headers === undefined) {
        this.#headers = new Headers()
        const words = pairs(this.#text.head)
        for (let at = 0; at < words.length; at += 2) this.#headers.append(words[at], words[at + 1])
      }
      return this.#headers
    }

    get bodyUsed () {
      return this.#whole === undefined ? this.#used : this.#whole.bodyUsed
    }

    get body () {
      return this.#made().body
    }

    get #codings () {
      // A look is quicker than to read all of them.
      return this.#text.head.includes('\ncontent-encoding: ') ? codings(this.headers.get('content-encoding')) : []
    }

    #made () {
      if (this.#whole !== undefined) return this.#whole
      const { status, body } = this.#text
      /** @type {any} */
      let content = null
      if (!EMPTY.has(status)) {
        const bytes = Buffer.from(body, 'latin1')
        const list = this.#codings
        content = list.length === 0 ? bytes : decodeAtOnce(bytes, list) ?? decodeStream(bytes, list)
      }
      this.#whole = new Response(content, { status, statusText: STATUS_CODES[status], headers: this.headers })
      // It was read before anybody asked for it.
      if (this.#used) this.#whole.arrayBuffer().catch(() => {})
      return this.#whole
    }

    /** The body, decoded; undefined where that takes a stream. */
    #take () {
      if (this.#used) throw new TypeError('Body is unusable: Body has already been read')
      const bytes = Buffer.from(this.#text.body, 'latin1')
      const list = this.#codings
      const decoded = list.length === 0 ? bytes : decodeAtOnce(bytes, list)
      // Without a body nothing is used up.
      if (decoded !== undefined) this.#used = !EMPTY.has(this.#text.status)
      return decoded
    }

    async text () {
      const { body, ascii } = this.#text
      if (ascii && this.#whole === undefined && !this.#used && !this.#isCoded()) {
        this.#used = !EMPTY.has(this.#text.status)
        return body
      }
      const bytes = this.#whole === undefined ? this.#take() : undefined
      return bytes === undefined ? this.#made().text() : utf8.decode(bytes)
    }

    #isCoded () {
      return this.#text.head.includes('\ncontent-encoding: ')
    }

    async json () {
      return JSON.parse(await this.text())
    }

    async arrayBuffer () {
      const bytes = this.#whole === undefined ? this.#take() : undefined
      return bytes === undefined ? this.#made().arrayBuffer() : exactly(bytes).buffer
    }

    async bytes () {
      return new Uint8Array(await this.arrayBuffer())
    }

    async blob () {
      return this.#made().blob()
    }

    async formData () {
      return this.#made().formData()
    }

    clone () {
      if (this.bodyUsed || this.#whole?.body?.locked) throw new TypeError('Response.clone: Body has already been consumed.')
      const clone = new Kept(this.#url, this.#text)
      clone.#whole = this.#whole?.clone()
      return clone
    }
  }
}

/** @type {ReturnType<typeof define> | undefined} made at first use: to name Response loads all of undici */
let made

/**
 * A response out of the cache, from what node/src/kept.rs wrote.
 *
 * @param {string} url
 * @param {string} text
 * @returns {Response}
 */
function keptResponse (url, text) {
  made ??= named(define())
  return /** @type {any} */ (new made(url, parse(text)))
}

/**
 * The same for what came after an attempt, or from a rule.
 *
 * @param {string} url
 * @param {import('./native.js').NextStep} step
 * @returns {Response}
 */
function storedResponse (url, { status = 0, headers = [], body }) {
  made ??= named(define())
  let head = ''
  for (let at = 0; at + 1 < headers.length; at += 2) head += `\n${headers[at].toLowerCase()}: ${headers[at + 1]}`
  return /** @type {any} */ (new made(url, { status, head, body: body?.toString('latin1') ?? '', ascii: false }))
}

/**
 * It goes by the name of what it stands for.
 *
 * @template {Function} C
 * @param {C} type
 * @returns {C}
 */
function named (type) {
  return Object.defineProperty(type, 'name', { value: 'Response', configurable: true })
}

module.exports = { isForeign, keptResponse, pairs, parse, storedResponse }
