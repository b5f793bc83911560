'use strict'

/**
 * The authority of a request of Node's http: what it says in its `Host` header, else where it goes.
 *
 * @param {any} request
 */
function authorityOf (request) {
  return request.getHeader('host') ?? hostOf(request)
}

/**
 * The same where the headers came as a list: Node keeps them only as text.
 *
 * @param {any} request
 */
function hostOf (request) {
  const line = /\r\nhost: *([^\r\n]+)/i.exec(request._header ?? '')
  return line?.[1] ?? request.host
}

module.exports = { authorityOf }
