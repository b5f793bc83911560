'use strict'
// What this copy of the package can do. Programs get it from index.js, by way of copies.js.

const { flush, install, status, uninstall } = require('./install.js')
const { outbox } = require('./outbox.js')
const { purgeCache } = require('./purge.js')
const { RefusedError } = require('./refused.js')
const { report } = require('./report.js')
const { withCustomer, withPriority, withTags } = require('./scope.js')

module.exports = { RefusedError, flush, install, outbox, purgeCache, report, status, uninstall, withCustomer, withPriority, withTags }
