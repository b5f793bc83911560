// Calls that fail go into the outbox where a rule says so: http, and axios and got on top of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { checkServerIdentity, createSecureContext, rootCertificates } from 'node:tls'
import KeepAliveAgent from 'agentkeepalive'
import axios from 'axios'
import got from 'got'
import httpsProxyAgent from 'https-proxy-agent'
import farcall, { outbox } from '../index.js'
import { cert, key } from './support/certificate.mjs'
import { parkingRules, recorder } from './support/parking.mjs'
import { deafPort } from './support/sim.mjs'
import { thrown } from './support/throwing.mjs'

parkingRules()
farcall.install({ service: 'parking-test' })

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
    const request = (url.startsWith('https:') ? https : http).request(url, { method: 'POST', ...options }, async (response) => {
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
    const vendors = await recorder(t)
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
    const vendors = await recorder(t)
    vendors.statuses.push(status)
    const response = await axios.post(vendors.url, { amount: 7 })
    assert.equal(response.status, 202)
    assert.equal((await outbox.wait(response.data.farcall.id)).state, 'delivered')
    assert.deepEqual(vendors.got.map(({ body }) => body), ['{"amount":7}', '{"amount":7}'])
  })
}

test('a call that a quota refuses is parked without being sent', async (t) => {
  const vendors = await recorder(t)
  await farcall.withCustomer('limited', async () => {
    await ask(vendors.url, {}, (request) => request.end('first'))
    const { response, text } = await ask(vendors.url, {}, (request) => request.end('second'))
    const { why, id } = JSON.parse(text).farcall
    assert.deepEqual([response.statusCode, why], [202, 'refused by quota'])
    assert.equal((await outbox.item(id)).state, 'pending')
  })
  assert.deepEqual(vendors.got.map(({ body }) => body), ['first'])
})

test('a body that is written piece by piece over time is kept while it goes out', async (t) => {
  const vendors = await recorder(t)
  vendors.statuses.push(503)
  const { response, text } = await ask(vendors.url, { headers: { 'x-mine': 'a' } }, (request) => {
    request.write('one ')
    request.once('socket', () => setImmediate(() => request.end('two')))
  })
  assert.equal(response.statusCode, 202)
  const said = JSON.parse(text).farcall
  assert.equal((await outbox.wait(said.id)).state, 'delivered')
  assert.equal(vendors.got.length, 2)
  for (const { headers, body } of vendors.got) {
    assert.deepEqual([headers['idempotency-key'], body, headers['x-mine']], [said.idempotency_key, 'one two', 'a'])
  }
})

test('so is a stream', async (t) => {
  const vendors = await recorder(t)
  vendors.statuses.push(503)
  const parts = ['a'.repeat(100_000), 'b'.repeat(200_000), 'c'.repeat(300_000)]
  const { response, text } = await ask(vendors.url, {}, (request) => Readable.from(parts).pipe(request))
  assert.equal(response.statusCode, 202)
  assert.equal((await outbox.wait(JSON.parse(text).farcall.id)).state, 'delivered')
  assert.deepEqual(vendors.got.map(({ body }) => body === parts.join('')), [true, true])
})

test('so is what got sends', async (t) => {
  const vendors = await recorder(t)
  vendors.statuses.push(503)
  const response = await got.post(vendors.url, { json: { amount: 7 }, retry: { limit: 0 } })
  assert.equal(response.statusCode, 202)
  assert.equal((await outbox.wait(JSON.parse(response.body).farcall.id)).state, 'delivered')
  assert.deepEqual(vendors.got.map(({ body }) => body), ['{"amount":7}', '{"amount":7}'])
})

test('what the vendor refuses before all of it was written is the application\'s to send again', async (t) => {
  const server = http.createServer((_, response) => response.writeHead(503).end('not now')).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const request = http.request(`http://127.0.0.1:${port}/`, { method: 'POST' })
  request.on('error', () => {})
  request.write('one ')
  const [response] = await once(request, 'response')
  assert.deepEqual([response.statusCode, String(Buffer.concat(await response.toArray()))], [503, 'not now'])
  request.destroy()
})

