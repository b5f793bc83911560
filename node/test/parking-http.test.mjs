// Calls that fail go into the outbox where a rule says so: http, and axios and got on top of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http, { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import axios from 'axios'
import got from 'got'
import farcall, { outbox } from '../index.js'
import { thrown } from './support/throwing.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-parking-http-'))
after(() => rmSync(scratch, { recursive: true }))
process.env.FARCALL_HOME = join(scratch, 'home')
process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[vendor]]
name = "recorder"
hosts = ["127.0.0.1"]
idempotency_header = "Idempotency-Key"

[[outbox]]
name = "orders"
match = { vendor = "recorder" }
park = true

[[quota]]
match = { customer = "limited" }
limit = "1 request / day"
max_wait = "0s"
`)
farcall.install({ service: 'parking-test' })

/** @param {import('node:test').TestContext} t */
async function vendor (t) {
  /** @type {{ headers: import('node:http').IncomingHttpHeaders, body: string }[]} */
  const got = []
  /** What the next requests are answered with; 0 for a connection that breaks off. */
  const statuses = /** @type {number[]} */ ([])
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    got.push({ headers: request.headers, body })
    const status = statuses.shift() ?? 200
    if (status === 0) request.socket.destroy()
    else response.writeHead(status).end('thanks')
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return { got, statuses, url: `http://127.0.0.1:${port}/v1/orders` }
}

/**
 * What the application gets: the response with its text, or the error.
 *
 * @param {string} url
 * @param {import('node:http').RequestOptions} options
 * @param {(request: import('node:http').ClientRequest) => void} write
 * @returns {Promise<{ response: import('node:http').IncomingMessage, text: string }>}
 */
function ask (url, options, write) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: 'POST', ...options }, async (response) => {
      let text = ''
      response.setEncoding('utf8')
      for await (const chunk of response) text += chunk
      resolve({ response, text })
    })
    request.on('error', reject)
    write(request)
  })
}

for (const [name, status] of /** @type {const} */ ([['answered with 503', 503], ['whose connection breaks', 0]])) {
  test(`a call ${name} is acknowledged and delivered later under the same key`, async (t) => {
    const vendors = await vendor(t)
    vendors.statuses.push(status)
    const { response, text } = await farcall.withCustomer('acme', () => ask(vendors.url, { headers: { 'x-mine': 'a' } }, (request) => {
      request.setHeader('content-type', 'text/plain')
      request.write('one ')
      request.end('two')
    }))
    assert.equal(response.statusCode, 202)
    const said = JSON.parse(text).farcall
    assert.equal(response.headers['farcall-outbox'], `parked; id=${said.id}`)
    const item = await outbox.wait(said.id)
    assert.deepEqual([item.state, item.customer], ['delivered', 'acme'], JSON.stringify(item))
    assert.equal(vendors.got.length, 2)
    for (const { headers, body } of vendors.got) {
      assert.equal(headers['idempotency-key'], said.idempotency_key)
      assert.deepEqual([body, headers['x-mine'], headers['content-type']], ['one two', 'a', 'text/plain'])
    }
  })

  test(`so is one of axios ${name}`, async (t) => {
    const vendors = await vendor(t)
    vendors.statuses.push(status)
    const response = await axios.post(vendors.url, { amount: 7 })
    assert.equal(response.status, 202)
    assert.equal((await outbox.wait(response.data.farcall.id)).state, 'delivered')
    assert.deepEqual(vendors.got.map(({ body }) => body), ['{"amount":7}', '{"amount":7}'])
  })
}

test('a call that a quota refuses is parked without being sent', async (t) => {
  const vendors = await vendor(t)
  await farcall.withCustomer('limited', async () => {
    await ask(vendors.url, {}, (request) => request.end('first'))
    const { response, text } = await ask(vendors.url, {}, (request) => request.end('second'))
    const { why, id } = JSON.parse(text).farcall
    assert.deepEqual([response.statusCode, why], [202, 'refused by quota'])
    assert.equal((await outbox.item(id)).state, 'pending')
  })
  assert.deepEqual(vendors.got.map(({ body }) => body), ['first'])
})

test('a body that is written piece by piece over time is the application\'s to send again', async (t) => {
  const vendors = await vendor(t)
  vendors.statuses.push(503)
  const { response, text } = await ask(vendors.url, {}, (request) => {
    request.write('one ')
    request.once('socket', () => request.end('two'))
  })
  assert.deepEqual([response.statusCode, text], [503, 'thanks'])
  assert.deepEqual(vendors.got.map(({ body }) => body), ['one two'])
})

test('a body that is too large to keep is sent, and is the application\'s to send again', async (t) => {
  const vendors = await vendor(t)
  vendors.statuses.push(503)
  const { response } = await ask(vendors.url, {}, (request) => request.end('x'.repeat(1024 * 1024 + 1)))
  assert.equal(response.statusCode, 503)
  assert.deepEqual(vendors.got.map(({ body }) => body.length), [1024 * 1024 + 1])
})

test('a call that succeeds passes as it is', async (t) => {
  const vendors = await vendor(t)
  const response = await got.post(vendors.url, { json: { amount: 7 } })
  assert.deepEqual([response.statusCode, response.body], [200, 'thanks'])
  assert.deepEqual(vendors.got.map(({ body }) => body), ['{"amount":7}'])
})

test('one that the application lets go of before it is written whole is not sent', async (t) => {
  const vendors = await vendor(t)
  const request = http.request(vendors.url, { method: 'POST' })
  request.on('error', () => {})
  request.write('one ')
  request.destroy()
  await new Promise((resolve) => { request.on('close', resolve) })
  await new Promise(setImmediate)
  const { response } = await ask(vendors.url, {}, (request) => request.end('other'))
  assert.equal(response.statusCode, 200)
  assert.deepEqual(vendors.got.map(({ body }) => body), ['other'])
})

test('one whose connection cannot be made at all fails and is over', async () => {
  const { problems } = farcall.status()
  const request = http.request({ host: '127.0.0.1', port: 70000, method: 'POST' })
  const error = once(request, 'error')
  const closed = new Promise((resolve) => request.once('close', resolve))
  request.end('one')
  assert.equal((await error)[0].code, 'ERR_SOCKET_BAD_PORT')
  await closed
  assert.deepEqual(farcall.status().problems, problems)
  assert.equal(farcall.status().inFlight, 0)
})

test('what a listener of a parked call throws is the application\'s to see, and it is called once', async (t) => {
  const vendors = await vendor(t)
  vendors.statuses.push(503, 503)
  assert.deepEqual(await thrown('POST', vendors.url, 'response'), ['close', 'response', 'uncaught mine'])
})
