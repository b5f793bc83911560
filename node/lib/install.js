'use strict'
// Turns Farcall on in this process (in a worker: in this thread), and off.

const { basename, extname } = require('node:path')
const { setImmediate } = require('node:timers')
const { isMainThread } = require('node:worker_threads')
const account = require('./account.js')
const fetchAdapter = require('./adapters/fetch.js')
const httpAdapter = require('./adapters/http/index.js')
const { learn } = require('./clients.js')
const { abandonAll, inFlight, whenIdle } = require('./exchange.js')
const { native } = require('./native.js')
const { note, problems } = require('./problems.js')

/** @typedef {'fetch' | 'http'} AdapterName */
/** @typedef {{ service?: string, home?: string, adapters?: Partial<Record<AdapterName, boolean>> }} Options */

/** @type {Record<AdapterName, { install: (globals: any) => void, uninstall: (globals: any) => void }>} */
const adapters = { fetch: fetchAdapter, http: httpAdapter }

/** @type {Set<AdapterName>} */
const installed = new Set()
let hooked = false

/** What the service is called where nobody named it. */
function scriptName () {
  const script = process.argv[1]
  return script ? basename(script, extname(script)) : undefined
}

/**
 * See index.d.ts.
 *
 * @param {Options} [options]
 * @param {object} [globals] of whoever asks: a context of its own has a `fetch` of its own
 * @returns {boolean} whether calls may be counted now
 */
function install (options = {}, globals = globalThis) {
  try {
    if (!native().start(options.service, options.home, scriptName())) return false
  } catch (error) {
    // No addon for this platform, say: the application runs without Farcall, and hears of it once.
    if (problems().count === 0) process.emitWarning(`Farcall counts nothing: ${String(error)}`, { code: 'FARCALL' })
    note(error)
    return false
  }
  try {
    learn()
  } catch (error) {
    note(error)
  }
  for (const name of /** @type {AdapterName[]} */ (Object.keys(adapters))) {
    if (options.adapters?.[name] === false) continue
    try {
      adapters[name].install(globals)
      if (installed.has(name)) continue
      installed.add(name)
      native().adapterInstalled(name)
    } catch (error) {
      note(error)
    }
  }
  if (hooked) return true
  hooked = true
  process.on('beforeExit', onBeforeExit)
  process.on('exit', onExit)
  listenToSignal()
  return true
}

/**
 * See index.d.ts.
 *
 * @param {object} [globals] of whoever asks
 */
function uninstall (globals = globalThis) {
  for (const name of installed) adapters[name].uninstall(globals)
  installed.clear()
  if (!hooked) return
  flushNow()
  // What is under way is counted when it ends, or when the process does.
  whenIdle(() => {
    if (installed.size > 0 || !hooked) return
    hooked = false
    process.off('beforeExit', onBeforeExit)
    process.off('exit', onExit)
    process.off('SIGTERM', onTerminate)
  })
}

function flushNow () {
  account.send()
  try {
    native().flushNow()
  } catch (error) {
    note(error)
  }
}

/** What is still under way when the thread ends was let go of. */
function last () {
  try {
    abandonAll()
    account.send()
    // Calls of other threads may still be under way when a worker ends.
    native().flushNow()
    if (isMainThread) native().shutdown()
  } catch (error) {
    note(error)
  }
  // What was counted is written, and that the process ended: from now on it may kill.
  if (isMainThread) process.off('SIGTERM', onTerminate)
}

/**
 * Nobody is told of a signal that comes when the event loop has ended. Returns whether SIGTERM came while this wrote what
 * was counted: it is to be sent again.
 *
 * @param {() => void} write
 */
function cameDuring (write) {
  const hold = (/** @type {boolean} */ on) => {
    try {
      if (isMainThread) return on ? native().holdSigterm() : native().releaseSigterm()
    } catch (error) {
      note(error)
    }
  }
  hold(true)
  write()
  return hold(false) === true
}

/**
 * Whether a SIGTERM came in the last turn of the event loop, of which nobody is told any more, and would have killed a
 * process in which Farcall does not listen. Where the application listens too, it would not have been told either.
 */
function cameUntold () {
  try {
    const untold = isMainThread && native().takeSigterm()
    const [only, ...others] = process.listeners('SIGTERM')
    return untold && only === onTerminate && others.length === 0
  } catch (error) {
    note(error)
    return false
  }
}

function onBeforeExit () {
  if (cameUntold()) return terminate()
  if (!cameDuring(flushNow)) return
  // The application's own listeners hear of it if it goes on.
  if (process.listeners('SIGTERM').some((listener) => listener !== onTerminate)) process.kill(process.pid, 'SIGTERM')
  else terminate()
}

function onExit () {
  const untold = cameUntold()
  if (cameDuring(last) || untold) process.kill(process.pid, 'SIGTERM')
}

/**
 * Node says of a signal which number it has. One that the program says itself (`process.emit('SIGTERM')`) is none: where
 * nobody else listens, nothing happens.
 *
 * @param {string} [_name]
 * @param {number} [number]
 */
function onTerminate (_name, number) {
  if (number !== undefined || process.listeners('SIGTERM').some((listener) => listener !== onTerminate)) terminate()
}

/**
 * Node dies by SIGTERM unless somebody listens. Farcall listens only to write what it counted: where the
 * application listens too, the signal is the application's; where not, the process dies as it would have.
 */
function terminate () {
  told()
  // The first process of a container does not die of a signal that nobody listens to: it goes on, and so does this.
  if (process.listeners('SIGTERM').some((listener) => listener !== onTerminate) || process.pid === 1) {
    // Some end the process if all who listen are theirs (signal-exit): nobody else is there while they are told.
    process.off('SIGTERM', onTerminate)
    flushNow()
    setImmediate(listenToSignal).unref()
    return
  }
  // While somebody listens, a second signal (of `timeout`, npm, a shell, which send it to the group as well) kills nobody.
  last()
  process.kill(process.pid, 'SIGTERM')
}

/** No signal is on its way to those who listen. */
function told () {
  try {
    native().takeSigterm()
  } catch (error) {
    note(error)
  }
}

function listenToSignal () {
  if (!hooked || !isMainThread || process.listeners('SIGTERM').includes(onTerminate)) return
  // Before all others.
  process.prependListener('SIGTERM', onTerminate)
  try {
    native().noteSigterm()
  } catch (error) {
    note(error)
  }
}

/** See index.d.ts. */
async function flush () {
  account.send()
  if (installed.size > 0) await native().flush()
}

/** See index.d.ts. */
function status () {
  const on = installed.size > 0
  return {
    installed: on,
    home: on ? native().home() : null,
    adapters: { fetch: installed.has('fetch'), http: installed.has('http') },
    inFlight: inFlight(),
    problems: problems(),
    counters: on ? /** @type {Record<string, number>} */ (JSON.parse(native().counters())) : {}
  }
}

module.exports = { install, uninstall, flush, status }
