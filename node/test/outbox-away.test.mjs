// An outbox whose server cannot be reached: that is no end of a call.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const home = mkdtempSync(join(tmpdir(), 'farcall-away-'))
writeFileSync(join(home, 'farcall.toml'), '[outbox_store]\nstore = "postgres://nobody@127.0.0.1:1/none"\n')
process.on('exit', () => rmSync(home, { recursive: true, force: true }))
const { default: farcall, outbox } = await import('../index.js')
farcall.install({ service: 'away', home })

test('nobody knows how a call stands while the outbox cannot be asked', async () => {
  const away = { code: 'ERR_FARCALL_OUTBOX_UNAVAILABLE', message: /cannot reach the outbox/ }
  await assert.rejects(outbox.put({ method: 'PUT', url: 'http://vendor.invalid/' }), away)
  await assert.rejects(outbox.item(1), away)
  await assert.rejects(outbox.wait(1, { timeoutMs: 100 }), away)
})
