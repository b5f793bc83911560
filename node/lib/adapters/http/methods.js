'use strict'
// Methods of Node's, and ours in their place.

const http = require('node:http')

/** @typedef {import('./request.js').Method} Method */

/** @type {any} */
const prototype = http.ClientRequest.prototype

/**
 * What stood in the place of each of ours when it was put there.
 *
 * @type {Record<string, Method>}
 */
const original = {}

/**
 * What was on the prototype itself, not inherited, before ours: by name.
 *
 * @type {Map<string, PropertyDescriptor | undefined>}
 */
const before = new Map()

/** @param {Record<string, Method>} ours */
function put (ours) {
  for (const [name, value] of Object.entries(ours)) {
    // Where somebody wrapped ours in the meantime, it is still in place below theirs.
    if (before.has(name)) continue
    before.set(name, Object.getOwnPropertyDescriptor(prototype, name))
    original[name] = prototype[name]
    Object.defineProperty(prototype, name, { configurable: true, writable: true, value })
  }
}

/** @param {Record<string, Method>} ours */
function takeBack (ours) {
  for (const [name, descriptor] of before) {
    if (prototype[name] !== ours[name]) continue
    if (descriptor) Object.defineProperty(prototype, name, descriptor)
    else delete prototype[name]
    before.delete(name)
  }
}

module.exports = { original, put, takeBack }
