// Makes calls as the runner of the scenarios says (tests/PROTOCOL.md): JSON lines in, JSON lines out.
import { spawnSync } from 'node:child_process'
import { createInterface } from 'node:readline'
import farcall from '../index.js'
import { call } from './support/clients.mjs'

const { FARCALL_TEST_CA: ca } = process.env
if (ca && process.env.NODE_EXTRA_CA_CERTS !== ca) {
  // Node reads this variable once, as it starts.
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: ca }
  const { status } = spawnSync(process.execPath, process.argv.slice(1), { env, stdio: 'inherit' })
  process.exit(status ?? 1)
}

farcall.install()

/**
 * Whether a rule refused it, and which: clients make errors of their own around ours. node-fetch keeps of it but code and words.
 *
 * @returns {string}
 * @param {any} error
 */
function failure (error) {
  for (let at = error; at; at = at.cause) if (at instanceof farcall.RefusedError) return `refused-${at.by}`
  const [, by] = error.code === 'ERR_FARCALL_REFUSED' ? /did not send this call: (\w+) /.exec(error.message) ?? [] : []
  return by ? `refused-${by}` : 'failed'
}

/** @param {any} command */
async function run ({ id, client, parallel = 1, customer = null, customers = null, priority = null, ...command }) {
  /** @type {typeof call} */
  const made = (client, command) =>
    priority === null ? call(client, command) : farcall.withPriority(priority, call, client, command)
  const tasks = Array.from({ length: parallel }, (_, number) => {
    const name = customers ? customers[number % customers.length] : customer
    return name === null ? made(client, command) : farcall.withCustomer(name, made, client, command)
  })
  const answer = {
    id,
    ok: true,
    status: /** @type {number | null} */ (null),
    bytes: 0,
    error: /** @type {string | null} */ (null),
    got: /** @type {Record<string, number>} */ ({}),
    values: /** @type {Record<string, number>} */ ({})
  }
  for (const result of await Promise.allSettled(tasks)) {
    const word = result.status === 'fulfilled' ? `${result.value.status}` : failure(result.reason)
    answer.got[word] = (answer.got[word] ?? 0) + 1
    if (result.status === 'fulfilled') {
      answer.status = result.value.status
      answer.bytes += result.value.bytes
      answer.values[result.value.shown] = (answer.values[result.value.shown] ?? 0) + 1
    } else {
      const { name, code, message, cause } = result.reason
      answer.ok = false
      answer.error = `${name} ${code ?? cause?.code ?? ''}: ${message}`
    }
  }
  return answer
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === '') continue
  const command = JSON.parse(line)
  let answer
  if (command.flush) {
    await farcall.flush()
    answer = { id: command.id, ok: true }
  } else answer = await run(command)
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await farcall.flush()
process.exit(0)
