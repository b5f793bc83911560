// Calls that need not be made: real clients against vendor-sim, which says how often it was asked.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import farcall from '../index.js'
import { answer, as, asked, cachingRules, clients, newPath, request, says, script } from './support/caching.mjs'
import { counted, newCustomer, outcomes } from './support/ledger.mjs'
import { forget, plain, tls } from './support/sim.mjs'

cachingRules()

for (const [name, get] of Object.entries(clients)) {
  test(`${name}: what is fresh is not asked for again, and is told of`, async () => {
    const [path, customer] = [newPath(), newCustomer()]
    await script(says(path, { 'cache-control': 'max-age=600', 'x-number': '17', etag: '"a"' }))
    const { uncached_calls: before } = farcall.status().counters
    const first = await as(customer, () => get(tls + path))
    const second = await as(customer, () => get(tls + path))
    assert.equal(await asked(), 1)
    assert.equal(farcall.status().counters.uncached_calls, before)
    assert.deepEqual([second.status, second.body], [200, 'what the vendor says'])
    assert.equal(first.body, second.body)
    assert.equal(first.headers['cache-status'], undefined)
    assert.match(second.headers['cache-status'], /^farcall; hit; ttl=(600|[1-5]\d\d)$/)
    assert.match(second.headers.age, /^\d+$/)
    assert.deepEqual([second.headers['x-number'], second.headers.etag], ['17', '"a"'])
    assert.equal(await outcomes(customer, 'cached', 200), 1)
    assert.equal((await counted(customer)).calls, 2)
  })

  test(`${name}: what is stale is confirmed, and the application gets the whole of it`, async () => {
    const customer = newCustomer()
    const url = `${tls}/scenario/etag?for=${customer}`
    const first = await as(customer, () => get(url))
    const second = await as(customer, () => get(url))
    const third = await as(customer, () => get(url))
    assert.equal(await asked(), 3)
    for (const { status, body } of [first, second, third]) assert.deepEqual([status, body], [200, 'the same as ever'])
    assert.match(second.headers['cache-status'], /^farcall; fwd=stale; fwd-status=304; /)
    assert.equal(await outcomes(customer, 'complete'), 3)
    assert.equal((await counted(customer)).bytesIn, 'the same as ever'.length)
  })

  test(`${name}: a 304 that confirms something else is not handed out, nor is what is kept`, async () => {
    const [path, customer] = [newPath(), newCustomer()]
    await script(
      { ...says(path, { etag: '"old"', 'cache-control': 'no-cache' }, 'old'), count: 1 },
      { match: { path }, effect: { status: 304, body: '', headers: { etag: '"other"' } }, count: 1 },
      says(path, { etag: '"new"' }, 'new')
    )
    assert.equal((await as(customer, () => get(tls + path))).body, 'old')
    const { status, body, headers } = await as(customer, () => get(tls + path))
    assert.deepEqual([status, body, headers['cache-status']], [200, 'new', undefined])
    assert.equal(await asked(), 3)
    assert.equal((await counted(customer)).calls, 2)
  })

  test(`${name}: answers that vary are kept apart`, async () => {
    const path = newPath()
    await script(says(path, { 'cache-control': 'max-age=600', vary: 'accept-language' }))
    for (const language of ['de', 'fr', 'de', 'fr']) await get(tls + path, { 'accept-language': language })
    assert.equal(await asked(), 2)
  })

  test(`${name}: neither another credential nor another customer gets an answer`, async () => {
    const path = newPath()
    await script(says(path, { 'cache-control': 'private, max-age=600' }))
    const [one, other] = [newCustomer(), newCustomer()]
    for (const customer of [one, other, one, other]) {
      for (const authorization of ['Bearer one', 'Bearer other']) await as(customer, () => get(tls + path, { authorization }))
      await as(customer, () => get(tls + path, { 'x-some-key': 'secret' }))
      await as(customer, () => get(tls + path))
    }
    assert.equal(await asked(), 8)
  })

  test(`${name}: where the vendor fails, what is stale is better than nothing`, async () => {
    const [path, customer] = [newPath(), newCustomer()]
    await script(
      { ...says(path, { 'cache-control': 'max-age=0', etag: '"a"' }), count: 1 },
      { match: { path }, effect: { status: 503, body: 'x'.repeat(100_000) }, count: 1 },
      { match: { path }, effect: { reset: {} } }
    )
    await as(customer, () => get(tls + path))
    for (const detail of ['fwd-status=503; ', '']) {
      const { status, body, headers } = await as(customer, () => get(tls + path))
      assert.deepEqual([status, body], [200, 'what the vendor says'])
      assert(headers['cache-status'].startsWith(`farcall; fwd=stale; ${detail}ttl=`), headers['cache-status'])
      assert(headers['cache-status'].endsWith('; detail=stale-if-error'))
    }
    assert.equal(await outcomes(customer, 'stale'), 2)
    assert.equal((await counted(customer)).calls, 3)
  })

  test(`${name}: a failure that nothing is kept for is the application's`, async () => {
    const [path, customer] = [newPath(), newCustomer()]
    await script({ match: { path }, effect: { status: 503, body: 'no' }, count: 1 }, { match: { path }, effect: { reset: {} } })
    assert.deepEqual((({ status, body }) => [status, body])(await as(customer, () => get(tls + path))), [503, 'no'])
    await assert.rejects(as(customer, () => get(tls + path)))
    assert.equal((await counted(customer)).calls, 2)
  })

  test(`${name}: of two hundred equal calls one asks`, async () => {
    const [path, customer] = [newPath(), newCustomer()]
    await script({ match: { path }, effect: { latency_ms: 200, status: 200, body: 'slow', headers: { 'cache-control': 'max-age=600' } } })
    const all = await as(customer, () => Promise.all(Array.from({ length: 200 }, () => get(tls + path))))
    assert(all.every(({ status, body }) => status === 200 && body === 'slow'))
    assert.equal(await asked(), 1)
    assert.equal(await outcomes(customer, 'cached', 200), 199)
  })

  test(`${name}: a compressed answer is kept as it came, and read as it was meant`, async () => {
    const path = newPath()
    const text = 'größer '.repeat(500)
    await script({ ...says(path, { 'cache-control': 'max-age=600' }, text), effect: { ...says(path, { 'cache-control': 'max-age=600' }, text).effect, gzip: true } })
    const [first, second] = [await get(tls + path), await get(tls + path)]
    assert.equal(await asked(), 1)
    assert.equal(second.body, first.body)
    // What decodes by itself shows the text; the others show the bytes.
    if (name !== 'https') assert.equal(second.body, text)
  })
}

