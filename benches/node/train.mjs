// Calls of Node's clients, by which a build is told what calls execute (`scripts/build-bindings profiled`). Nothing is
// measured.
//
// usage: node train.mjs
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)
const self = fileURLToPath(import.meta.url)
const RULES = path.join(path.dirname(self), '..', 'train.toml')
const CALLS = 3_000
const CUSTOMERS = ['acme', 'globex', 'initech', 'umbrella']

/** Answers as vendors do: nearly always well, with a quota in its headers; `/kept` may be kept. */
function answer(request, response) {
  const number = Number(/^\/item\/(\d+)/.exec(request.url)?.[1] ?? 0)
  const headers = { 'content-type': 'application/json', 'x-ratelimit-limit': '100000', 'x-ratelimit-remaining': '99000' }
  if (request.url === '/kept') Object.assign(headers, { 'cache-control': 'max-age=3600', etag: '"1"' })
  request.resume().on('end', () => {
    response.writeHead({ 397: 429, 398: 503, 399: 404 }[number % 400] ?? 200, headers).end('{"ok": true}')
  })
}

/** One call, read to its end. */
function client(name) {
  if (name === 'fetch') {
    return async (method, url) => (await fetch(url, { method, body: method === 'POST' ? '{"n":1}' : undefined })).json()
  }
  const http = require('node:http')
  const agent = new http.Agent({ keepAlive: true })
  return (method, url) => new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent }, (response) => response.resume().on('end', resolve))
    request.on('error', reject).end(method === 'POST' ? '{"n":1}' : undefined)
  })
}

/** Makes the calls of one client. */
async function work(name, home) {
  const farcall = require('../../node')
  farcall.install({ home })
  const vendor = require('node:http').createServer(answer)
  await new Promise((resolve) => vendor.listen(0, '127.0.0.1', resolve))
  const url = `http://localhost:${vendor.address().port}`
  const ask = client(name)
  for (let number = 0; number < CALLS; number++) {
    await farcall.withCustomer(CUSTOMERS[number % CUSTOMERS.length], async () => {
      await ask('GET', `${url}/item/${number}`)
      if (number % 4 === 0) {
        await ask('POST', `${url}/item`)
        await ask('GET', `${url}/kept`)
      }
    })
  }
  process.exit(0)
}

if (process.argv.length > 2) {
  await work(...process.argv.slice(2))
} else {
  for (const name of ['fetch', 'http']) {
    for (const ruled of [false, true]) {
      const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-train-'))
      const config = path.join(home, 'farcall.toml')
      if (ruled) copyFileSync(RULES, config)
      else writeFileSync(config, '')
      execFileSync(process.execPath, [self, name, home], {
        env: { ...process.env, FARCALL_CONFIG: config, NO_PROXY: '*' }, stdio: 'inherit'
      })
      rmSync(home, { recursive: true, force: true })
    }
  }
}
