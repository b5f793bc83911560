'use strict'
// One set of hooks in a thread, however many copies of this package are loaded there. The copy that is installed first has
// them, also once they are taken out; what the others are asked, they ask of it.

const { AsyncLocalStorage } = require('node:async_hooks')
const Module = require('node:module')
const { basename, join } = require('node:path')
const { found, leave } = require('./common.js')
const { note } = require('./problems.js')

/** @typedef {typeof import('./api.js')} Copy */

/** Of the copy that was installed first. */
const FIRST = 'first'

/**
 * The copy that Node's own loader has, where this one is in a context of its own, as each test file of jest has: what is
 * loaded there ends with it, hears of no exit, and sees other globals than the clients. Undefined where there is none.
 *
 * @returns {Copy | undefined}
 */
function outside () {
  try {
    if (Object.getPrototypeOf(AsyncLocalStorage.prototype) === Object.prototype) return
    // Within a bundle this is another file.
    if (basename(__filename) !== 'copies.js') return
    const copy = /** @type {any} */ (Module)._load(join(__dirname, 'api.js'))
    return typeof copy?.install === 'function' ? copy : undefined
  } catch (error) {
    note(error)
  }
}

/**
 * What programs get of a copy. Which copy is the first is asked at each call: a program may have loaded this one, and taken
 * it apart, before any was installed.
 *
 * @param {Copy} own
 */
function asOne (own) {
  /** @returns {Copy} */
  const first = () => found(FIRST) ?? own
  /** @type {any} */
  const outbox = {}
  for (const name of /** @type {(keyof Copy['outbox'])[]} */ (Object.keys(own.outbox))) {
    outbox[name] = (/** @type {any[]} */ ...args) => Reflect.apply(first().outbox[name], undefined, args)
  }
  /** @type {typeof import('../index.js')} */
  const all = {
    ...own,
    // Nobody else makes one.
    RefusedError: /** @type {any} */ (own.RefusedError),
    outbox: Object.freeze(outbox),
    flush: () => first().flush(),
    install: (options) => {
      if (first().install(options, globalThis)) leave(FIRST, own)
    },
    purgeCache: (match) => first().purgeCache(match),
    report: (/** @type {string} */ question, /** @type {any} */ options) => first().report(question, options),
    status: () => first().status(),
    uninstall: () => first().uninstall(globalThis)
  }
  return all
}

module.exports = { asOne, outside }
