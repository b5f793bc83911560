'use strict'
// Which calls reach their vendor in another way than a delivery from the outbox would: straight to their URL, trusting
// what the system trusts, with no certificate of its own. Made in the plain way they would reach somebody else, or
// nobody: so they are not parked.

const { readFileSync } = require('node:fs')
const http = require('node:http')
const https = require('node:https')
const { authorityOf } = require('./authority.js')
const { checkServerIdentity, rootCertificates } = require('node:tls')

/** As in agent/src/outbox/detour.rs, which has the words. */
const [NONE, CERTIFICATE, PROXY, SOCKET, AUTHORITIES, UNVERIFIED, NAME, HOST, OWN] = Array(9).keys()

/** Whose certificate a connection shows, in the options of `tls.connect`. */
const CERTIFICATES = ['cert', 'key', 'pfx', 'clientCertEngine', 'privateKeyEngine', 'privateKeyIdentifier']

/** @param {any} options */
function hasCertificate (options) {
  if (CERTIFICATES.some((name) => options[name])) return true
  const context = options.secureContext?.context
  // Of a context that does not tell it may.
  return options.secureContext !== undefined && (typeof context?.getCertificate !== 'function' || context.getCertificate() !== null)
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** @param {unknown} text */
function certificatesOf (text) {
  return (String(text).match(PEM) ?? []).map((pem) => pem.replace(/\s/g, ''))
}

/** Where systems keep what they trust. */
const BUNDLES = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/ca-bundle.pem', '/etc/ssl/cert.pem']

/** @type {Set<string> | undefined} */
let trusted
/** What was last looked at, which is what nearly all calls have: the agent's own. */
const latest = { ca: /** @type {unknown} */ (undefined), isCommon: true }

/**
 * Whether everybody trusts these authorities: the system, which `SSL_CERT_FILE` may name another file for, or Node.
 *
 * @param {any} ca
 */
function areCommon (ca) {
  if (ca === undefined || ca === null) return true
  if (ca === latest.ca) return latest.isCommon
  if (trusted === undefined) {
    trusted = new Set(rootCertificates.flatMap(certificatesOf))
    for (const path of [process.env.SSL_CERT_FILE, ...BUNDLES]) {
      try {
        if (path) for (const pem of certificatesOf(readFileSync(path, 'latin1'))) trusted.add(pem)
      } catch {}
    }
  }
  const all = [ca].flat(Infinity).map((one) => ArrayBuffer.isView(one) ? Buffer.from(one.buffer, one.byteOffset, one.byteLength).toString('latin1') : one)
  const found = all.map(certificatesOf)
  latest.ca = ca
  latest.isCommon = found.every((pems) => pems.length > 0 && pems.every((pem) => /** @type {Set<string>} */ (trusted).has(pem)))
  return latest.isCommon
}

/**
 * What is said of TLS, by the options of a connection.
 *
 * @param {any} options
 * @param {string} [host] that it is to
 */
function detourOfTls (options, host) {
  if (typeof options !== 'object' || options === null) return NONE
  if (hasCertificate(options)) return CERTIFICATE
  if (options.rejectUnauthorized === false) return UNVERIFIED
  if (!areCommon(options.ca)) return AUTHORITIES
  if (options.checkServerIdentity && options.checkServerIdentity !== checkServerIdentity) return NAME
  return host !== undefined && options.servername && options.servername !== host ? NAME : NONE
}

/** Whether Node itself has been told to verify nobody. */
function isCareless () {
  return process.env.NODE_TLS_REJECT_UNAUTHORIZED === '0'
}

/** By which an agent makes connections. */
const METHODS = ['addRequest', 'createSocket', 'createConnection']

/**
 * Whether it is agentkeepalive's, by which openai 4 and others connect: its connections are those that Node makes, and
 * counted. What is made of its classes may make others.
 *
 * @param {any} agent
 */
function onlyCounts (agent) {
  const own = Object.getPrototypeOf(agent)
  // That for https has Node's own way under a symbol; it is made of that for http, which has none of its own.
  const isSecure = Object.getOwnPropertySymbols(own).some((name) => own[name] === https.Agent.prototype.createConnection)
  const plain = isSecure ? Object.getPrototypeOf(own) : own
  return agent.createConnection === own.createConnection && Object.getPrototypeOf(plain) === http.Agent.prototype &&
    ['createConnection', 'getCurrentStatus', 'statusChanged'].every((name) => Object.hasOwn(plain, name))
}

/**
 * What an agent says of the way to a host.
 *
 * @param {any} agent
 * @param {boolean} secure
 */
function detourOfAgent (agent, secure) {
  if (agent.proxy) return PROXY
  if (agent.options?.socketPath) return SOCKET
  if (!(agent instanceof http.Agent) || typeof (/** @type {any} */ (agent).connect) === 'function') return OWN
  const type = /** @type {any} */ (secure ? https.Agent : http.Agent)
  const owned = METHODS.filter((name) => /** @type {any} */ (agent)[name] !== type.prototype[name])
  if (owned.length > 0 && !(owned[0] === 'createConnection' && onlyCounts(agent))) return OWN
  // Its options come before those of the request.
  const { host, hostname, port } = /** @type {any} */ (agent).options ?? {}
  if (host || hostname || port) return OWN
  // Node's own proxies: for some hosts, which it does not tell.
  const named = /** @type {any} */ (agent).options?.proxyEnv
  const proxy = named && (secure ? named.https_proxy || named.HTTPS_PROXY : named.http_proxy || named.HTTP_PROXY)
  return proxy ? PROXY : NONE
}

/**
 * The detour of a request of Node's http or https, as far as it, its agent and its options say; 0 for none.
 *
 * @param {any} request
 * @param {any} agent
 * @param {any} options
 */
function detourOf (request, agent, options) {
  // What follows an authority; a proxy is asked for all of a URL (RFC 9112, section 3.2.2).
  if (request.path.charCodeAt(0) !== 47) return PROXY
  if (request.socketPath || options?.socketPath) return SOCKET
  const secure = request.protocol === 'https:'
  if (typeof options?.createConnection === 'function') return OWN
  if (agent) {
    const detour = detourOfAgent(agent, secure)
    if (detour !== NONE) return detour
  }
  const host = options?.host ?? options?.hostname
  if (!isNamed(authorityOf(request), host, options?.port, secure)) return HOST
  if (!secure) return NONE
  return detourOfTls(options, host) || detourOfTls(agent?.options, host) || (isCareless() ? UNVERIFIED : NONE)
}

/**
 * Whether an authority, as a `Host` header names it, is this host and port.
 *
 * @param {string} authority
 * @param {string | undefined} host
 * @param {string | number | undefined} port
 * @param {boolean} secure
 */
function isNamed (authority, host, port, secure) {
  if (host === undefined) return true
  try {
    const scheme = secure ? 'https:' : 'http:'
    const [named, meant] = [authority, host.includes(':') && !host.startsWith('[') ? `[${host}]` : host].map((text) => new URL(`${scheme}//${text}`))
    if (port) meant.port = String(port)
    return named.host === meant.host
  } catch {
    return false
  }
}

/** How undici calls what it keeps of itself. */
const OPTIONS = 'options'
const STRAIGHT = 'no proxy agent'
const PROXIES = new Set(['http proxy agent', 'https proxy agent'])

/**
 * What a dispatcher keeps under a symbol.
 *
 * @param {any} dispatcher
 * @param {string} name
 */
function kept (dispatcher, name) {
  const symbol = Object.getOwnPropertySymbols(dispatcher).find(({ description }) => description === name)
  return symbol && dispatcher[symbol]
}

const kGlobalDispatcher = Symbol.for('undici.globalDispatcher.1')
/** Where later versions of Node keep it; the former has a wrapper of it for others. */
const kLaterDispatcher = Symbol.for('undici.globalDispatcher.2')

/**
 * The dispatcher that is asked in the place of this one.
 *
 * @param {any} dispatcher
 */
function behind (dispatcher) {
  const { [kGlobalDispatcher]: common, [kLaterDispatcher]: later } = /** @type {any} */ (globalThis)
  return dispatcher === common && dispatcher?.constructor?.name === 'Dispatcher1Wrapper' ? later : dispatcher
}

/**
 * The same of what undici sends requests with.
 *
 * @param {any} dispatcher
 * @param {string} url
 * @returns {number}
 */
function detourOfDispatcher (dispatcher, url) {
  dispatcher = behind(dispatcher)
  const secure = url.startsWith('https:')
  if (typeof dispatcher !== 'object' || dispatcher === null) return secure && isCareless() ? UNVERIFIED : NONE
  const name = dispatcher.constructor?.name
  if (name === 'EnvHttpProxyAgent') {
    const straight = kept(dispatcher, STRAIGHT)
    const through = Object.getOwnPropertySymbols(dispatcher).filter(({ description }) => PROXIES.has(String(description)))
    // Without a proxy in the environment it has none.
    if (straight === undefined || through.some((symbol) => dispatcher[symbol] !== straight)) return PROXY
    return detourOfDispatcher(straight, url)
  }
  if (/Proxy/.test(name)) return PROXY
  // A Client and a Pool go to one host, whatever the URL says; one that is mocked goes nowhere.
  if (name !== 'Agent') return OWN
  const { connect, tls } = kept(dispatcher, OPTIONS) ?? {}
  if (typeof connect === 'function') return OWN
  if (connect?.socketPath) return SOCKET
  if (kept(dispatcher, 'factory')?.name !== 'defaultFactory') return OWN
  if (!secure) return NONE
  const { hostname } = new URL(url)
  return detourOfTls(connect, hostname) || detourOfTls(tls, hostname) || (isCareless() ? UNVERIFIED : NONE)
}

module.exports = { detourOf, detourOfDispatcher }
