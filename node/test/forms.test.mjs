// However fetch is called, it does under rules that let a call pass what it does without Farcall.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after, test } from 'node:test'
import farcall from '../index.js'
import { until } from './support/ledger.mjs'
import { scratchDirectory } from './support/scratch.mjs'

const scratch = scratchDirectory('forms')
process.env.FARCALL_HOME = join(scratch, 'home')
process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
writeFileSync(process.env.FARCALL_CONFIG, `
[[resilience]]
match = {}
attempts = 2
backoff = "1ms..2ms"
retry_on = ["503"]
attempt_timeout = "120s"

[[quota]]
match = {}
limit = "1000000 requests / minute"
shared = "process"

[[cache]]
match = {}
`)

const server = http.createServer(async (request, response) => {
  let body = ''
  request.setEncoding('latin1')
  for await (const chunk of request) body += chunk
  const { method, url = '', headers, rawHeaders } = request
  // Each form is told apart by this, and boundaries of forms are by chance.
  const type = headers['content-type']?.replace(/boundary=.*/, 'boundary') ?? null
  if (url.startsWith('/redirect')) {
    response.writeHead(Number(url.slice('/redirect/'.length)), { location: '/landed' }).end('moved')
  } else if (url === '/empty') response.writeHead(204).end()
  else if (url === '/slow') response.writeHead(200, { 'content-type': 'text/plain' }).write('first')
  else if (url === '/never') return
  else {
    const names = rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase())
    const text = type === 'multipart/form-data; boundary' ? body.replaceAll(/-{2,}[\w-]+/g, 'boundary') : body
    response.writeHead(200, 'Fine', { 'content-type': 'application/json', 'x-answer': 'yes' })
    response.end(JSON.stringify({ method, url, names, type, mine: headers['x-mine'], body: text }))
  }
}).listen(0, '127.0.0.1')
await once(server, 'listening')
after(() => { server.close(); server.closeAllConnections() })
const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
const origin = `http://127.0.0.1:${port}`

const POST = { method: 'POST' }
/** @param {string[]} parts */
const stream = (...parts) => new Blob(parts).stream()
/** @param {any} options */
const half = (options) => ({ ...options, method: 'POST', duplex: 'half' })
const form = () => {
  const form = new FormData()
  form.append('a', '1')
  form.append('file', new File(['content'], 'f.txt', { type: 'text/x-mine' }))
  return form
}
class Options {
  get method () { return 'PUT' }
  get body () { return 'inherited' }
}
const blob = URL.createObjectURL(new Blob(['hello']))
const aborted = () => AbortSignal.abort(new Error('mine'))

