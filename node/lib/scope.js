'use strict'
// On whose behalf calls are made: a value that follows the asynchronous flow of the program.

const { AsyncLocalStorage } = require('node:async_hooks')
const { Names } = require('./names.js')
const { native } = require('./native.js')

/** @typedef {{ customer: string | undefined, tags: Readonly<Record<string, string>> }} Scope */

/** @type {AsyncLocalStorage<Scope>} */
const storage = new AsyncLocalStorage()

const names = new Names(
  (/** @type {Scope} */ scope) => native().nameScope(scope.customer, Object.entries(scope.tags).flat()),
  () => native().forgetScopes()
)

/** The scope that the running code is in, or undefined. */
function currentScope () {
  return storage.getStore()
}

/**
 * The number by which the addon knows this scope; -1 for none.
 *
 * @param {Scope | undefined} scope
 */
function scopeNumber (scope) {
  return scope === undefined ? -1 : names.numberOf(scope)
}

/**
 * Runs `fn` in the scope that a call was begun in.
 *
 * @template R
 * @param {Scope | undefined} scope
 * @param {() => R} fn
 * @returns {R}
 */
function inScope (scope, fn) {
  // The types do not know that "no scope" can be entered as well.
  return storage.run(/** @type {Scope} */ (scope), fn)
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
  const tags = storage.getStore()?.tags ?? {}
  return storage.run({ customer: String(customer), tags }, fn, ...args)
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
  return storage.run({ customer: outer?.customer, tags: all }, fn, ...args)
}

module.exports = { currentScope, inScope, scopeNumber, withCustomer, withTags }
