'use strict'
// Calls that a rule has parked: from fetch into the outbox. What came of it, the next step tells.

const { note } = require('./problems.js')

/** @typedef {InstanceType<typeof import('./decision.js').Decision>} Call */

/**
 * Hands a request over; resolves once it is on the disk or cannot be. Throws nothing.
 *
 * @param {Call} decision
 * @param {import('./acting.js').Asking} asking
 */
async function park (decision, { method, url, headers, body }) {
  try {
    const sent = new Headers(headers)
    const pairs = [...sent].flat()
    let content = Buffer.alloc(0)
    if (body !== undefined && body !== null) {
      // Reads it as fetch does, and names its type as fetch does.
      const read = new Response(/** @type {any} */ (body))
      const type = read.headers.get('content-type')
      if (type !== null && !sent.has('content-type')) pairs.push('content-type', type)
      content = Buffer.from(await read.arrayBuffer())
    }
    const target = new URL(url)
    target.username = target.password = target.hash = ''
    await decision.park(method, target.href, pairs, content)
  } catch (error) {
    note(error)
  }
}

module.exports = { park }