for (const [name, get] of Object.entries(clients)) {
  // got decodes brotli only where it asked for it, and asks as it likes.
  test(`${name}: so is one in brotli`, async () => {
    const path = newPath()
    const text = 'größer '.repeat(500)
    const headers = { 'cache-control': 'max-age=600', 'content-encoding': 'br' }
    const effect = { status: 200, headers, body_hex: brotliCompressSync(text).toString('hex') }
    await script({ match: { path }, effect, count: 1 })
    const [first, second] = [await get(tls + path), await get(tls + path)]
    assert.match(second.headers['cache-status'], /hit/)
    assert.equal(second.body, first.body)
    if (name !== 'https') assert.equal(second.body, text)
  })
}

test('a purge makes it forget what matches, and nothing else', async () => {
  const [path, other] = [newPath(), newPath()]
  await script(says(path, { 'cache-control': 'max-age=600' }), says(other, { 'cache-control': 'max-age=600' }))
  const [one, two] = [newCustomer(), newCustomer()]
  const ask = async () => {
    for (const customer of [one, two]) await (await as(customer, () => fetch(tls + path))).text()
  }
  await ask()
  await ask()
  assert.equal(await asked(), 2)
  assert.equal(await farcall.purgeCache({ customer: one }), 1)
  assert.equal(farcall.status().counters.purged_answers, 1)
  await ask()
  await ask()
  assert.equal(await asked(), 3)
  await assert.rejects(farcall.purgeCache(/** @type {any} */ ({ status: '200' })), /not by `status`|unknown key `status`/)
})

