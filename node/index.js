'use strict'

const { flush, install, status, uninstall } = require('./lib/install.js')
const { outbox } = require('./lib/outbox.js')
const { purgeCache } = require('./lib/purge.js')
const { RefusedError } = require('./lib/refused.js')
const { report } = require('./lib/report.js')
const { withCustomer, withPriority, withTags } = require('./lib/scope.js')

/** @type {import('./index.js')} */
const farcall = { RefusedError, flush, install, outbox, purgeCache, report, status, uninstall, withCustomer, withPriority, withTags }

module.exports = farcall
// Node finds the names that `import { install } from 'farcall'` may use by reading this file, not by running it.
module.exports.RefusedError = RefusedError
module.exports.flush = flush
module.exports.install = install
module.exports.outbox = outbox
module.exports.purgeCache = purgeCache
module.exports.report = report
module.exports.status = status
module.exports.uninstall = uninstall
module.exports.withCustomer = withCustomer
module.exports.withPriority = withPriority
module.exports.withTags = withTags
