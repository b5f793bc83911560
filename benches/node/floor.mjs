// Hooks in the places of Farcall's, with nothing in them: what looking on costs, whoever looks.
import channels from 'node:diagnostics_channel'
import http from 'node:http'

/** Puts `wrap(original)` in the place of a method. */
function replace(owner, name, wrap) {
  Object.defineProperty(owner, name, { configurable: true, writable: true, value: wrap(owner[name]) })
}

/** As Farcall's adapter for fetch does. */
function hookFetch() {
  const { fetch } = globalThis
  globalThis.fetch = function (_input, _init = undefined) { return Reflect.apply(fetch, this, arguments) }
  let latest
  channels.subscribe('undici:request:create', ({ request }) => {
    const prototype = Object.getPrototypeOf(request)
    if (prototype === latest) return
    latest = prototype
    for (const name of ['onBodySent', 'onHeaders', 'onData', 'onResponseData', 'onUpgrade', 'onRequestUpgrade', 'onComplete', 'onResponseEnd', 'onError', 'onResponseError']) {
      if (prototype[name]) replace(prototype, name, (original) => function () { return Reflect.apply(original, this, arguments) })
    }
  })
  channels.subscribe('undici:client:beforeConnect', () => {})
}

/** As Farcall's adapter for http does. */
function hookHttp() {
  const { onSocket, write, end, destroy, emit } = http.ClientRequest.prototype
  const { addRequest } = http.Agent.prototype
  let body, complete
  Object.assign(http.ClientRequest.prototype, {
    onSocket() { return Reflect.apply(onSocket, this, arguments) },
    write() { return Reflect.apply(write, this, arguments) },
    end() { return Reflect.apply(end, this, arguments) },
    destroy() { return Reflect.apply(destroy, this, arguments) },
    emit(type) {
      if (type === 'socket') watch(this.parser)
      return Reflect.apply(emit, this, arguments)
    },
  })
  http.Agent.prototype.addRequest = function () { return Reflect.apply(addRequest, this, arguments) }
  function onBody() { return Reflect.apply(body, this, arguments) }
  function onComplete() { return Reflect.apply(complete, this, arguments) }
  function watch(parser) {
    for (let slot = 0; slot < 8; slot++) {
      if (parser[slot]?.name === 'parserOnBody') {
        body = parser[slot]
        parser[slot] = onBody
      } else if (parser[slot]?.name === 'parserOnMessageComplete') {
        complete = parser[slot]
        parser[slot] = onComplete
      }
    }
  }
}

export function hookNothing() {
  hookFetch()
  hookHttp()
}
