'use strict'
// Asks twice: `node throwing.cjs METHOD URL EVENT`. Then the listener of EVENT throws; 'none' has nobody listen. Prints what
// happened to the second call.
const http = require('node:http')
const farcall = require('../../index.js')

const [method, url, type] = process.argv.slice(2)
farcall.install({ service: 'parking-test' })
/** @type {string[]} */
const seen = []
process.on('uncaughtException', (error) => seen.push(`uncaught ${error.message}`))

const first = http.request(url, { method }, (response) => response.resume())
first.on('error', () => {})
first.once('close', () => {
  const second = http.request(url, { method })
  second.on('close', () => {
    seen.push('close')
    setImmediate(() => {
      process.stdout.write(JSON.stringify(seen))
      process.exit()
    })
  })
  if (type !== 'none') {
    second.on(type, (/** @type {any} */ given) => {
      seen.push(type)
      given.resume?.()
      throw new Error('mine')
    })
  }
  second.end()
})
first.end()
