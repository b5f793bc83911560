// What the tests of the cache share: rules that keep answers, clients, and what vendor-sim says and was asked.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { join } from 'node:path'
import { after, beforeEach } from 'node:test'
import axios from 'axios'
import got from 'got'
import nodeFetch from 'node-fetch'
import farcall from '../../index.js'
import { scratchDirectory } from './scratch.mjs'
import { forget, plain } from './sim.mjs'

const RULES = `
[[cache]]
name = "all"
match = { endpoint = "GET /*" }
stale_if_error = "1h"
coalesce = "60s"

[[cache]]
name = "questions"
match = { endpoint = "POST /questions*" }
methods = ["POST"]
ttl = "1h"
`

/** Has answers kept by what is installed, and vendor-sim begin anew before each test. */
export function cachingRules () {
  process.env.FARCALL_CONFIG = join(scratchDirectory('cache'), 'farcall.toml')
  writeFileSync(process.env.FARCALL_CONFIG, RULES)
  farcall.install()
  after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
  after(() => assert.equal(farcall.status().inFlight, 0))
  beforeEach(async () => {
    await script()
    await forget()
  })
}

/**
 * @typedef {{ status: number, body: string, headers: Record<string, any> }} Answer
 * @typedef {(url: string, headers?: Record<string, string>) => Promise<Answer>} Get
 */

/**
 * @param {http.ClientRequest} request
 * @returns {Promise<Answer>}
 */
export function answer (request) {
  return new Promise((resolve, reject) => {
    request.on('error', reject)
    request.on('response', (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => { body += chunk }).on('error', reject)
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }))
    })
  })
}

/** @param {string} url @param {http.RequestOptions} options */
export function request (url, options) {
  return (url.startsWith('https:') ? https : http).request(url, options)
}

/** @type {Record<string, Get>} */
export const clients = {
  async fetch (url, headers) {
    const response = await fetch(url, { headers })
    return { status: response.status, body: await response.text(), headers: Object.fromEntries(response.headers) }
  },
  https (url, headers) {
    return answer(request(url, { headers }).end())
  },
  async axios (url, headers) {
    const response = await axios.get(url, { headers, validateStatus: null, responseType: 'text', transformResponse: [] })
    return { status: response.status, body: response.data, headers: response.headers }
  },
  async got (url, headers) {
    const { statusCode, body, headers: received } = await got(url, { headers, retry: { limit: 0 }, throwHttpErrors: false })
    return { status: statusCode, body, headers: received }
  },
  async 'node-fetch' (url, headers) {
    const response = await nodeFetch(url, { headers })
    return { status: response.status, body: await response.text(), headers: Object.fromEntries(response.headers) }
  }
}

/** Has vendor-sim answer by these rules, and by no others. @param {unknown[]} rules */
export async function script (...rules) {
  await (await nodeFetch(plain + '/_sim/script', { method: 'DELETE' })).text()
  const response = await nodeFetch(plain + '/_sim/script', { method: 'POST', body: JSON.stringify(rules) })
  assert.equal(response.status, 200, await response.text())
}

/** How often the vendor was asked since the test began. */
export async function asked () {
  const response = await nodeFetch(plain + '/_sim/counts?settled_ms=2000')
  return /** @type {any} */ (await response.json()).requests
}

let places = 0
/** A path of which nothing is kept yet. */
export function newPath () {
  places += 1
  return `/v1/things/${process.pid}-${places}`
}

/** @param {string} path @param {Record<string, unknown>} headers @param {string} [body] */
export function says (path, headers, body = 'what the vendor says') {
  return { match: { path }, effect: { status: 200, body, headers: { 'content-type': 'text/plain', ...headers } } }
}

/**
 * @template R
 * @param {string} customer
 * @param {() => R} fn
 */
export const as = (customer, fn) => farcall.withCustomer(customer, fn)
