// What comes of what an application throws.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../programs/throwing.cjs', import.meta.url))

/**
 * What happens to a call one listener of which throws, in a process of its own. Sorted: an uncaught exception may come
 * before the end of the request or after it.
 *
 * @param {string} method
 * @param {string} url
 * @param {'response' | 'error' | 'none'} event whose listener
 */
export async function thrown (method, url, event) {
  const child = spawn(process.execPath, [program, method, url, event], { stdio: ['ignore', 'pipe', 'inherit'], timeout: 120_000 })
  const [said] = await Promise.all([text(child.stdout), once(child, 'close')])
  assert.notEqual(said, '', 'the request never came to its end')
  return JSON.parse(said).sort()
}
