'use strict'
// On whose behalf calls are made: a value that follows the asynchronous flow of the program.

const { AsyncLocalStorage } = require('node:async_hooks')
const { leave } = require('./common.js')

/** @typedef {'interactive' | 'batch'} Priority */
/** @typedef {{ customer: string | undefined, tags: Readonly<Record<string, string>>, priority?: Priority }} Scope */

/**
 * One for all copies of this package: whichever the program asks, the calls are counted by another, maybe.
 *
 * @type {AsyncLocalStorage<Scope>}
 */
const storage = leave('scopes', new AsyncLocalStorage())

/** The scope that the running code is in, or undefined. */
function currentScope () {
  return storage.getStore()
}

/**
 * Runs `fn` in the scope that a call was begun in.
 *
 * @template R
 * @template {unknown[]} A
 * @param {Scope | undefined} scope
 * @param {(...args: A) => R} fn
 * @param {A} args
 * @returns {R}
 */
function inScope (scope, fn, ...args) {
  // The types do not know that "no scope" can be entered as well.
  return storage.run(/** @type {Scope} */ (scope), fn, ...args)
}

/**
 * Runs `fn` with its calls, and those of everything that it starts, on behalf of `customer`.
 *
 * @template R
 * @template {unknown[]} A
 * @param {string} customer
 * @param {(...args: A) => R} fn
 * @param {A} args
 * @returns {R}
 */
function withCustomer (customer, fn, ...args) {
  const outer = storage.getStore()
  return storage.run({ customer: String(customer), tags: outer?.tags ?? {}, priority: outer?.priority }, fn, ...args)
}

/**
 * Runs `fn` with `tags` added to its calls; an inner tag of the same key wins.
 *
 * @template R
 * @template {unknown[]} A
 * @param {Record<string, string | number | boolean>} tags
 * @param {(...args: A) => R} fn
 * @param {A} args
 * @returns {R}
 */
function withTags (tags, fn, ...args) {
  const outer = storage.getStore()
  /** @type {Record<string, string>} */
  const all = { ...outer?.tags }
  for (const [key, value] of Object.entries(tags)) all[key] = String(value)
  return storage.run({ customer: outer?.customer, tags: all, priority: outer?.priority }, fn, ...args)
}

/**
 * Runs `fn` with its calls of this priority, where rules decide who goes first.
 *
 * @template R
 * @template {unknown[]} A
 * @param {Priority} priority
 * @param {(...args: A) => R} fn
 * @param {A} args
 * @returns {R}
 */
function withPriority (priority, fn, ...args) {
  if (priority !== 'interactive' && priority !== 'batch') {
    throw new TypeError(`the priority is 'interactive' or 'batch', not ${String(priority)}`)
  }
  const outer = storage.getStore()
  return storage.run({ customer: outer?.customer, tags: outer?.tags ?? {}, priority }, fn, ...args)
}

module.exports = { currentScope, inScope, withCustomer, withPriority, withTags }
