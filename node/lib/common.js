'use strict'
// What all copies of this package in a thread have in common: two versions of it, one in a bundle, those of jest's test files.

const { AsyncLocalStorage } = require('node:async_hooks')

/** Node has it once, whatever `globalThis` a copy has, and nobody puts another in its place. */
const place = /** @type {any} */ (AsyncLocalStorage)

/**
 * What a copy left there under this name.
 *
 * @param {string} name
 */
function found (name) {
  return place[Symbol.for('farcall.' + name)]
}

/**
 * Leaves something there for all copies, for good; returns what is there, which may be another's.
 *
 * @template T
 * @param {string} name
 * @param {T} value
 * @returns {T}
 */
function leave (name, value) {
  if (found(name) === undefined) Object.defineProperty(place, Symbol.for('farcall.' + name), { value })
  return found(name)
}

module.exports = { found, leave }
