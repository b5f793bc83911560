// Makes calls as the runner of the scenarios says (tests/PROTOCOL.md): JSON lines in, JSON lines out.
import { spawnSync } from 'node:child_process'
import http from 'node:http'
import https from 'node:https'
import { createInterface } from 'node:readline'
import axios from 'axios'
import got from 'got'
import nodeFetch from 'node-fetch'
import farcall from '../index.js'

const { FARCALL_TEST_CA: ca } = process.env
if (ca && process.env.NODE_EXTRA_CA_CERTS !== ca) {
  // Node reads this variable once, as it starts.
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: ca }
  const { status } = spawnSync(process.execPath, process.argv.slice(1), { env, stdio: 'inherit' })
  process.exit(status ?? 1)
}

farcall.install()

/**
 * What a command asks of a client, and what the client hands out: `{ status, body, close }`, where `body` is
 * a stream of chunks and `close` lets go of it.
 *
 * @typedef {{ method: string, url: string, headers: Record<string, string>, body: string | null,
 *   timeout_ms: number, follow_redirects: boolean, read: 'all' | 'first-chunk' | 'none' }} Command
 * @typedef {{ status: number, body: AsyncIterable<Uint8Array>, close: () => unknown }} Answer
 */

/** @type {Record<string, (command: Command) => Promise<Answer>>} */
const clients = {
  async fetch ({ method, url, headers, body, timeout_ms: ms, follow_redirects: follow }) {
    const signal = AbortSignal.timeout(ms)
    const response = await fetch(url, { method, headers, body, signal, redirect: follow ? 'follow' : 'manual' })
    // An empty body is null, and nothing has to be let go of.
    return { status: response.status, body: response.body ?? empty(), close: () => response.body?.cancel() }
  },

  http ({ method, url, headers, body, timeout_ms: ms }) {
    return new Promise((resolve, reject) => {
      const request = (url.startsWith('https:') ? https : http).request(url, { method, headers })
      request.setTimeout(ms, () => request.destroy(new Error('the time is up')))
      request.on('error', reject)
      request.on('response', (response) => {
        resolve({ status: response.statusCode ?? 0, body: response, close: () => response.destroy() })
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
    if (read !== 'all') return { status: response.status, body: response.data, close: () => response.data.destroy() }
    return { status: response.status, body: one(response.data), close: () => {} }
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
      return { status: response.statusCode, body: one(response.body), close: () => {} }
    }
    const stream = got.stream(url, options)
    if (body === null) stream.end()
    const response = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject))
    return { status: response.statusCode, body: stream, close: () => stream.destroy() }
  },

  async 'node-fetch' ({ method, url, headers, body, timeout_ms: ms, follow_redirects: follow }) {
    const signal = AbortSignal.timeout(ms)
    const response = await nodeFetch(url, { method, headers, body, signal, redirect: follow ? 'follow' : 'manual' })
    const stream = /** @type {import('node:stream').Readable} */ (response.body)
    return { status: response.status, body: stream, close: () => stream.destroy() }
  }
}

async function * empty () {}

/** @param {Uint8Array} chunk */
async function * one (chunk) {
  yield chunk
}

/**
 * @param {string} client
 * @param {Command} command
 */
async function call (client, command) {
  const { status, body, close } = await clients[client](command)
  let bytes = 0
  if (command.read !== 'none') {
    for await (const chunk of body) {
      bytes += chunk.length
      // Leaving the loop lets go of the stream.
      if (command.read === 'first-chunk') break
    }
  } else await close()
  return { status, bytes }
}

/** @param {any} command */
async function run ({ id, client, parallel = 1, customer = null, customers = null, ...command }) {
  const tasks = Array.from({ length: parallel }, (_, number) => {
    const name = customers ? customers[number % customers.length] : customer
    return name === null ? call(client, command) : farcall.withCustomer(name, call, client, command)
  })
  const answer = { id, ok: true, status: /** @type {number | null} */ (null), bytes: 0, error: /** @type {string | null} */ (null) }
  for (const result of await Promise.allSettled(tasks)) {
    if (result.status === 'fulfilled') {
      answer.status = result.value.status
      answer.bytes += result.value.bytes
    } else {
      const { name, code, message, cause } = result.reason
      answer.ok = false
      answer.error = `${name} ${code ?? cause?.code ?? ''}: ${message}`
    }
  }
  return answer
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === '') continue
  const command = JSON.parse(line)
  let answer
  if (command.flush) {
    await farcall.flush()
    answer = { id: command.id, ok: true }
  } else answer = await run(command)
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await farcall.flush()
process.exit(0)
