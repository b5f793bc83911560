// An answer out of the cache through fetch, beside undici's own cache interceptor in front of its own fetch, in one run.
//
// Two processes ask the same local server for the same again and again, a block each in turn, forth and back; the server
// was asked once by each. The result is the median over the blocks of the CPU time of a call, its body read as text.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'

export const NAME = 'cache/hit/fetch'
const PATH = '/v1/rates'
const BODY = JSON.stringify({ rates: 'x'.repeat(500) })
/** What a vendor says with such an answer. */
const HEADERS = {
  'content-type': 'application/json',
  'cache-control': 'private, max-age=86400',
  etag: '"33a64df551425fcc55e4d42a148795d9"',
  vary: 'accept',
  'x-request-id': 'req_123',
}
const ASKED = { accept: 'application/json' }
// As many turns of each process as fit into so many milliseconds, within these bounds; and the calls of a turn.
const MS = 10_000
const LEAST_ROUNDS = 5
const MOST_ROUNDS = 60
const CALLS = 1000

/** Has vendor-sim answer so, and count anew. */
export async function prepare(url) {
  await (await fetch(new URL('/_sim/counts', url), { method: 'DELETE' })).text()
  const rule = { match: { path: PATH }, effect: { status: 200, body: BODY, headers: HEADERS } }
  const response = await fetch(new URL('/_sim/script', url), { method: 'POST', body: JSON.stringify(rule) })
  assert.equal(response.status, 200)
}

/** What the process called `how` asks with. */
export async function client(how, url, home) {
  const target = String(new URL(`${PATH}?base=EUR&by=${how}`, url))
  let call
  if (how === 'farcall') {
    const rules = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-rules-'))
    process.env.FARCALL_CONFIG = path.join(rules, 'farcall.toml')
    writeFileSync(process.env.FARCALL_CONFIG, '[[cache]]\nname = "all"\nmatch = {}\n')
    const farcall = createRequire(import.meta.url)('../../node')
    farcall.install({ home })
    rmSync(rules, { recursive: true })
    call = () => fetch(target, { headers: ASKED })
  } else {
    const { Agent, cacheStores, fetch, interceptors } = await import('undici')
    const store = new cacheStores.MemoryCacheStore()
    const dispatcher = new Agent().compose(interceptors.cache({ store, type: 'private' }))
    call = () => fetch(target, { headers: ASKED, dispatcher })
  }
  return async () => {
    const text = await (await call()).text()
    if (text.length !== BODY.length) throw new Error('another answer')
  }
}

/** The row; `start` starts a process, which makes a block of calls at a time and tells how long it took. */
export async function measure(start, median, within, url) {
  await prepare(url)
  const home = mkdtempSync(path.join(os.tmpdir(), 'farcall-bench-'))
  const hows = ['farcall', 'undici']
  const workers = {}
  for (const how of hows) workers[how] = await start(NAME, how, url, home)
  const times = { farcall: [], undici: [] }
  await within(MS, LEAST_ROUNDS, MOST_ROUNDS, async (n) => {
    for (const how of n % 2 === 1 ? hows.toReversed() : hows) times[how].push(await workers[how].turn(CALLS))
  })
  for (const how of hows) await workers[how].end()
  const counts = await (await fetch(new URL('/_sim/counts?settled_ms=1000', url))).json()
  const asked = counts.rows.filter((row) => row.path === PATH).reduce((sum, row) => sum + row.count, 0)
  assert.equal(asked, 2, 'all calls but the first of each are answered from the caches')
  rmSync(home, { recursive: true, force: true })
  const [ours, peer] = hows.map((how) => median(times[how]))
  return {
    name: NAME,
    unit: 'us of CPU per call',
    ours,
    peer,
    peer_name: "undici's cache interceptor with its memory store, under its fetch",
    ratio: peer / ours,
  }
}
