'use strict'
// The addon: node/src, one build for each platform.

const { existsSync, readFileSync } = require('node:fs')
const { join } = require('node:path')

/**
 * @typedef {object} Native
 * @property {(service: string | undefined, home: string | undefined, hint: string | undefined) => boolean} start
 * @property {(name: string) => void} adapterInstalled
 * @property {() => void} countFailure
 * @property {() => void} countUnkept
 * @property {() => string | null} home
 * @property {() => void} shutdown
 * @property {() => void} noteSigterm
 * @property {() => boolean} takeSigterm
 * @property {() => void} holdSigterm
 * @property {() => boolean} releaseSigterm
 * @property {(tls: boolean, host: string, port: number) => number} nameOrigin
 * @property {(method: string) => number} nameMethod
 * @property {(customer: string | undefined, tags: string[]) => number} nameScope
 * @property {() => void} forgetOrigins
 * @property {() => void} forgetMethods
 * @property {() => void} forgetScopes
 * @property {(now: number, numbers: Float64Array, count: number, paths: string) => void} account
 * @property {() => boolean} decides
 * @property {() => boolean} parks
 * @property {() => number} replayBytes
 * @property {(host: string) => boolean} readsAnswers
 * @property {(request: import('./opening.js').Asked & { customer?: string, tags: string[], batch: boolean }) => NativeDecision} begin
 * @property {() => boolean} caches
 * @property {(method: string, url: string, headers: string, flags: number, kind: number, client: string,
 *   patience: number, customer: string | undefined, known: { body?: number, content?: Uint8Array, tags?: string[] } | undefined) =>
 *   NativeDecision | string} open
 * @property {(body: Uint8Array, model: string) => Buffer | null} replaceModel
 * @property {(conditions: string[]) => Promise<number>} purgeCache
 * @property {() => void} flushNow
 * @property {() => Promise<void>} flush
 * @property {() => string} counters
 * @property {(parcel: string, body: Buffer) => Promise<string>} outboxPut
 * @property {(id: number) => Promise<string>} outboxItem
 * @property {(id: number) => Promise<{ head: string, body: Buffer } | null>} outboxAnswer
 * @property {(name: string, ask: (number: number) => void) => void} outboxCredential
 * @property {(number: number, value: string | undefined, why: string | undefined) => void} outboxGive
 * @property {(question: string, sinceMs: number, filters: string[]) => Promise<string>} report
 */

/**
 * node/src/decide.rs says what each is.
 *
 * @typedef {object} NativeDecision
 * @property {() => NextStep} step
 * @property {(method: string, url: string, headers: string[], body: Buffer) => Promise<void>} park
 * @property {() => boolean} mayBeParked
 * @property {(keeps: boolean) => void} keeps
 * @property {() => void} full
 * @property {() => number} replayBytes
 * @property {(bytes: number | undefined) => void} replays
 * @property {(limited: boolean) => NextStep} stepAtOnce
 * @property {() => void} uncacheable
 * @property {(status: number) => boolean} wantsHeaders
 * @property {(status: number, headers: string[]) => boolean} answer
 * @property {(chunk: Uint8Array) => void} read
 * @property {(sent: number, received: number, dns: number, connect: number, tls: number) => void} count
 * @property {() => NextStep | null} hedge
 * @property {(number: number, status: number, error: number) => void} lost
 * @property {() => { decision: () => NativeDecision, step: () => NextStep } | null} shadow
 * @property {(type: number) => void} failed
 * @property {() => void} end
 * @property {() => void} abandon
 */

/**
 * @typedef {object} NextStep
 * @property {'send' | 'wait' | 'refuse' | 'respond' | 'fail' | 'park' | 'settled'} kind
 * @property {number} [ms]
 * @property {string[]} [headers]
 * @property {string} [host]
 * @property {string} [pathPrefix]
 * @property {string} [model]
 * @property {number} [truncate]
 * @property {number} [number]
 * @property {boolean} [conditional]
 * @property {number} [hedgeMs]
 * @property {boolean} [shadow]
 * @property {string} [by]
 * @property {string} [rule]
 * @property {string} [reason]
 * @property {string} [message]
 * @property {number} [until]
 * @property {number} [status]
 * @property {Buffer} [body]
 * @property {number} [error]
 */

/** The file name of the addon for this platform: `farcall.linux-x64-gnu.node`. */
function addonFile () {
  let name = `${process.platform}-${process.arch}`
  if (process.platform === 'linux') name += isMusl() ? '-musl' : '-gnu'
  return `farcall.${name}.node`
}

/** As detect-libc does it: musl's `ldd` says so in its text, glibc's is a script that does not. */
function isMusl () {
  try {
    return readFileSync('/usr/bin/ldd', 'latin1').includes('musl')
  } catch {
    return existsSync('/etc/alpine-release')
  }
}

/** @type {Native | undefined} */
let loaded

/**
 * Loads the addon, once. Throws where there is none for this platform.
 *
 * @returns {Native}
 */
function native () {
  loaded ??= /** @type {Native} */ (require(join(__dirname, '..', addonFile())))
  return loaded
}

module.exports = { addonFile, native }
