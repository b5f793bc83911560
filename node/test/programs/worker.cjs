'use strict'
// A worker that makes ten calls, and then, where it is told to stay, waits until it is terminated.
const { parentPort, workerData } = require('node:worker_threads')
const farcall = require('../../index.js')

const { origin, customer, stay } = workerData
farcall.withCustomer(customer, async () => {
  for (let n = 0; n < 10; n += 1) await (await fetch(origin + '/scenario/ok')).text()
  if (!stay) return
  await farcall.flush()
  parentPort?.postMessage('terminate me')
  setInterval(() => {}, 1_000)
})
