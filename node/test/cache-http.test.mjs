// Calls that need not be made, with what only http lets an application do: headers that are set late, agents, sockets.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { test } from 'node:test'
import { answer, asked, cachingRules, clients, newPath, request, says, script } from './support/caching.mjs'
import { newCustomer } from './support/ledger.mjs'
import { forget, tls } from './support/sim.mjs'
import { thrown } from './support/throwing.mjs'

cachingRules()

test('http: a credential that is set after the request was made keeps answers apart', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  for (const key of ['one', 'two', 'one', 'two']) {
    const made = request(tls + path, {})
    made.setHeader('authorization', key)
    made.end()
    assert.equal((await answer(made)).status, 200)
  }
  assert.equal(await asked(), 2)
})

test('http: agents are kept apart, for what their connections say of who asks', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  const agents = [new https.Agent(), new https.Agent()]
  for (const agent of [...agents, ...agents]) await answer(request(tls + path, { agent }).end())
  assert.equal(await asked(), 2)
})

test('http: an answer that is kept needs no socket of the agent', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const get = () => answer(request(tls + path, { agent }).end())
  await get()
  const hanging = request(tls + '/scenario/hang', { agent }).end()
  const gone = new Promise((resolve) => hanging.once('error', resolve))
  assert.match((await get()).headers['cache-status'], /hit/)
  hanging.destroy(new Error('enough'))
  await gone
  agent.destroy()
})

test('http: a confirmed answer gives its socket back', async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const customer = newCustomer()
  const url = `${tls}/scenario/etag?for=${customer}`
  const sockets = new Set()
  for (let n = 0; n < 4; n += 1) {
    const made = request(url, { agent })
    made.once('socket', (socket) => sockets.add(socket))
    const closed = new Promise((resolve) => made.once('close', resolve))
    assert.equal((await answer(made.end())).body, 'the same as ever')
    await closed
  }
  assert.equal(sockets.size, 1)
  assert.equal(await asked(), 4)
  agent.destroy()
})

/** Asks as Stripe's SDK does: it writes once it has a socket. @param {string} url @param {Record<string, string>} [added] */
function askLate (url, added = {}) {
  const made = request(url, {})
  made.once('socket', (socket) => {
    const write = () => {
      for (const [name, value] of Object.entries(added)) made.setHeader(name, value)
      made.write('')
      made.end()
    }
    if (socket.connecting) socket.once('secureConnect', write)
    else write()
  })
  return answer(made)
}

test('http: who writes only once he has a socket gets one, and what is kept', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  assert.equal((await askLate(tls + path)).body, 'what the vendor says')
  const { body, headers } = await askLate(tls + path)
  assert.equal(body, 'what the vendor says')
  assert.match(headers['cache-status'], /hit/)
  assert.equal(await asked(), 1)
})

test('http: who adds a credential after that neither gets what is kept for others nor leaves them his', async () => {
  const [one, other] = [newPath(), newPath()]
  await script(says(one, { 'cache-control': 'max-age=600', etag: '"a"' }), says(other, { 'cache-control': 'max-age=0', etag: '"a"' }))
  for (const path of [one, other]) {
    await forget()
    assert.equal((await askLate(tls + path)).headers['cache-status'], undefined)
    for (let n = 0; n < 2; n += 1) {
      const { status, body, headers } = await askLate(tls + path, { authorization: `mine ${n}` })
      assert.deepEqual([status, body, headers['cache-status']], [200, 'what the vendor says', undefined])
    }
    assert((await asked()) >= 3)
  }
  assert.match((await askLate(tls + one)).headers['cache-status'], /hit/)
})

test('http: a request that is let go of before anything was asked ends', async () => {
  const made = request(tls + newPath(), {})
  const error = new Promise((resolve) => made.once('error', resolve))
  const closed = new Promise((resolve) => made.once('close', resolve))
  made.destroy(new Error('enough'))
  assert.equal((await error).message, 'enough')
  await closed
})

test('http: a request whose connection cannot be made at all fails and is over', async () => {
  for (const isWritten of [true, false]) {
    const made = http.request({ host: '127.0.0.1', port: 70000 })
    const error = once(made, 'error')
    const closed = new Promise((resolve) => made.once('close', resolve))
    if (isWritten) made.end()
    assert.equal((await error)[0].code, 'ERR_SOCKET_BAD_PORT')
    await closed
  }
})

test('http: what a listener of a confirmed answer throws is the application\'s to see, and it is called once', async (t) => {
  const server = http.createServer((request, response) => {
    const isKnown = request.headers['if-none-match'] !== undefined
    response.writeHead(isKnown ? 304 : 200, { etag: '"a"', 'cache-control': 'max-age=0' }).end(isKnown ? undefined : 'kept')
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  assert.deepEqual(await thrown('GET', `http://127.0.0.1:${port}/`, 'response'), ['close', 'response', 'uncaught mine'])
})

test('http: with nobody there, what is kept is handed out', async () => {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { etag: '"a"', 'cache-control': 'max-age=0' }).end('kept')
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const url = `http://127.0.0.1:${port}/`
  for (const get of Object.values(clients)) assert.equal((await get(url)).body, 'kept')
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  for (const [name, get] of Object.entries(clients)) {
    const { status, body, headers } = await get(url)
    assert.deepEqual([status, body], [200, 'kept'], name)
    assert.match(headers['cache-status'], /stale-if-error/)
  }
})

test('http: a request whose signal has aborted already fails and is over', async () => {
  const made = request(tls + newPath(), { signal: AbortSignal.abort() }).end()
  const closed = new Promise((resolve) => made.once('close', resolve))
  await assert.rejects(answer(made), { name: 'AbortError' })
  await closed
  assert.equal(await asked(), 0)
})
