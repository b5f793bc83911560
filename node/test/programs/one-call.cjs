'use strict'
// Makes one call: `node one-call.cjs ORIGIN CUSTOMER`.
const farcall = require('../../index.js')

const [origin, customer] = process.argv.slice(2)
farcall.install()
farcall.withCustomer(customer, fetch, origin + '/scenario/ok').then((response) => response.text())
