'use strict'

const { asOne, outside } = require('./lib/copies.js')

const farcall = asOne(outside() ?? require('./lib/api.js'))

module.exports = farcall
// Node finds the names that `import { install } from 'farcall'` may use by reading this file, not by running it.
module.exports.RefusedError = farcall.RefusedError
module.exports.flush = farcall.flush
module.exports.install = farcall.install
module.exports.outbox = farcall.outbox
module.exports.purgeCache = farcall.purgeCache
module.exports.report = farcall.report
module.exports.status = farcall.status
module.exports.uninstall = farcall.uninstall
module.exports.withCustomer = farcall.withCustomer
module.exports.withPriority = farcall.withPriority
module.exports.withTags = farcall.withTags
