// What the tests of attempts under http share: rules that try again, clients, and a vendor that fails as it is told.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after } from 'node:test'
import axios from 'axios'
import got from 'got'
import nodeFetch from 'node-fetch'
import farcall from '../../index.js'
import { scratchDirectory } from './scratch.mjs'

/**
 * Puts these rules in force, and Farcall at work.
 *
 * @param {string} rules
 */
export function obey (rules) {
  const scratch = scratchDirectory('again')
  process.env.FARCALL_HOME = join(scratch, 'home')
  process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
  writeFileSync(process.env.FARCALL_CONFIG, rules)
  farcall.install()
  after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
  after(() => assert.equal(farcall.status().inFlight, 0))
}

/**
 * @typedef {{ method?: string, headers?: Record<string, string>, body?: string, agent?: http.Agent, signal?: AbortSignal }} Asked
 * @typedef {{ status: number | undefined, body: string }} Answered
 */

/**
 * @param {http.ClientRequest} request
 * @returns {Promise<Answered & { response: http.IncomingMessage }>}
 */
export function answerOf (request) {
  return new Promise((resolve, reject) => {
    request.on('error', reject)
    request.on('response', (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => { body += chunk }).on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode, body, response }))
    })
  })
}

/**
 * Real clients on top of node:http, each as its users call it.
 *
 * @type {Record<string, (url: string, asked?: Asked) => Promise<Answered>>}
 */
export const clients = {
  http: async (url, { body: sent, ...options } = {}) => {
    const request = http.request(url, options)
    const answer = answerOf(request)
    request.end(sent)
    const { status, body } = await answer
    return { status, body }
  },
  axios: (url, asked) => byAxios(url, asked, 5),
  // Then there is nothing between axios and Node's request.
  'axios without redirects': (url, asked) => byAxios(url, asked, 0),
  got: async (url, { method = 'GET', headers, body, agent, signal } = {}) => {
    const { statusCode: status, body: text } = await got(url, {
      method: /** @type {any} */ (method), headers, body, signal, agent: { http: agent }, retry: { limit: 0 }, throwHttpErrors: false
    })
    return { status, body: text }
  },
  'node-fetch': async (url, asked) => {
    const response = await nodeFetch(url, /** @type {any} */ (asked))
    return { status: response.status, body: await response.text() }
  }
}

/**
 * @param {string} url
 * @param {Asked | undefined} asked
 * @param {number} maxRedirects
 */
async function byAxios (url, { method, headers, body, agent, signal } = {}, maxRedirects) {
  const { status, data } = await axios.request({
    url, method, headers, data: body, httpAgent: agent, signal, maxRedirects,
    validateStatus: null, responseType: 'text', transformResponse: []
  })
  return { status, body: data }
}

/**
 * @typedef {{ method: string | undefined, path: string | undefined, headers: http.IncomingHttpHeaders, body: string, socket: import('node:net').Socket }} Got
 * @typedef {(response: http.ServerResponse, got: Got) => unknown} Act
 */

/** @type {(status: number, headers?: http.OutgoingHttpHeaders, body?: string) => Act} */
export const says = (status, headers, body = `said ${status}`) => (response) => response.writeHead(status, headers).end(body)
/** @type {Act} */
export const breaks = (response) => response.socket?.destroy()
/** @type {Act} */
export const hangs = () => {}

/**
 * A vendor that does what `acts` says, one after the other, and is well afterwards.
 *
 * @param {import('node:test').TestContext} t
 */
export async function vendor (t) {
  /** @type {Got[]} */
  const got = []
  /** @type {Act[]} */
  const acts = []
  const server = http.createServer(async (request, response) => {
    let body = ''
    request.on('error', () => {})
    try {
      for await (const chunk of request) body += chunk
    } catch {
      return
    }
    const { method, url: path, headers, socket } = request
    const one = { method, path, headers, body, socket }
    got.push(one)
    const act = acts.shift() ?? says(200, {}, body || 'well')
    act(response, one)
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return { got, acts, port, server, url: `http://127.0.0.1:${port}/v1/orders` }
}
