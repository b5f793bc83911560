// The clients that Farcall looks at, each used as its users do.
import http from 'node:http'
import https from 'node:https'
import axios from 'axios'
import got from 'got'
import nodeFetch from 'node-fetch'

/**
 * What a command asks of a client, and what the client hands out: `{ status, headers, body, close }`, where `body` is
 * a stream of chunks and `close` lets go of it.
 *
 * @typedef {{ method: string, url: string, headers: Record<string, string>, body: string | null,
 *   timeout_ms: number, follow_redirects: boolean, read: 'all' | 'first-chunk' | 'none', header?: string | null }} Command
 * @typedef {{ status: number, headers: Headers | Record<string, any>, body: AsyncIterable<Uint8Array>, close: () => unknown }} Answer
 */

/** @type {import('undici').Agent | undefined} */
let undiciAgent

/** @satisfies {Record<string, (command: Command) => Promise<Answer>>} */
export const clients = {
  async fetch ({ method, url, headers, body, timeout_ms: ms, follow_redirects: follow }) {
    const signal = AbortSignal.timeout(ms)
    const response = await fetch(url, { method, headers, body, signal, redirect: follow ? 'follow' : 'manual' })
    // An empty body is null, and nothing has to be let go of.
    return { status: response.status, headers: response.headers, body: response.body ?? empty(), close: () => response.body?.cancel() }
  },

  http ({ method, url, headers, body, timeout_ms: ms }) {
    return new Promise((resolve, reject) => {
      const request = (url.startsWith('https:') ? https : http).request(url, { method, headers })
      request.setTimeout(ms, () => request.destroy(new Error('the time is up')))
      request.on('error', reject)
      request.on('response', (response) => {
        const { statusCode: status = 0, headers } = response
        resolve({ status, headers, body: response, close: () => response.destroy() })
      })
      request.end(body ?? undefined)
    })
  },

  async axios ({ method, url, headers, body, timeout_ms: timeout, follow_redirects: follow, read }) {
    const response = await axios.request({
      method,
      url,
      headers,
      data: body ?? undefined,
      timeout,
      maxRedirects: follow ? 5 : 0,
      validateStatus: null,
      responseType: read === 'all' ? 'arraybuffer' : 'stream'
    })
    const { status, headers: fields } = response
    if (read !== 'all') return { status, headers: fields, body: response.data, close: () => response.data.destroy() }
    return { status, headers: fields, body: one(response.data), close: () => {} }
  },

  async got ({ method, url, headers, body, timeout_ms: request, follow_redirects: followRedirect, read }) {
    const options = {
      method: /** @type {any} */ (method),
      headers,
      body: body ?? undefined,
      timeout: { request },
      followRedirect,
      retry: { limit: 0 },
      throwHttpErrors: false
    }
    if (read === 'all') {
      const response = await got(url, { ...options, responseType: 'buffer' })
      return { status: response.statusCode, headers: response.headers, body: one(response.body), close: () => {} }
    }
    const stream = got.stream(url, options)
    if (body === null) stream.end()
    const response = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject))
    return { status: response.statusCode, headers: response.headers, body: stream, close: () => stream.destroy() }
  },

  async undici ({ method, url, headers, body, timeout_ms: ms, follow_redirects: follow }) {
    // Only where it is asked for: importing it may change which undici Node's own fetch runs on.
    const undici = await import('undici')
    undiciAgent ??= new undici.Agent()
    const dispatcher = follow
      ? undiciAgent.compose(undici.interceptors.redirect({ maxRedirections: 5 }))
      : undiciAgent
    const response = await undici.request(url, {
      method: /** @type {any} */ (method),
      headers,
      body,
      dispatcher,
      headersTimeout: ms,
      bodyTimeout: ms
    })
    return { status: response.statusCode, headers: response.headers, body: response.body, close: () => response.body.destroy() }
  },

  async 'node-fetch' ({ method, url, headers, body, timeout_ms: ms, follow_redirects: follow }) {
    const signal = AbortSignal.timeout(ms)
    const response = await nodeFetch(url, { method, headers, body, signal, redirect: follow ? 'follow' : 'manual' })
    const stream = /** @type {import('node:stream').Readable} */ (response.body)
    return { status: response.status, headers: /** @type {any} */ (response.headers), body: stream, close: () => stream.destroy() }
  }
}

async function * empty () {}

/** @param {Uint8Array} chunk */
async function * one (chunk) {
  yield chunk
}

/**
 * Makes one call, and reads of the answer what the command says.
 *
 * @param {keyof typeof clients} client
 * @param {Command} command
 */
export async function call (client, command) {
  const { status, headers, body, close } = await clients[client](command)
  let bytes = 0
  if (command.read !== 'none') {
    for await (const chunk of body) {
      bytes += chunk.length
      // Leaving the loop lets go of the stream.
      if (command.read === 'first-chunk') break
    }
  } else await close()
  const { header } = command
  const value = header && (typeof headers.get === 'function' ? headers.get(header) : /** @type {any} */ (headers)[header])
  return { status, bytes, shown: `${value ?? ''}` }
}
