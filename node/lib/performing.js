'use strict'
// Which attempt of a call an exchange is: the adapters see exchanges begin, and not who has them made.

const { AsyncLocalStorage } = require('node:async_hooks')

/** @typedef {{ attach: (exchange: InstanceType<typeof import('./exchange.js').Exchange>) => void }} Attaching */

/**
 * The attempt that the running code performs: the exchange that begins in there is that one. What outlives the attempt (a
 * connection, and all that is called by its events) stays in here, and has none.
 *
 * @type {AsyncLocalStorage<{ attempt: Attaching | undefined }>}
 */
const performing = new AsyncLocalStorage()
/** Whether there ever was one: to look for one costs. */
let any = false

/**
 * Runs `fn`, which performs an attempt; it lasts as long as the promise that `fn` returns, where it returns one.
 *
 * @template R
 * @param {Attaching} attempt whose exchange begins in there
 * @param {() => R} fn
 * @returns {R}
 */
function perform (attempt, fn) {
  any = true
  /** @type {{ attempt: Attaching | undefined }} */
  const under = { attempt }
  const over = () => { under.attempt = undefined }
  const result = performing.run(under, fn)
  if (typeof (/** @type {any} */ (result))?.then === 'function') /** @type {any} */ (result).then(over, over)
  else over()
  return result
}

/** The attempt that the running code performs, if any. */
function performed () {
  return any ? performing.getStore()?.attempt : undefined
}

module.exports = { perform, performed }
