import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'

/**
 * A directory that is gone after the tests. What is installed may write there until the process ends: where it comes in
 * between, that is no failure of a test.
 *
 * @param {string} name
 */
export function scratchDirectory (name) {
  const directory = mkdtempSync(join(tmpdir(), `farcall-${name}-`))
  const remove = () => {
    try {
      rmSync(directory, { recursive: true, force: true })
    } catch {}
  }
  after(remove)
  process.once('exit', remove)
  return directory
}
