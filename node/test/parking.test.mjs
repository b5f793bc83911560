// Calls that fail go into the outbox where a rule says so: fetch.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import farcall, { outbox } from '../index.js'

const scratch = mkdtempSync(join(tmpdir(), 'farcall-parking-'))
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

for (const [name, status] of /** @type {const} */ ([['answered with 503', 503], ['whose connection breaks', 0]])) {
  test(`a call ${name} is acknowledged and delivered later under the same key`, async (t) => {
    const { got, statuses, url } = await vendor(t)
    statuses.push(status)
    const response = await farcall.withCustomer('acme', () => fetch(url, {
      method: 'POST', body: new URLSearchParams({ amount: '7' }), headers: { 'x-mine': 'a' }
    }))
    assert.equal(response.status, 202)
    const id = Number(/^parked; id=(\d+)$/.exec(response.headers.get('farcall-outbox') ?? '')?.[1])
    const said = /** @type {any} */ (await response.json()).farcall
    assert.equal(said.id, id)
    const item = await outbox.wait(id)
    assert.deepEqual([item.state, item.customer], ['delivered', 'acme'], JSON.stringify(item))
    assert.equal(got.length, 2)
    for (const { headers, body } of got) {
      assert.equal(headers['idempotency-key'], said.idempotency_key)
      assert.deepEqual([body, headers['x-mine']], ['amount=7', 'a'])
      assert.match(headers['content-type'] ?? '', /^application\/x-www-form-urlencoded/)
    }
  })
}

test('a call that a quota refuses is parked without being sent', async (t) => {
  const { got, url } = await vendor(t)
  await farcall.withCustomer('limited', async () => {
    await fetch(url, { method: 'POST', body: 'first' })
    const response = await fetch(url, { method: 'POST', body: 'second' })
    const { why, id } = /** @type {any} */ (await response.json()).farcall
    assert.deepEqual([response.status, why], [202, 'refused by quota'])
    assert.equal((await outbox.item(id)).state, 'pending')
  })
  assert.deepEqual(got.map(({ body }) => body), ['first'])
})

test('a body that can be read only once is the application\'s to send again', async (t) => {
  const { statuses, url } = await vendor(t)
  statuses.push(503)
  const body = new Blob(['once']).stream()
  const response = await fetch(url, /** @type {any} */ ({ method: 'POST', body, duplex: 'half' }))
  assert.deepEqual([response.status, await response.text()], [503, 'thanks'])
})
