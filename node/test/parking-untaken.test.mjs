// Where the outbox cannot take a call, it fails as if no rule would have it parked.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import http, { createServer } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import farcall from '../index.js'
import { scratchDirectory } from './support/scratch.mjs'
import { thrown } from './support/throwing.mjs'

const scratch = scratchDirectory('untaken')
process.env.FARCALL_HOME = join(scratch, 'home')
process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
// What is to be a file is a directory.
mkdirSync(join(scratch, 'home', 'outbox.db'), { recursive: true })
writeFileSync(process.env.FARCALL_CONFIG, '[[outbox]]\nmatch = { host = "127.0.0.1" }\npark = true\nduplicates = true\n')
farcall.install({ service: 'parking-test' })

test('the application gets what the vendor said, or the error', async (t) => {
  const statuses = [503, 0, 503, 0]
  const server = createServer(async (request, response) => {
    for await (const _ of request);
    const status = statuses.shift() ?? 200
    if (status === 0) request.socket.destroy()
    else response.writeHead(status).end('down')
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const url = `http://127.0.0.1:${port}/v1/orders`
  const response = await fetch(url, { method: 'POST', body: 'a' })
  assert.deepEqual([response.status, await response.text()], [503, 'down'])
  await assert.rejects(fetch(url, { method: 'POST', body: 'a' }), TypeError)
  assert.equal(farcall.status().counters.unparked_calls, 2)

  /** @returns {Promise<import('node:http').IncomingMessage>} */
  const post = () => new Promise((resolve, reject) => {
    http.request(url, { method: 'POST' }, resolve).on('error', reject).end('a')
  })
  const late = await post()
  assert.equal(late.statusCode, 503)
  assert.equal(String(Buffer.concat(await late.toArray())), 'down')
  await assert.rejects(post(), { code: 'ECONNRESET' })
  assert.equal(farcall.status().counters.unparked_calls, 4)
})

test('the exceptions of the application are its own', async (t) => {
  const statuses = [0, 0, 0, 0, 503, 503]
  const server = createServer((request, response) => {
    const status = statuses.shift() ?? 200
    if (status === 0) request.socket.destroy()
    else response.writeHead(status).end('down')
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const url = `http://127.0.0.1:${port}/v1/orders`
  assert.deepEqual(await thrown('POST', url, 'none'), ['close', 'uncaught socket hang up'])
  assert.deepEqual(await thrown('POST', url, 'error'), ['close', 'error', 'uncaught mine'])
  assert.deepEqual(await thrown('POST', url, 'response'), ['close', 'response', 'uncaught mine'])
})
