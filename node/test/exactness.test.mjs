// Every call once, every byte of a body, for each client: as vendor-sim counted them at the other end.
import assert from 'node:assert/strict'
import { after, beforeEach, test } from 'node:test'
import farcall from '../index.js'
import { call, clients } from './support/clients.mjs'
import { counted, newCustomer, outcomes, until } from './support/ledger.mjs'
import { arrived, deafPort, forget, plain, resolveHere, tls } from './support/sim.mjs'

farcall.install()
resolveHere('bad-cert.example')
beforeEach(forget)
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

/** @typedef {keyof typeof clients} Client */

/** The redirects of these are left to their users. */
const redirectsAlone = ['http']

const usual = {
  method: 'GET',
  headers: {},
  body: /** @type {string | null} */ (null),
  timeout_ms: 60_000,
  follow_redirects: true,
  read: /** @type {const} */ ('all')
}

/**
 * @param {Client} client
 * @param {string} customer
 * @param {string} url
 * @param {Partial<import('./support/clients.mjs').Command>} [options]
 */
function make (client, customer, url, options) {
  return farcall.withCustomer(customer, call, client, { ...usual, url, ...options })
}

/** What is asked, and which calls that makes. */
const whole = {
  'a small answer': { path: '/scenario/ok?secret=1', calls: 1 },
  'an empty answer': { path: '/scenario/bytes/0', calls: 1 },
  'an answer without a body': { path: '/scenario/status/204', calls: 1 },
  'a large answer': { path: '/scenario/bytes/3000001', calls: 1 },
  'a head': { path: '/scenario/bytes/1000', method: 'HEAD', calls: 1 },
  'a body both ways, in bytes and not in characters': { path: '/scenario/echo', method: 'POST', body: 'grüße €', calls: 1 },
  'large bodies both ways': { path: '/scenario/echo', method: 'POST', body: 'x'.repeat(700_001), calls: 1 },
  'a compressed answer, as it was on the wire': { path: '/scenario/gzip?lines=1000', calls: 1 },
  'an answer in chunks, without their framing': { path: '/scenario/chunked?bytes=100003&chunks=37', calls: 1 },
  'a stream of events': { path: '/scenario/sse?events=20&every_ms=1', calls: 1 },
  'a failure of the server': { path: '/scenario/500', calls: 1 },
  'a redirect and its hops': { path: '/scenario/redirect/2', calls: 4 }
}

for (const client of /** @type {Client[]} */ (Object.keys(clients))) {
  for (const [name, { path, calls, ...options }] of Object.entries(whole)) {
    if (calls > 1 && redirectsAlone.includes(client)) continue
    for (const origin of [tls, plain]) {
      test(`${client} over ${new URL(origin).protocol}//: ${name} counts exactly`, async () => {
        const customer = newCustomer()
        await make(client, customer, origin + path, options)
        const there = await arrived()
        assert.deepEqual(await counted(customer, 'outcome=complete'), there)
        assert.equal(there.calls, calls)
      })
    }
  }

  test(`${client}: a refused connection is of type connect, and sends nothing`, async () => {
    const customer = newCustomer()
    const url = `http://127.0.0.1:${await deafPort()}/`
    await assert.rejects(make(client, customer, url, { method: 'POST', body: 'never sent' }))
    assert.deepEqual(await counted(customer, 'outcome=connect', 'status=0'), { calls: 1, bytesOut: 0, bytesIn: 0 })
  })

  test(`${client}: a name that does not resolve is of type dns`, async () => {
    const customer = newCustomer()
    await assert.rejects(make(client, customer, 'http://no-such-name.invalid/'))
    assert.equal(await outcomes(customer, 'dns', 0), 1)
  })

  test(`${client}: a certificate of another name is of type tls`, async () => {
    const customer = newCustomer()
    await assert.rejects(make(client, customer, tls.replace('localhost', 'bad-cert.example') + '/scenario/ok'))
    assert.equal(await outcomes(customer, 'tls', 0), 1)
  })

  test(`${client}: a broken connection before the head is of type reset`, async () => {
    const customer = newCustomer()
    await assert.rejects(make(client, customer, plain + '/scenario/reset'))
    assert.equal(await outcomes(customer, 'reset', 0), 1)
  })

  for (const path of ['/scenario/reset-mid-body?after=5000', '/scenario/truncate?after=5000']) {
    test(`${client}: ${path} keeps its status, and the bytes that arrived`, async () => {
      const customer = newCustomer()
      await assert.rejects(make(client, customer, plain + path))
      assert.deepEqual(await counted(customer, 'outcome=reset', 'status=200'), { calls: 1, bytesOut: 0, bytesIn: 5_000 })
    })
  }

  test(`${client}: what is not HTTP is of type protocol`, async () => {
    const customer = newCustomer()
    await assert.rejects(make(client, customer, plain + '/scenario/garbage'))
    assert.equal(await outcomes(customer, 'protocol', 0), 1)
  })

  test(`${client}: the client's timeout before the head is of type timeout`, async () => {
    const customer = newCustomer()
    await assert.rejects(make(client, customer, plain + '/scenario/hang', { timeout_ms: 100 }))
    assert.equal(await outcomes(customer, 'timeout', 0), 1)
  })

  test(`${client}: the client's timeout within the body keeps its status, and the bytes that arrived`, async () => {
    let here
    // On a machine that is busy it may strike before the head.
    for (const ms of [200, 2_000, 20_000]) {
      const customer = newCustomer()
      await assert.rejects(make(client, customer, plain + '/scenario/stall?after=5000', { timeout_ms: ms }))
      here = await counted(customer, 'outcome=timeout', 'status=200')
      if (here.bytesIn === 5_000) break
    }
    assert.deepEqual(here, { calls: 1, bytesOut: 0, bytesIn: 5_000 })
  })

  for (const read of /** @type {const} */ (['first-chunk', 'none'])) {
    test(`${client}: a stream that is let go of (read: ${read}) is abandoned, once`, async () => {
      const customer = newCustomer()
      await make(client, customer, plain + '/scenario/endless?every_ms=5&bytes=64', { read })
      await until('it is abandoned', async () => await outcomes(customer, 'abandoned', 200) === 1)
      assert.equal((await counted(customer)).calls, 1)
    })
  }

  test(`${client}: a hundred calls at the same time stay with their customers`, async () => {
    const names = [newCustomer(), newCustomer(), newCustomer()]
    await Promise.all(Array.from({ length: 99 }, (_, n) =>
      make(client, names[n % 3], plain + '/scenario/bytes/1000', { timeout_ms: 60_000 })))
    for (const name of names) {
      assert.deepEqual(await counted(name, 'outcome=complete'), { calls: 33, bytesOut: 0, bytesIn: 33_000 })
    }
    assert.equal((await arrived()).calls, 99)
  })
}
