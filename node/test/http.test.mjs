// What only http can do: upgrades, expectations, proxies' request lines, headers as a list; and what
// connecting takes.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { after, test } from 'node:test'
import farcall from '../index.js'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'
import { plain, tls } from './support/sim.mjs'

farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

/**
 * @param {string | http.RequestOptions} what
 * @param {http.RequestOptions} [options]
 * @param {string} [body]
 */
function ask (what, options = {}, body) {
  return new Promise((resolve, reject) => {
    const request = typeof what === 'string'
      ? (what.startsWith('https') ? https : http).request(what, options)
      : http.request(what)
    request.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode)))
    request.on('error', reject)
    request.end(body)
  })
}

/** @param {http.RequestListener} [answer] */
async function server (answer) {
  const server = http.createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return { server, origin: `http://127.0.0.1:${port}` }
}

/** @param {string} customer */
async function vendors (customer) {
  await farcall.flush()
  const { rows } = await farcall.report('vendors', { filter: `customer=${customer}` })
  return rows.map((row) => row.vendor)
}

test('an upgrade is complete at its head', async () => {
  const customer = newCustomer()
  const { server: upgrading, origin } = await server()
  upgrading.on('upgrade', (_, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'))
  await farcall.withCustomer(customer, async () => {
    const request = http.request(origin, { headers: { connection: 'upgrade', upgrade: 'x' } }).end()
    const [, socket] = await once(request, 'upgrade')
    socket.destroy()
  })
  upgrading.close()
  assert.equal(await outcomes(customer, 'complete', 101), 1)
})

test("undici's upgrade, and so a WebSocket, is complete at its head", async () => {
  const undici = await import('undici')
  const customer = newCustomer()
  const { server: upgrading, origin } = await server()
  upgrading.on('upgrade', (_, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'))
  await farcall.withCustomer(customer, async () => {
    const { socket } = await undici.upgrade(origin, { protocol: 'x' })
    socket.destroy()
  })
  upgrading.close()
  assert.equal(await outcomes(customer, 'complete', 101), 1)
})

test('an interim response is not the response', async () => {
  const customer = newCustomer()
  const { server: hinting, origin } = await server((_, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' })
    response.end('body')
  })
  await farcall.withCustomer(customer, ask, origin)
  await farcall.withCustomer(customer, async () => (await fetch(origin)).text())
  hinting.close()
  assert.deepEqual(await counted(customer, 'status=200', 'outcome=complete'), { calls: 2, bytesOut: 0, bytesIn: 8 })
})

test('a body that waits for 100 Continue counts when it goes out', async () => {
  const customer = newCustomer()
  await farcall.withCustomer(customer, () => new Promise((resolve, reject) => {
    const request = http.request(`${plain}/scenario/echo`, {
      method: 'POST',
      headers: { expect: '100-continue', 'content-length': 5 }
    })
    request.on('continue', () => request.end('hello'))
    request.on('response', (response) => response.resume().on('end', resolve))
    request.on('error', reject)
    request.flushHeaders()
  }))
  assert.deepEqual(await counted(customer, 'outcome=complete'), { calls: 1, bytesOut: 5, bytesIn: 5 })
})

test('a body in several writes and encodings counts in bytes', async () => {
  const customer = newCustomer()
  await farcall.withCustomer(customer, () => new Promise((resolve, reject) => {
    const request = http.request(`${plain}/scenario/echo`, { method: 'POST' })
    request.on('response', (response) => response.resume().on('end', resolve)).on('error', reject)
    request.write('grüße')
    request.write(Buffer.from('abc'))
    request.write('ffff', 'hex')
    request.end('€', 'utf8')
  }))
  assert.deepEqual(await counted(customer, 'outcome=complete'), { calls: 1, bytesOut: 15, bytesIn: 15 })
})

test('the vendor is the one of the Host header, however the headers are given', async () => {
  const { hostname, port } = new URL(plain)
  for (const headers of [{ host: 'api.stripe.com' }, ['Host', 'api.stripe.com', 'Accept', '*/*']]) {
    const customer = newCustomer()
    await farcall.withCustomer(customer, ask, { hostname, port, path: '/scenario/ok', headers: /** @type {any} */ (headers) })
    assert.deepEqual(await vendors(customer), ['stripe'])
  }
})

test('the vendor of a request to a proxy is the one in its request line', async () => {
  const { hostname, port } = new URL(plain)
  const customer = newCustomer()
  await farcall.withCustomer(customer, ask, { hostname, port, path: 'http://api.github.com/scenario/ok?token=secret' })
  assert.deepEqual(await vendors(customer), ['github'])
})

test('a tunnel through a proxy is not a call', async () => {
  const customer = newCustomer()
  const { server: proxy, origin } = await server()
  proxy.on('connect', (_, socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n'))
  const { hostname, port } = new URL(origin)
  await farcall.withCustomer(customer, async () => {
    const request = http.request({ hostname, port, method: 'CONNECT', path: 'api.github.com:443' }).end()
    await once(request, 'connect')
  })
  proxy.close()
  assert.equal((await counted(customer)).calls, 0)
})

test('what connecting takes is known for the first call of a connection only', async () => {
  const agent = new https.Agent({ keepAlive: true })
  const undici = await import('undici')
  const clients = {
    https: () => ask(`${tls}/scenario/ok`, { agent }),
    undici: async () => (await undici.request(`${tls}/scenario/ok`, { dispatcher })).body.text()
  }
  const dispatcher = new undici.Agent({ connections: 1 })
  for (const [name, make] of Object.entries(clients)) {
    const customer = newCustomer()
    for (let n = 0; n < 3; n += 1) await farcall.withCustomer(customer, make)
    await farcall.flush()
    const { rows: [row] } = await farcall.report('endpoints', { filter: `customer=${customer}` })
    assert.equal(row.calls, 3, name)
    assert.equal(row.connections, 1, name)
    assert(Number(row.dns_ms) > 0 && Number(row.connect_ms) > 0 && Number(row.tls_ms) > 0, name)
  }
  agent.destroy()
  await dispatcher.close()
})

test('an idle socket that times out, and is then let go of, is a timeout', async () => {
  const customer = newCustomer()
  await assert.rejects(farcall.withCustomer(customer, () => new Promise((resolve, reject) => {
    const request = http.get(`${plain}/scenario/hang`, { timeout: 50 }, resolve)
    request.on('timeout', () => request.destroy()).on('error', reject)
  })))
  assert.equal(await outcomes(customer, 'timeout', 0), 1)
})

test('a request that is cancelled before its head is of type cancelled', async () => {
  const customer = newCustomer()
  const controller = new AbortController()
  const { signal } = controller
  const before = farcall.status().inFlight
  const calls = farcall.withCustomer(customer, () => Promise.allSettled([
    ask(`${plain}/scenario/hang`, { signal }),
    fetch(`${plain}/scenario/hang`, { signal })
  ]))
  await until('both are under way', () => farcall.status().inFlight === before + 2)
  controller.abort()
  await calls
  // undici lets go of a connection that is being made once it is there.
  await until('both are counted', () => farcall.status().inFlight === before)
  assert.equal(await outcomes(customer, 'cancelled', 0), 2)
})