/** @type {Record<string, () => Promise<Response>>} */
const forms = {
  'a text': () => fetch(origin + '/a?b=c#d'),
  'a URL': () => fetch(new URL(origin + '/a')),
  'what has a text': () => fetch(/** @type {any} */ ({ toString: () => origin + '/a' })),
  'no options': () => fetch(origin, /** @type {any} */ (null)),
  'options that are frozen': () => fetch(origin, Object.freeze({ method: 'PUT', headers: Object.freeze({ 'x-mine': '1' }), body: 'x' })),
  'options of a class': () => fetch(origin, new Options()),
  'a Request': () => fetch(new Request(origin, { ...POST, body: 'x', headers: { 'x-mine': '1' } })),
  'a Request and options': () => fetch(new Request(origin, { ...POST, body: 'x', headers: { 'x-mine': '1' } }), { method: 'PUT', headers: { 'x-mine': '2' } }),
  'a Request and another body': () => fetch(new Request(origin, { ...POST, body: 'x' }), { body: 'y' }),
  'a Request as the options': () => fetch(origin, new Request('http://other.invalid/', { ...POST, body: 'x', headers: { 'x-mine': '1' } })),
  'a Request of a stream': () => fetch(new Request(origin, half({ body: stream('one ', 'two') }))),
  'a clone of a Request': () => fetch(new Request(origin, { ...POST, body: 'x' }).clone()),
  'a Request whose body was read': async () => {
    const request = new Request(origin, { ...POST, body: 'x' })
    await request.text()
    return fetch(request)
  },
  'a stream': () => fetch(origin, half({ body: stream('one ', 'two') })),
  'a stream without duplex': () => fetch(origin, { ...POST, body: stream('x') }),
  'an asynchronous iterable': () => fetch(origin, half({ body: (async function * () { yield Buffer.from('one ') })() })),
  'a form': () => fetch(origin, { ...POST, body: form() }),
  'parameters': () => fetch(origin, { ...POST, body: new URLSearchParams({ a: 'ä' }) }),
  'a Blob with a type': () => fetch(origin, { ...POST, body: new Blob(['x'], { type: 'text/x-mine' }) }),
  'an ArrayBuffer': () => fetch(origin, { ...POST, body: new Uint8Array([1, 2, 200]).buffer }),
  'a part of a buffer': () => fetch(origin, { ...POST, body: new Uint8Array([1, 2, 3, 4]).subarray(1, 3) }),
  'a DataView': () => fetch(origin, { ...POST, body: new DataView(new ArrayBuffer(3), 1) }),
  'a number as the body': () => fetch(origin, { ...POST, body: /** @type {any} */ (17) }),
  'an empty body': () => fetch(origin, { ...POST, body: '' }),
  'a list of headers': () => fetch(origin, { headers: [['x-mine', '1'], ['X-Mine', '2']] }),
  'Headers': () => fetch(origin, { headers: new Headers({ 'X-Mine': 'ä' }) }),
  'a Map of headers': () => fetch(origin, { headers: /** @type {any} */ (new Map([['x-mine', '1']])) }),
  'headers that are no texts': () => fetch(origin, { headers: /** @type {any} */ ({ 'x-mine': 17 }) }),
  'headers that cannot be': () => fetch(origin, { headers: { 'x-mine': 'a\nb' } }),
  'a method in small letters': () => fetch(origin, { method: 'post', body: 'x' }),
  'another method in small letters': () => fetch(origin, { method: 'patch', body: 'x' }),
  'a method that cannot be': () => fetch(origin, { method: 'a b' }),
  'a method that is forbidden': () => fetch(origin, { method: 'CONNECT' }),
  'GET with a body': () => fetch(origin, { body: 'x' }),
  'HEAD': () => fetch(origin, { method: 'HEAD' }),
  'keepalive': () => fetch(origin, { ...POST, body: 'x', keepalive: true }),
  'a referrer': () => fetch(origin, { referrer: origin + '/from', referrerPolicy: 'unsafe-url' }),
  'a digest that is right': () => fetch(origin + '/empty', { integrity: 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' }),
  'a digest that is wrong': () => fetch(origin, { integrity: 'sha256-AAAA' }),
  'no body in the answer': () => fetch(origin + '/empty'),
  'a redirect': () => fetch(origin + '/redirect/302', { ...POST, body: 'x' }),
  'a redirect that keeps the body': () => fetch(origin + '/redirect/307', { ...POST, body: 'x' }),
  'a redirect that would need the stream again': () => fetch(origin + '/redirect/307', half({ body: stream('x') })),
  'a redirect that is not followed': () => fetch(origin + '/redirect/302', { redirect: 'manual' }),
  'a redirect that is an error': () => fetch(origin + '/redirect/302', { redirect: 'error' }),
  'a signal that has aborted': () => fetch(origin, { signal: aborted() }),
  'a Request whose signal has aborted': () => fetch(new Request(origin, { signal: aborted() })),
  'a Request whose signal is taken off': () => fetch(new Request(origin, { signal: AbortSignal.abort() }), { signal: null }),
  'a signal that aborts before the answer': () => {
    const giving = new AbortController()
    const call = fetch(origin + '/never', { signal: giving.signal })
    setImmediate(() => giving.abort(new Error('mine')))
    return call
  },
  'a signal that aborts within the answer': async () => {
    const giving = new AbortController()
    const response = await fetch(origin + '/slow', { signal: giving.signal })
    giving.abort(new Error('mine'))
    return response
  },
  'a body that is let go of': async () => {
    const response = await fetch(origin + '/slow')
    await response.body?.cancel()
    return response
  },
  'no URL': () => fetch('nowhere'),
  'nothing': () => /** @type {any} */ (fetch)(),
  'a user in the URL': () => fetch(origin.replace('//', '//user:word@')),
  'a data URL': () => fetch('data:text/plain,hello'),
  'a blob URL': () => fetch(blob),
  'another scheme': () => fetch('ftp://127.0.0.1/'),
  'a port that is forbidden': () => fetch('http://127.0.0.1:25/')
}

/**
 * @param {any} error
 * @returns {any}
 */
const told = (error) => error && { name: error.name, message: error.message, code: error.code, cause: told(error.cause) }

/** @param {() => Promise<Response>} call */
async function outcome (call) {
  try {
    const response = await call()
    const { status, statusText, type, url, redirected, headers } = response
    const seen = { status, statusText, type, url, redirected, answer: headers.get('x-answer'), body: response.body !== null }
    const text = await response.text().catch(told)
    return { ...seen, text, used: response.bodyUsed }
  } catch (error) {
    return told(error)
  }
}

/** @type {Record<string, unknown>} */
const bare = {}
for (const [name, call] of Object.entries(forms)) bare[name] = await outcome(call)
farcall.install()
after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))

for (const [name, call] of Object.entries(forms)) {
  test(`${name}: the same`, async () => {
    assert.deepEqual(await outcome(call), bare[name])
    await until('it is over', () => farcall.status().inFlight === 0)
  })
}
