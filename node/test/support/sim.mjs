// vendor-sim, as test/run.mjs started it.
import assert from 'node:assert/strict'
import dns from 'node:dns'

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
  const response = await fetch(`${plain}/_sim/counts?settled_ms=2000`)
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

/** A port of this machine where nobody listens. */
export async function deafPort () {
  const { createServer } = await import('node:net')
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  await new Promise((resolve) => server.close(resolve))
  return port
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
