// What the tests of parking share: the rules, and a vendor that remembers what it got.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { scratchDirectory } from './scratch.mjs'

const RULES = `
[[vendor]]
name = "recorder"
hosts = ["127.0.0.1", "localhost"]
idempotency_header = "Idempotency-Key"

[[outbox]]
name = "orders"
match = { vendor = "recorder" }
park = true

[[quota]]
match = { customer = "limited" }
limit = "1 request / day"
max_wait = "0s"
`

/** Has calls to the vendor parked by what is installed next, in a home of its own. */
export function parkingRules () {
  const scratch = scratchDirectory('parking')
  process.env.FARCALL_HOME = join(scratch, 'home')
  process.env.FARCALL_CONFIG = join(scratch, 'farcall.toml')
  writeFileSync(process.env.FARCALL_CONFIG, RULES)
}

/**
 * A vendor.
 *
 * @param {import('node:test').TestContext} t
 * @param {(listener: import('node:http').RequestListener) => import('node:http').Server} [make]
 */
export async function recorder (t, make = createServer) {
  /** @type {{ headers: import('node:http').IncomingHttpHeaders, body: string }[]} */
  const got = []
  /** What the next requests are answered with; 0 for a connection that breaks off. */
  const statuses = /** @type {number[]} */ ([])
  const server = make(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    got.push({ headers: request.headers, body })
    const status = statuses.shift() ?? 200
    if (status === 0) request.socket.destroy()
    else response.writeHead(status, { 'x-answer': 'yes' }).end('thanks')
  }).listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return { got, statuses, port, url: `http://127.0.0.1:${port}/v1/orders` }
}
