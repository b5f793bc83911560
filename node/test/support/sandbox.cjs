'use strict'
// A context with a registry of modules of its own, as each test file of jest has: other globals and another copy of each
// module, but Node's own modules are those of the process.

const { readFileSync } = require('node:fs')
const Module = require('node:module')
const { dirname } = require('node:path')
const vm = require('node:vm')

/** What jest gives its files of Node's globals. */
const GLOBALS = ['AbortController', 'AbortSignal', 'Blob', 'Buffer', 'FormData', 'Headers', 'ReadableStream', 'Request', 'Response',
  'TextDecoder', 'TextEncoder', 'URL', 'URLSearchParams', 'clearTimeout', 'fetch', 'performance', 'queueMicrotask', 'setTimeout']

/**
 * @param {'jest' | 'closed'} kind `closed` where Node's loader is out of reach
 * @param {Record<string, unknown>} [others] in the place of Node's globals
 */
function sandbox (kind, others = {}) {
  /** @type {Map<string, any> | undefined} */
  let registry = new Map()
  // Listeners that are added to it hear of nothing.
  const process_ = Object.create(process, { _events: { value: {}, writable: true }, _eventsCount: { value: 0, writable: true } })
  process_.getBuiltinModule = undefined
  const context = vm.createContext({
    ...Object.fromEntries(GLOBALS.map((name) => [name, /** @type {any} */ (globalThis)[name]])), process: process_, ...others
  })
  context.globalThis = vm.runInContext('globalThis', context)

  /** @param {string} file */
  function load (file) {
    if (registry === undefined) throw new Error(`${file} is loaded after its test file has ended`)
    const known = registry.get(file)
    if (known !== undefined) return known.exports
    const loaded = { exports: {} }
    registry.set(file, loaded)
    if (file.endsWith('.node')) return (loaded.exports = require(file))
    const { createRequire } = Module
    const resolve = createRequire(file).resolve
    const body = vm.runInContext(`(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'utf8')}\n})`, context)
    body(loaded.exports, (/** @type {string} */ name) => {
      const found = resolve(name)
      if (found === 'process' || found === 'node:process') return process_
      // jest's own differs in createRequire alone.
      if (found === 'module' || found === 'node:module') return kind === 'jest' ? class extends Module {} : {}
      return Module.isBuiltin(found) ? require(found) : load(found)
    }, loaded, file, dirname(file))
    return loaded.exports
  }

  return {
    /** @type {(file: string) => any} */
    require: load,
    /** @type {(source: string) => any} */
    run: (source) => vm.runInContext(source, context),
    end () { registry = undefined }
  }
}

module.exports = sandbox
