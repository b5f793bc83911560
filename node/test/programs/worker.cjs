'use strict'
// A worker that makes ten calls, and then, where it is told to stay, leaves a stream open until it is terminated.
const { parentPort, workerData } = require('node:worker_threads')
const farcall = require('../../index.js')

const { origin, customer, stay } = workerData
farcall.withCustomer(customer, async () => {
  for (let n = 0; n < 10; n += 1) await (await fetch(origin + '/scenario/ok')).text()
  if (!stay) return
  await fetch(origin + '/scenario/endless')
  parentPort?.postMessage('terminate me')
  setInterval(() => {}, 1_000)
})