test('a body that is not whole when a quota refuses it is refused', async (t) => {
  const vendors = await recorder(t)
  await farcall.withCustomer('limited', async () => {
    await ask(vendors.url, {}, (request) => request.end('first'))
    const refused = ask(vendors.url, {}, (request) => request.write('second '))
    await assert.rejects(refused, { code: 'ERR_FARCALL_REFUSED' })
  })
})

/** @param {import('node:http').RequestOptions & import('node:https').AgentOptions} options */
const posting = (options) => async (/** @type {string} */ url) =>
  (await ask(url, options, (request) => request.end('one'))).response.statusCode

for (const [name, call, plain] of /** @type {const} */ ([
  ['of an agent', posting({ agent: new https.Agent({ cert, key }) }), posting({ agent: new https.Agent() })],
  ['of its own', posting({ cert, key }), posting({})],
  ['in a context', posting({ secureContext: createSecureContext({ cert, key }) }), posting({ secureContext: createSecureContext() })]
])) {
  test(`a call with a client certificate ${name} is not parked, for a delivery would not have it`, async () => {
    const url = `https://127.0.0.1:${await deafPort()}/`
    const unparkable = () => farcall.status().counters.unparkable_calls ?? 0
    const before = unparkable()
    await assert.rejects(call(url), { code: 'ECONNREFUSED' })
    assert.equal(unparkable(), before + 1)
    // One without is.
    assert.equal(await plain(url), 202)
    assert.equal(unparkable(), before + 1)
  })
}

/** @param {object} proxy */
const byAxios = (proxy) => async (/** @type {string} */ url) =>
  (await axios.post(url, 'one', { proxy: /** @type {any} */ (proxy), validateStatus: null })).status

class Tunnel extends https.Agent {
  /** @type {any} */
  createConnection = (/** @type {any} */ options) => connect({ ...options, host: '127.0.0.1' })
}

// Nobody listens anywhere, so each of these fails before it is sent.
for (const [name, words, secure, call] of /** @type {const} */ ([
  ['through a proxy, by axios', 'goes through a proxy', false, byAxios({ protocol: 'http', host: '127.0.0.1', port: 1 })],
  ['by an agent that connects in its own way', 'in a way of its own', true, posting({ agent: new Tunnel() })],
  ['without verifying', 'takes any certificate', true, posting({ rejectUnauthorized: false })],
  ['trusting others', 'certificate authorities of its own', true, posting({ agent: new https.Agent({ ca: cert }) })],
  ['to another name', 'another name in the certificate', true, posting({ servername: 'other.example' })],
  ['to another name, by its agent', 'another name in the certificate', true, posting({ agent: new https.Agent({ servername: 'other.example' }) })],
  ['with a check of its own', 'another name in the certificate', true, posting({ checkServerIdentity: () => undefined })],
  ['with another Host', 'another host than its `Host` header names', false, posting({ headers: { host: 'localhost' } })],
  ['with another Host in a list', 'another host than its `Host` header names', true, posting({ headers: /** @type {any} */ (['Host', 'localhost']) })],
  ['with another port in its Host', 'another host than its `Host` header names', false, posting({ headers: { host: '127.0.0.1:2' } })],
  ['to a host of its agent\'s', 'in a way of its own', false, posting({ agent: new http.Agent(/** @type {any} */ ({ port: 1 })) })]
])) {
  test(`a call ${name} is not parked, for a delivery goes straight to its URL`, async () => {
    const url = `${secure ? 'https' : 'http'}://127.0.0.1:${await deafPort()}/`
    const unparkable = () => farcall.status().counters.unparkable_calls ?? 0
    const before = unparkable()
    await assert.rejects(call(url), { code: 'ECONNREFUSED' })
    assert.equal(unparkable(), before + 1)
    await farcall.flush()
    const { rows } = /** @type {any} */ (await farcall.report('calls'))
    const stories = rows.map((/** @type {any} */ { events }) => events.join('\n'))
    assert.match(stories.join('\n'), new RegExp(`would have it parked, but.*${words}`))
    const both = stories.filter((/** @type {string} */ story) => story.includes('would have it') && story.includes('has it parked'))
    assert.deepEqual(both, [])
  })
}

