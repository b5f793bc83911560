import assert from 'node:assert/strict'
import { test } from 'node:test'
import errors from '../lib/errors.js'

const { ErrorType, classify } = errors

/** @param {string} code @param {string} [message] */
const coded = (code, message = 'something') => Object.assign(new Error(message), { code })

const types = /** @type {const} */ ([
  ['DNS', [coded('ENOTFOUND'), coded('EAI_AGAIN')]],
  ['CONNECT', [coded('ECONNREFUSED'), coded('EHOSTUNREACH'), coded('ENETUNREACH')]],
  ['TLS', [
    coded('ERR_TLS_CERT_ALTNAME_INVALID'), coded('CERT_HAS_EXPIRED'), coded('UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
    coded('SELF_SIGNED_CERT_IN_CHAIN'), coded('ERR_SSL_WRONG_VERSION_NUMBER'),
    coded('ECONNRESET', 'Client network socket disconnected before secure TLS connection was established')
  ]],
  ['TIMEOUT', [
    coded('ETIMEDOUT'), coded('UND_ERR_HEADERS_TIMEOUT'), coded('UND_ERR_CONNECT_TIMEOUT'),
    coded('ECONNABORTED', 'timeout of 100ms exceeded'), new DOMException('late', 'TimeoutError')
  ]],
  ['RESET', [coded('ECONNRESET'), coded('EPIPE'), coded('UND_ERR_SOCKET'), coded('ERR_HTTP2_STREAM_ERROR')]],
  ['PROTOCOL', [coded('HPE_INVALID_CONSTANT'), coded('HPE_HEADER_OVERFLOW'), coded('ERR_HTTP2_ERROR')]],
  ['CANCELLED', [new DOMException('stop', 'AbortError'), coded('ABORT_ERR'), coded('ERR_CANCELED')]],
  ['OTHER', [new Error('who knows'), coded('EWEIRD'), 'a string', undefined, null, 7]]
])

for (const [name, examples] of types) {
  test(`errors of type ${name.toLowerCase()} are known by their codes`, () => {
    for (const error of examples) assert.equal(classify(error), ErrorType[name], String(error))
  })
}

test('the reason is found in what fetch and the AbortController wrap around it', () => {
  assert.equal(classify(new TypeError('fetch failed', { cause: coded('ECONNREFUSED') })), ErrorType.CONNECT)
  assert.equal(classify(new AggregateError([coded('ECONNREFUSED'), coded('ECONNREFUSED')])), ErrorType.CONNECT)
  const late = Object.assign(new Error('aborted', { cause: new DOMException('late', 'TimeoutError') }), { name: 'AbortError', code: 'ABORT_ERR' })
  assert.equal(classify(late), ErrorType.TIMEOUT)
})

test('an error that causes itself is looked at once', () => {
  const error = new Error('a circle')
  error.cause = error
  assert.equal(classify(error), ErrorType.OTHER)
})