test('a kept answer is a Response in all that fetch promises', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600', 'content-type': 'application/json', 'set-cookie': ['a=1', 'b=2'] }, '{"ä":[1]}'))
  const wire = await fetch(tls + path)
  assert.deepEqual(await wire.json(), { ä: [1] })
  const get = () => fetch(tls + path + '#part')
  const kept = await get()
  assert.match(kept.headers.get('cache-status') ?? '', /hit/)
  assert(kept instanceof Response)
  assert.equal(String(kept), '[object Response]')
  for (const key of /** @type {const} */ (['status', 'statusText', 'ok', 'redirected', 'type', 'url', 'bodyUsed'])) {
    // HTTP/2, which newer Nodes speak, has no reason phrase; what is kept has that of its status.
    const expected = { bodyUsed: false, statusText: 'OK' }[/** @type {string} */ (key)] ?? wire[key]
    assert.equal(kept[key], expected, key)
  }
  for (const [header, value] of wire.headers) if (header !== 'set-cookie') assert.equal(kept.headers.get(header), value, header)
  assert.deepEqual(kept.headers.getSetCookie(), ['a=1', 'b=2'])
  const copy = kept.clone()
  assert.deepEqual(await kept.json(), { ä: [1] })
  assert.equal(kept.bodyUsed, true)
  await assert.rejects(kept.text(), TypeError)
  assert.throws(() => kept.clone(), TypeError)
  assert.equal(copy.bodyUsed, false)
  assert.equal(copy.url, wire.url)
  const bytes = await copy.arrayBuffer()
  assert.equal(Buffer.from(bytes).toString(), '{"ä":[1]}')
  // What the application does with its copy is no other's business.
  new Uint8Array(bytes).fill(0)
  assert.equal(await (await get()).text(), '{"ä":[1]}')
  assert.equal((await (await get()).blob()).type, 'application/json')
  let streamed = ''
  for await (const chunk of /** @type {any} */ ((await get()).body?.pipeThrough(new TextDecoderStream()))) streamed += chunk
  assert.equal(streamed, '{"ä":[1]}')
  const half = await get()
  const [left, right] = /** @type {ReadableStream} */ (half.body).tee()
  assert.equal(await new Response(left).text(), await new Response(right).text())
  assert.equal(half.bodyUsed, true)
  const twice = await get()
  assert(twice.body)
  assert.equal(await twice.clone().text(), '{"ä":[1]}')
  assert.equal(await twice.text(), '{"ä":[1]}')
  const aborted = new AbortController()
  aborted.abort()
  await assert.rejects(fetch(tls + path, { signal: aborted.signal }), { name: 'AbortError' })
  assert.equal(await asked(), 1)
})

test('what fetch is told of its own cache holds', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  const ask = async (/** @type {string} */ cache) => {
    const response = await fetch(tls + path, /** @type {any} */ ({ cache }))
    await response.text()
    return response.status
  }
  await ask('default')
  for (const [mode, times] of /** @type {[string, number][]} */ ([['default', 1], ['force-cache', 1], ['no-cache', 2], ['reload', 3], ['no-store', 4], ['default', 4]])) {
    assert.equal(await ask(mode), 200)
    assert.equal(await asked(), times, mode)
  }
})

test('redirects that fetch follows are followed each time', async () => {
  const [path, to] = [newPath(), newPath()]
  await script(
    { match: { path }, effect: { status: 301, headers: { location: to, 'cache-control': 'max-age=600' } } },
    says(to, { etag: '"a"' }, 'there')
  )
  for (let n = 0; n < 2; n += 1) {
    const response = await fetch(tls + path)
    assert.deepEqual([response.redirected, response.url, await response.text()], [true, tls + to, 'there'])
  }
  assert.equal((await fetch(tls + path, { redirect: 'manual' })).status, 301)
  await assert.rejects(fetch(tls + path, { redirect: 'error' }))
})

test('a 304 from where a redirect led confirms nothing', async () => {
  const [path, to] = [newPath(), newPath()]
  await script(
    { ...says(path, { etag: '"a"', 'cache-control': 'no-cache' }, 'here'), count: 1 },
    { match: { path }, effect: { status: 302, headers: { location: to } } },
    { match: { path: to }, effect: { status: 304, body: '' }, count: 1 },
    says(to, {}, 'there')
  )
  assert.equal(await (await fetch(tls + path)).text(), 'here')
  const response = await fetch(tls + path)
  assert.deepEqual([response.status, await response.text()], [200, 'there'])
})

test('a question with a body is kept where a rule says so, by its body', async () => {
  const path = '/questions/1'
  await script({ match: { path }, effect: { status: 200, body: 'an answer' } })
  const ask = async (/** @type {string} */ body) => (await fetch(tls + path, { method: 'POST', body })).text()
  for (const body of ['{"q":1}', '{"q":2}', '{"q":1}', '{"q":2}']) assert.equal(await ask(body), 'an answer')
  assert.equal(await asked(), 2)
})

