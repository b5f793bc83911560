// vendor-sim, as test/run.mjs started it.
import assert from 'node:assert/strict'
import dns from 'node:dns'
import { once } from 'node:events'
import { connect } from 'node:net'

const { SIM_TLS, SIM_PLAIN } = process.env
assert(SIM_TLS && SIM_PLAIN, 'run the tests with `npm test`')

/** Where it offers TLS, under the name localhost. */
export const tls = SIM_TLS
/** Where it offers plain HTTP. */
export const plain = SIM_PLAIN

/**
 * What arrived there since the last `forget`, once all of it is settled: counted below HTTP's framing, and
 * not by Farcall. Asking is not counted there; here it is, but on behalf of nobody.
 */
export async function arrived () {
  const response = await fetch(`${plain}/_sim/counts?settled_ms=60000`)
  const counts = /** @type {any} */ (await response.json())
  return {
    calls: /** @type {number} */ (counts.requests),
    bytesOut: /** @type {number} */ (counts.bytes_in),
    bytesIn: /** @type {number} */ (counts.bytes_out)
  }
}

export async function forget () {
  await (await fetch(`${plain}/_sim/counts`, { method: 'DELETE' })).text()
}

/** @type {import('node:net').Socket | undefined} */
let held

/** A port of this machine where nobody listens, and that nobody else gets: this end of a connection has it. */
export async function deafPort () {
  if (held === undefined) {
    const { hostname, port } = new URL(plain)
    held = connect(Number(port), hostname).unref()
    await once(held, 'connect')
  }
  return /** @type {number} */ (held.localPort)
}

/**
 * Has these names lead to this machine, in this process: vendor-sim plays the vendors under their own names.
 *
 * @param {string[]} names
 */
export function resolveHere (...names) {
  const { lookup } = dns
  // @ts-expect-error it has more signatures than one function can have
  dns.lookup = (/** @type {string} */ name, /** @type {any} */ options, /** @type {any} */ callback) =>
    lookup(names.includes(name) ? '127.0.0.1' : name, options, callback)
}
