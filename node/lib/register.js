'use strict'
// `node --import farcall/register app.js`, and `node --require farcall/register app.js`. Worker threads get
// the same flags from Node, and so their own install.

require('../index.js').install()
