// The application cannot tell that somebody looks on.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import http from 'node:http'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import farcall from '../index.js'
import { outcomes, newCustomer, until } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

/**
 * What an application can see of a request while it runs: events in their order, and listeners.
 *
 * @param {string} path
 * @param {http.RequestOptions} [options]
 */
async function watch (path, options) {
  const agent = new http.Agent({ keepAlive: true })
  /** @type {unknown[]} */
  const seen = []
  const events = ['socket', 'finish', 'response', 'close', 'error', 'timeout', 'continue', 'information', 'upgrade', 'connect']
  await new Promise((resolve) => {
    const request = http.request(plain + path, { agent, ...options })
    seen.push(request.eventNames(), Object.keys(request).length)
    for (const event of events) request.on(event, () => seen.push(event))
    for (const event of events) seen.push(request.listenerCount(event))
    request.on('response', (response) => {
      seen.push(response.statusCode, response.readableFlowing, response.eventNames(), response.isPaused())
      setTimeout(() => {
        seen.push(response.readableFlowing, response.listenerCount('data'), response.listenerCount('end'))
        for (const event of ['data', 'end', 'close', 'error', 'aborted']) response.on(event, () => seen.push(event))
      }, 20)
    })
    request.on('close', resolve)
    request.end()
  })
  agent.destroy()
  // How many pieces the body came in is the network's doing.
  return seen.filter((what, n) => what !== 'data' || seen[n - 1] !== 'data')
}

test('events, their order and the listeners of http are the same with Farcall as without', async () => {
  for (const path of ['/scenario/ok', '/scenario/bytes/500000', '/scenario/reset', '/scenario/truncate', '/scenario/garbage']) {
    // What breaks may do so before the listeners are there or after it: that is the network's doing, too.
    for (let left = 20; left > 0; left -= 1) {
      farcall.uninstall()
      const bare = await watch(path)
      farcall.install()
      const ours = await watch(path)
      if (left === 1) assert.deepEqual(ours, bare, path)
      if (isDeepStrictEqual(ours, bare)) break
    }
  }
})

test('the response of fetch is the one that undici made', async () => {
  farcall.install()
  farcall.uninstall()
  const bare = fetch
  farcall.install()
  assert.deepEqual([fetch.name, fetch.length], [bare.name, bare.length])
  farcall.uninstall()
  assert.equal(fetch, bare)
  farcall.install()
  const response = await fetch(plain + '/scenario/ok')
  assert.equal(Object.getPrototypeOf(response), Response.prototype)
  assert.deepEqual(Reflect.ownKeys(response).filter((key) => String(key).includes('farcall')), [])
  assert.deepEqual(await response.json(), { scenario: 'ok' })
})

test('where no rule decides, no call asks the engine before it is sent', async () => {
  farcall.install()
  const { native } = (await import('../lib/native.js')).default
  const addon = native()
  const { begin } = addon
  let begun = 0
  addon.begin = (request) => {
    begun += 1
    return begin(request)
  }
  await (await fetch(plain + '/scenario/ok')).text()
  await new Promise((resolve) => http.get(plain + '/scenario/ok', (response) => response.resume().on('end', resolve)))
  addon.begin = begin
  assert.equal(begun, 0)
})

test('an unread body stays paused, and holds the server back', async () => {
  farcall.install()
  const received = await new Promise((resolve) => {
    http.get(plain + '/scenario/bytes/50000000', (response) => {
      setTimeout(() => {
        resolve(response.socket.bytesRead)
        response.destroy()
      }, 100)
    })
  })
  assert(Number(received) < 40_000_000, `${received} bytes were read`)
})

test('a response that nobody listens for is read to its end by Node, and counted', async () => {
  farcall.install()
  const customer = newCustomer()
  await farcall.withCustomer(customer, () => new Promise((resolve, reject) => {
    http.get(plain + '/scenario/chunked?bytes=10000&chunks=10').on('close', () => resolve(undefined)).on('error', reject)
  }))
  await until('it is counted', async () => await outcomes(customer, 'complete', 200) === 1)
})

test('uninstall leaves the prototypes as they were', () => {
  farcall.uninstall()
  const before = ['emit', 'write', 'end', 'destroy', 'onSocket'].map((name) => Object.getOwnPropertyDescriptor(http.ClientRequest.prototype, name)?.value)
  farcall.install()
  assert.notEqual(http.ClientRequest.prototype.destroy, before[3])
  farcall.uninstall()
  assert.deepEqual(before, ['emit', 'write', 'end', 'destroy', 'onSocket'].map((name) => Object.getOwnPropertyDescriptor(http.ClientRequest.prototype, name)?.value))
})

/**
 * Runs a program with and without Farcall.
 *
 * @param {string} source
 */
function both (source) {
  const register = fileURLToPath(new URL('../lib/register.js', import.meta.url))
  const run = (/** @type {string[]} */ flags) => spawnSync(process.execPath, [...flags, '-e', source], { encoding: 'utf8', timeout: 120_000 })
  return { bare: run([]), ours: run(['--require', register]) }
}

test("an 'error' that nobody listens for still ends the process", () => {
  const { bare, ours } = both(`require('http').get('${plain}/scenario/reset')`)
  assert.equal(ours.status, 1)
  assert.match(ours.stderr, /Unhandled 'error' event/)
  assert.equal(ours.status, bare.status)
})

test('Farcall does not keep a process alive, nor listen where that shows', () => {
  const { bare, ours } = both("setTimeout(() => console.log('done'), 10)")
  assert.deepEqual([ours.status, ours.signal, ours.stdout], [bare.status, bare.signal, bare.stdout])
})

after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
