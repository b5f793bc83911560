// On whose behalf: the scope that a call was begun in, and no other.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import http from 'node:http'
import farcall from '../index.js'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

/** @param {string} path */
async function get (path) {
  return await (await fetch(plain + path)).text()
}

test('withCustomer returns what the function returns, and passes arguments on', async () => {
  assert.equal(farcall.withCustomer('acme', (a, b) => a + b, 1, 2), 3)
  assert.equal(await farcall.withCustomer('acme', async () => 'later'), 'later')
  assert.throws(() => farcall.withCustomer('acme', () => { throw new RangeError('mine') }), RangeError)
})

test('a scope ends with its function, also when it throws', async () => {
  const customer = newCustomer()
  const before = (await counted('unknown')).calls
  assert.throws(() => farcall.withCustomer(customer, () => { throw new Error('mine') }))
  await get('/scenario/ok')
  assert.equal((await counted(customer)).calls, 0)
  assert.equal((await counted('unknown')).calls, before + 1)
})

test('what a scope starts stays in it after the function has returned', async () => {
  const customer = newCustomer()
  await farcall.withCustomer(customer, () => new Promise((resolve) => setTimeout(resolve, 5)).then(() => get('/scenario/ok')))
  assert.equal((await counted(customer)).calls, 1)
})

test('a stream read outside of the scope settles on the customer who began it', async () => {
  const customer = newCustomer()
  const response = await farcall.withCustomer(customer, fetch, plain + '/scenario/chunked?bytes=5000&chunks=5&every_ms=5')
  await farcall.withCustomer('somebody-else', () => response.text())
  assert.deepEqual(await counted(customer, 'outcome=complete'), { calls: 1, bytesOut: 0, bytesIn: 5_000 })
})

test('a response that is forgotten is abandoned once it is collected, on its customer', async () => {
  const customer = newCustomer()
  const forget = async () => { await farcall.withCustomer(customer, fetch, plain + '/scenario/endless') }
  await forget()
  const { setFlagsFromString } = await import('node:v8')
  setFlagsFromString('--expose-gc')
  const collect = (await import('node:vm')).runInNewContext('gc')
  await until('it is abandoned', async () => {
    collect()
    return await outcomes(customer, 'abandoned', 200) === 1
  })
})

test('an inner customer wins, and the outer one is back behind it', async () => {
  const [outer, inner] = [newCustomer(), newCustomer()]
  await farcall.withCustomer(outer, async () => {
    await get('/scenario/ok')
    await farcall.withCustomer(inner, get, '/scenario/ok')
    await get('/scenario/ok')
  })
  assert.equal((await counted(outer)).calls, 2)
  assert.equal((await counted(inner)).calls, 1)
})

test('tags add up inwards, beside the customer', async () => {
  const customer = newCustomer()
  await farcall.withTags({ job: 'nightly', plan: 'free' }, () =>
    farcall.withCustomer(customer, () =>
      farcall.withTags({ plan: 'paid', shard: 7 }, get, '/scenario/ok')))
  const call = `customer=${customer}`
  for (const tag of ['job=nightly', 'plan=paid', 'shard=7']) {
    assert.equal((await counted(customer, `tag=${tag}`)).calls, 1, tag)
  }
  assert.equal((await counted(customer, 'tag=plan=free')).calls, 0, call)
})

test('a request that waits for a socket of its agent keeps the scope it was made in', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  const names = [newCustomer(), newCustomer(), newCustomer()]
  /** @param {string} name */
  const ask = (name) => new Promise((resolve, reject) => {
    farcall.withCustomer(name, () => {
      http.get(plain + '/scenario/slow?ms=20', { agent }, (response) => response.resume().on('end', resolve)).on('error', reject)
    })
  })
  await Promise.all(names.map(ask))
  agent.destroy()
  for (const name of names) assert.equal((await counted(name, 'outcome=complete')).calls, 1)
})

test("undici's own redirects and retries stay with the customer, on a connection that another one opened", async () => {
  const undici = await import('undici')
  const agent = new undici.Agent({ connections: 1 })
  const dispatcher = agent.compose(
    undici.interceptors.retry({ maxRetries: 1, minTimeout: 10, statusCodes: [500] }),
    undici.interceptors.redirect({ maxRedirections: 5 })
  )
  const [first, second] = [newCustomer(), newCustomer()]
  /** @param {string} path */
  const ask = async (path) => {
    const { body } = await undici.request(plain + path, { dispatcher })
    await body.text()
  }
  await farcall.withCustomer(first, ask, '/scenario/ok')
  await farcall.withCustomer(second, ask, '/scenario/redirect/1')
  await farcall.withCustomer(second, () => ask('/scenario/500').catch(() => {}))
  await agent.close()
  assert.equal((await counted(first)).calls, 1)
  assert.equal((await counted(second, 'status=302')).calls, 2)
  assert.equal((await counted(second, 'status=200')).calls, 1)
  assert.equal((await counted(second, 'status=500')).calls, 2)
})

test('more customers than the addon keeps numbers for are still told apart', async () => {
  const { MOST } = (await import('../lib/names.js')).default
  const prefix = newCustomer()
  const many = MOST + 10
  for (let n = 0; n < many; n += 1) await farcall.withCustomer(`${prefix}-${n}`, get, '/scenario/ok')
  assert.equal((await counted(`${prefix}-*`)).calls, many)
  for (const n of [0, MOST - 1, MOST, many - 1]) assert.equal((await counted(`${prefix}-${n}`)).calls, 1)
})