test('what an unsafe call changes is asked for again', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  const get = async () => (await fetch(tls + path)).text()
  await get()
  await get()
  await (await fetch(tls + path, { method: 'PUT', body: 'x' })).text()
  await get()
  await get()
  assert.equal(await asked(), 3)
})

test('a body that was let go of half-way is not kept', async () => {
  const path = '/scenario/bytes/400000'
  const response = await fetch(tls + path + '?every_ms=20', { headers: { 'x-of': 'fetch' } })
  const reader = /** @type {ReadableStream} */ (response.body).getReader()
  await reader.read()
  await reader.cancel()
  const stream = await new Promise((resolve, reject) => https.get(tls + path + '?every_ms=20', resolve).on('error', reject))
  await new Promise((resolve) => stream.once('data', resolve))
  stream.destroy()
  assert.equal(await asked(), 2)
  const whole = await fetch(tls + path + '?every_ms=20', { headers: { 'x-of': 'fetch' } })
  assert.equal((await whole.arrayBuffer()).byteLength, 400_000)
  assert.equal(whole.headers.get('cache-status'), null)
  const again = await answer(request(tls + path + '?every_ms=20', {}).end())
  assert.equal(again.body.length, 400_000)
  assert.equal(again.headers['cache-status'], undefined)
})

test('events come one by one, and are not kept', async () => {
  const path = '/scenario/sse'
  for (let n = 0; n < 2; n += 1) {
    // A minute from one event to the next: who waited for the end would not see the first.
    const response = await fetch(`${tls}${path}?events=2&every_ms=60000`)
    const reader = /** @type {ReadableStream} */ (response.body).getReader()
    assert.match(new TextDecoder().decode((await reader.read()).value), /^id: 0/)
    await reader.cancel()
    const stream = await new Promise((resolve, reject) => https.get(`${tls}${path}?events=2&every_ms=60000`, resolve).on('error', reject))
    const chunk = await new Promise((resolve) => stream.once('data', resolve))
    assert.match(String(chunk), /^id: 0/)
    stream.destroy()
  }
  assert.equal(await asked(), 4)
})

test('threads share what clients of Node itself got, and nothing that others did', async () => {
  const path = newPath()
  await script(says(path, { 'cache-control': 'max-age=600' }))
  const [index, at] = [new URL('../index.js', import.meta.url).href, plain + path]
  for (const [code, times] of /** @type {[string, number][]} */ ([
    // The first one of its thread.
    [`await get('${at}', { agent: new http.Agent() })`, 2],
    [`await get('${at}', {})`, 1],
    [`await (await fetch('${at}?fetch')).text()`, 1],
    [`Response
      // The second is that of newer Nodes, whose first one is no more than a face of it.
      const [first, second] = [1, 2].map((number) => globalThis[Symbol.for('undici.globalDispatcher.' + number)])
      const { constructor: Agent } = second ?? first
      const dispatcher = new Agent()
      await (await fetch('${at}?dispatcher', { dispatcher })).text()
      await dispatcher.close()`, 2]
  ])) {
    await forget()
    for (let thread = 0; thread < 2; thread += 1) {
      const worker = new Worker(`void (async () => {
        const { default: farcall } = await import('${index}')
        const http = require('node:http')
        farcall.install()
        const get = (url, options) => new Promise((resolve, reject) => {
          http.get(url, options, (answer) => answer.resume().on('end', resolve)).on('error', reject)
        })
        ${code}
      })()`, { eval: true })
      assert.deepEqual(await once(worker, 'exit'), [0])
    }
    assert.equal(await asked(), times, code)
  }
})

test('a body that is longer than what is kept passes', async () => {
  const url = `${tls}/scenario/bytes/3000000`
  for (let n = 0; n < 2; n += 1) {
    assert.equal((await (await fetch(url)).arrayBuffer()).byteLength, 3_000_000)
    assert.equal((await answer(request(url, {}).end())).body.length, 3_000_000)
  }
  assert.equal(await asked(), 4)
})

test('gzip that the vendor cut short is not kept', async () => {
  const path = newPath()
  const body = gzipSync('x'.repeat(1000)).subarray(0, 10)
  const head = 'HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncontent-encoding: gzip\r\ncontent-length: 500\r\n\r\n'
  await script({ match: { path }, effect: { raw_hex: Buffer.concat([Buffer.from(head), body]).toString('hex') } })
  for (let n = 0; n < 2; n += 1) await assert.rejects(fetch(tls + path).then((response) => response.text()))
  assert.equal(await asked(), 2)
})