for (const [name, secure, call] of /** @type {const} */ ([
  ['through a proxy, by an agent that is none of Node\'s', true, posting({ agent: /** @type {any} */ (httpsProxyAgent('http://127.0.0.1:1')) })],
  ['through a Unix socket', false, posting({ socketPath: process.execPath })],
  ['by a connection of its own', false, posting({ createConnection: () => connect(1, '127.0.0.1') })]
])) {
  test(`a call ${name} fails before it is known where it goes, and is not parked`, async () => {
    const url = `${secure ? 'https' : 'http'}://127.0.0.1:${await deafPort()}/`
    await assert.rejects(call(url), { code: 'ECONNREFUSED' })
  })
}

test('so is what got cannot send, which asks for the end of its request to be told', async () => {
  // Over TLS Node tells it of a request that did not end before it tells of the failure.
  for (const scheme of ['http', 'https']) {
    for (const options of [{ body: 'a' }, { json: { amount: 7 } }, {}]) {
      const { statusCode } = await got.post(`${scheme}://127.0.0.1:${await deafPort()}/`, { ...options, throwHttpErrors: false, retry: { limit: 0 } })
      assert.equal(statusCode, 202)
    }
  }
})

for (const [scheme, Agent] of /** @type {const} */ ([['http', KeepAliveAgent], ['https', KeepAliveAgent.HttpsAgent]])) {
  test(`a call by agentkeepalive is parked, which connects as Node does: ${scheme}`, async () => {
    const url = `${scheme}://127.0.0.1:${await deafPort()}/`
    assert.equal(await posting({ agent: new Agent() })(url), 202)
    const changed = new Agent()
    changed.createConnection = () => connect(1, '127.0.0.1')
    await assert.rejects(posting({ agent: changed })(url), { code: 'ECONNREFUSED' })
    const made = /** @type {any} */ (new (class extends /** @type {any} */ (Agent) { createConnection () { return connect(1, '127.0.0.1') } })())
    await assert.rejects(posting({ agent: made })(url), { code: 'ECONNREFUSED' })
  })
}

test('a call that names the check that Node makes anyway is parked, as those of got do', async () => {
  const url = `https://127.0.0.1:${await deafPort()}/`
  assert.equal(await posting({ checkServerIdentity })(url), 202)
})

test('a call that trusts what the system does is parked', async () => {
  const url = `https://127.0.0.1:${await deafPort()}/`
  const call = posting({ agent: new https.Agent({ ca: [...rootCertificates] }) })
  assert.equal(await call(url), 202)
})

test('a body that is too large to keep is sent, and is the application\'s to send again', async (t) => {
  const vendors = await recorder(t)
  vendors.statuses.push(503)
  const { response } = await ask(vendors.url, {}, (request) => request.end('x'.repeat(1024 * 1024 + 1)))
  assert.equal(response.statusCode, 503)
  assert.deepEqual(vendors.got.map(({ body }) => body.length), [1024 * 1024 + 1])
})

test('a call that succeeds passes as it is', async (t) => {
  const vendors = await recorder(t)
  const response = await got.post(vendors.url, { json: { amount: 7 } })
  assert.deepEqual([response.statusCode, response.body], [200, 'thanks'])
  assert.deepEqual(vendors.got.map(({ body }) => body), ['{"amount":7}'])
})

test('one that the application lets go of before it is written whole is not sent', async (t) => {
  const vendors = await recorder(t)
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

test('one whose signal has aborted already fails and is over', async (t) => {
  const vendors = await recorder(t)
  const request = http.request(vendors.url, { method: 'POST', signal: AbortSignal.abort() })
  const closed = new Promise((resolve) => request.once('close', resolve))
  const failed = once(request, 'error')
  request.end('one')
  assert.equal((await failed)[0].name, 'AbortError')
  await closed
  assert.deepEqual(vendors.got, [])
  assert.equal(farcall.status().inFlight, 0)
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
  const vendors = await recorder(t)
  vendors.statuses.push(503, 503)
  assert.deepEqual(await thrown('POST', vendors.url, 'response'), ['close', 'response', 'uncaught mine'])
})
