// A process from its start to its end: --import, workers, signals, exits.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import farcall from '../index.js'
import { counted, newCustomer } from './support/ledger.mjs'
import { plain } from './support/sim.mjs'

// Reads the same ledger as the programs write.
farcall.install()

const register = new URL('../lib/register.js', import.meta.url).href
const index = fileURLToPath(new URL('../index.js', import.meta.url))

const scratch = mkdtempSync(join(tmpdir(), 'farcall-programs-'))
after(() => rmSync(scratch, { recursive: true }))

/**
 * Runs a program to its end. What it prints on a line of its own is given to `said`.
 *
 * @param {string} source an ES module
 * @param {{ flags?: string[], env?: Record<string, string>, said?: (line: string, child: import('node:child_process').ChildProcess) => void }} [options]
 */
async function run (source, { flags = ['--import', register], env = {}, said = () => {} } = {}) {
  const file = join(scratch, `${newCustomer()}.mjs`)
  writeFileSync(file, source)
  const child = spawn(process.execPath, [...flags, file], {
    env: { ...process.env, PLAIN: plain, INDEX: index, ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
    for (const line of text.split('\n')) if (line) said(line, child)
  })
  child.stderr.setEncoding('utf8').on('data', (text) => { errors += text })
  const [code, signal] = await once(child, 'close')
  return { code, signal, output, errors }
}

const asking = `
  import { createRequire } from 'node:module'
  const farcall = createRequire(process.env.INDEX)(process.env.INDEX)
  const { PLAIN } = process.env
  const get = async (path) => (await fetch(PLAIN + path)).text()
`

test('node --import farcall/register counts an application that does not know of it', async () => {
  const service = newCustomer()
  const { code, errors } = await run(`
    import http, { get } from 'node:http'
    await (await fetch(process.env.PLAIN + '/scenario/ok')).text()
    const ended = (request) => new Promise((resolve) => request.on('response', (response) => response.resume().on('end', resolve)))
    await ended(get(process.env.PLAIN + '/scenario/ok'))
    await ended(http.request(process.env.PLAIN + '/scenario/ok').end())
    await ended(new http.ClientRequest(process.env.PLAIN + '/scenario/ok').end())
  `, { env: { OTEL_SERVICE_NAME: service } })
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted('unknown', `caller=${service}`)).calls, 4)
})

test('worker threads count what they do, to the call, also where they are terminated', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`${asking}
    import { Worker } from 'node:worker_threads'
    const file = process.env.INDEX.replace('index.js', 'test/programs/worker.cjs')
    await Promise.all([false, false, false, true].map((stay) => new Promise((resolve, reject) => {
      const worker = new Worker(file, { workerData: { origin: PLAIN, customer: '${customer}', stay } })
      worker.on('message', () => worker.terminate()).on('exit', resolve).on('error', reject)
    })))
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.deepEqual(await counted(customer, 'outcome=complete'), { calls: 41, bytesOut: 0, bytesIn: 41 * 17 })
})

test('child processes are callers of their own', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`${asking}
    import { fork } from 'node:child_process'
    const program = process.env.INDEX.replace('index.js', 'test/programs/one-call.cjs')
    await new Promise((resolve) => fork(program, [PLAIN, '${customer}']).on('exit', resolve))
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 2)
})

test('a call is in the ledger however the process ends', async () => {
  const endings = {
    'by itself': '',
    'process.exit': 'process.exit(0)',
    'process.exit in an exit listener of the application': "process.on('exit', () => process.exit(0))",
    'an exception': "throw new Error('on purpose')"
  }
  for (const [name, ending] of Object.entries(endings)) {
    const customer = newCustomer()
    await run(`${asking} await farcall.withCustomer('${customer}', get, '/scenario/ok'); ${ending}`)
    assert.equal((await counted(customer, 'outcome=complete')).calls, 1, name)
  }
})

test('a call that is under way at the exit is abandoned', async () => {
  const customer = newCustomer()
  await run(`${asking} await farcall.withCustomer('${customer}', fetch, PLAIN + '/scenario/endless'); process.exit(0)`)
  assert.equal((await counted(customer, 'outcome=abandoned')).calls, 1)
})

test('SIGTERM still kills a process that does not listen to it, and what it counted is written first', async () => {
  const customer = newCustomer()
  const { signal } = await run(`${asking}
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
    await farcall.withCustomer('${customer}', fetch, PLAIN + '/scenario/endless')
    setInterval(() => {}, 1000)
    console.log('ready')
  `, { said: (_, child) => child.kill('SIGTERM') })
  assert.equal(signal, 'SIGTERM')
  assert.equal((await counted(customer, 'outcome=complete')).calls, 1)
  assert.equal((await counted(customer, 'outcome=abandoned')).calls, 1)
})

test('SIGTERM is left to an application that listens to it', async () => {
  const customer = newCustomer()
  const { code, signal, output } = await run(`${asking}
    process.once('SIGTERM', async () => {
      await farcall.withCustomer('${customer}', get, '/scenario/ok')
      console.log('tidied up')
      process.exit(3)
    })
    setInterval(() => {}, 1000)
    console.log('ready')
  `, { said: (line, child) => { if (line === 'ready') child.kill('SIGTERM') } })
  assert.deepEqual([code, signal], [3, null])
  assert.match(output, /tidied up/)
  assert.equal((await counted(customer)).calls, 1)
})

test('SIGTERM still kills a process where those who listen end it only if nobody else does', async () => {
  const customer = newCustomer()
  // As signal-exit does it.
  const { signal, output } = await run(`${asking}
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
    process.on('SIGTERM', function mine () {
      console.log('tidied up')
      if (process.listeners('SIGTERM').length > 1) return
      process.off('SIGTERM', mine)
      process.kill(process.pid, 'SIGTERM')
    })
    setTimeout(() => {}, 60_000)
    console.log('ready')
  `, { said: (line, child) => { if (line === 'ready') child.kill('SIGTERM') } })
  assert.deepEqual([signal, output], ['SIGTERM', 'ready\ntidied up\n'])
  assert.equal((await counted(customer)).calls, 1)
})

test('SIGTERM that the program says itself, and nobody listens to, is no signal', async () => {
  const customer = newCustomer()
  const { code, signal, output } = await run(`${asking}
    process.emit('SIGTERM')
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
    process.once('SIGTERM', () => console.log('heard'))
    process.emit('SIGTERM', 'SIGTERM')
    process.emit('SIGTERM')
  `)
  assert.deepEqual([code, signal, output], [0, null, 'heard\n'])
  assert.equal((await counted(customer, 'outcome=complete')).calls, 1)
})

test('a process that lives on after SIGTERM is counted on, and its next SIGTERM is heard', async () => {
  const customer = newCustomer()
  const { signal, output } = await run(`${asking}
    const tell = () => {
      process.off('SIGTERM', tell)
      setImmediate(() => setImmediate(async () => {
        await farcall.withCustomer('${customer}', get, '/scenario/ok')
        console.log('alive')
      }))
    }
    process.on('SIGTERM', tell)
    setTimeout(() => {}, 60_000)
    console.log('ready')
  `, { said: (_, child) => child.kill('SIGTERM') })
  assert.deepEqual([signal, output], ['SIGTERM', 'ready\nalive\n'])
  assert.equal((await counted(customer, 'outcome=complete')).calls, 1)
})

test('SIGTERM kills a process that is just ending, and what it counted is written', async () => {
  const customer = newCustomer()
  for (const end of ['', 'process.exit(0)']) {
    // Nobody is told of a signal any more when the event loop has ended.
    const { code, signal } = await run(`${asking}
      await farcall.withCustomer('${customer}', get, '/scenario/ok')
      process.on('exit', () => process.kill(process.pid, 'SIGTERM'))
      ${end}
    `)
    assert.deepEqual([code, signal], [null, 'SIGTERM'], end)
  }
  assert.equal((await counted(customer, 'outcome=complete')).calls, 2)
})

test('SIGTERM in the last turn of the event loop kills as it would have, and an application that listens is not told', async () => {
  const customer = newCustomer()
  const kill = "process.kill(process.pid, 'SIGTERM')"
  /** @param {string} end @param {string} [listen] */
  const ending = async (end, listen = '') => {
    const { code, signal, output } = await run(`${asking}
      await farcall.withCustomer('${customer}', get, '/scenario/ok')
      ${listen}
      ${end}
    `)
    return [code, signal, output]
  }
  const ends = [kill, `setTimeout(() => ${kill}, 20)`, `${kill}; process.exit(0)`, `process.on('beforeExit', () => ${kill})`]
  for (const end of ends) {
    assert.deepEqual(await ending(end), [null, 'SIGTERM', ''], end)
    // So it is without Farcall: nobody is told when the event loop has ended.
    assert.deepEqual(await ending(end, "process.on('SIGTERM', () => console.log('told'))"), [0, null, ''], end)
  }
  // One that was told of in its time is no reason to die later.
  const told = `process.once('SIGTERM', () => console.log('told')); ${kill}; setTimeout(() => {}, 200)`
  assert.deepEqual(await ending(told), [0, null, 'told\n'])
  assert.equal((await counted(customer, 'outcome=complete')).calls, 2 * ends.length + 1)
})

test('SIGTERM that comes while the last that was counted is written kills when it is', async () => {
  const customer = newCustomer()
  /** @param {string} end @param {string} [listen] */
  const ending = async (end, listen = '') => {
    const { code, signal } = await run(`${asking}
      import { dirname } from 'node:path'
      const require = createRequire(process.env.INDEX)
      const addon = require(dirname(process.env.INDEX) + '/lib/native.js').native()
      const { flushNow } = addon
      await farcall.withCustomer('${customer}', get, '/scenario/ok')
      ${listen}
      addon.flushNow = () => {
        addon.flushNow = flushNow
        process.kill(process.pid, 'SIGTERM')
        flushNow()
      }
      ${end}
    `)
    return [code, signal]
  }
  // It is asked for before the loop has ended, and when it has.
  for (const end of ['', 'process.exit(0)']) assert.deepEqual(await ending(end), [null, 'SIGTERM'], end)
  // Who listens himself would not be told either, and lives.
  const listening = "process.on('SIGTERM', () => console.log('never told'))"
  for (const end of ['', 'process.exit(0)']) assert.deepEqual(await ending(end, listening), [0, null], end)
  assert.equal((await counted(customer, 'outcome=complete')).calls, 4)
})

test('a second SIGTERM that comes while the last that was counted is written takes nothing of it', async () => {
  // `timeout`, npm and shells send it to the process and to its group.
  const customer = newCustomer()
  for (const during of ['flushNow', 'shutdown']) {
    const { signal } = await run(`${asking}
      import { dirname } from 'node:path'
      const require = createRequire(process.env.INDEX)
      const addon = require(dirname(process.env.INDEX) + '/lib/native.js').native()
      const { ${during} } = addon
      await farcall.withCustomer('${customer}', get, '/scenario/ok')
      addon.${during} = () => {
        process.kill(process.pid, 'SIGTERM')
        ${during}()
      }
      setInterval(() => {}, 1000)
      console.log('ready')
    `, { said: (_, child) => child.kill('SIGTERM') })
    assert.equal(signal, 'SIGTERM', during)
  }
  assert.equal((await counted(customer, 'outcome=complete')).calls, 2)
})

const canNest = spawnSync('unshare', ['--user', '--map-root-user', '--pid', '--fork', 'true']).status === 0

test('the first process of a container, which does not die of SIGTERM, is counted on', { skip: !canNest && 'no process namespaces here' }, async () => {
  const customer = newCustomer()
  const file = join(scratch, 'first.mjs')
  writeFileSync(file, `${asking}
    import { once } from 'node:events'
    if (process.pid !== 1) throw new Error('not the first')
    const alive = setTimeout(() => process.exit(1), 60_000)
    // So much that it is under way for as long as nobody reads it.
    const response = await farcall.withCustomer('${customer}', fetch, PLAIN + '/scenario/bytes/20000000')
    const heard = once(process, 'removeListener')
    process.kill(process.pid, 'SIGTERM')
    await heard
    await response.arrayBuffer()
    if (process.listenerCount('SIGTERM') !== 1) throw new Error('the next is not heard')
    clearTimeout(alive)
    process.exit()
  `)
  const child = spawn('unshare', ['--user', '--map-root-user', '--pid', '--fork', '--kill-child', process.execPath, '--import', register, file], {
    env: { ...process.env, PLAIN: plain, INDEX: index },
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: 120_000
  })
  assert.deepEqual(await once(child, 'close'), [0, null])
  assert.equal((await counted(customer, 'outcome=complete')).calls, 1)
})

test('installing twice, and from two copies of the package, counts once', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`${asking}
    farcall.install()
    farcall.install({ service: 'again' })
    const require = createRequire(process.env.INDEX)
    for (const file of Object.keys(require.cache)) if (/farcall|node.lib/.test(file) && !file.endsWith('.node')) delete require.cache[file]
    delete require.cache[process.env.INDEX]
    const copy = require(process.env.INDEX)
    if (copy === farcall) throw new Error('the same copy')
    copy.install()
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
  `)
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 1)
})

test('a purge in a program that has only begun, in a home that is new, tells that one', async () => {
  const home = mkdtempSync(join(tmpdir(), 'farcall-purging-'))
  const { output, errors } = await run(`${asking}
    console.log(await farcall.purgeCache())
  `, { env: { FARCALL_HOME: home } })
  rmSync(home, { recursive: true })
  assert.equal(output, '1\n', errors)
})

test('FARCALL_DISABLED=1 hooks nothing and writes nothing', async () => {
  const home = mkdtempSync(join(tmpdir(), 'farcall-disabled-'))
  const { output } = await run(`${asking}
    import { readdirSync } from 'node:fs'
    await get('/scenario/ok')
    const { installed } = farcall.status()
    await farcall.flush()
    console.log(JSON.stringify({ installed, files: readdirSync('${home}') }))
  `, { env: { FARCALL_DISABLED: '1', FARCALL_HOME: home } })
  rmSync(home, { recursive: true })
  assert.deepEqual(JSON.parse(output), { installed: false, files: [] })
})

test('an adapter can be left out', async () => {
  const customer = newCustomer()
  const { code, errors } = await run(`${asking}
    farcall.install({ adapters: { fetch: false } })
    await farcall.withCustomer('${customer}', get, '/scenario/ok')
    if (farcall.status().adapters.fetch) throw new Error('it is there')
  `, { flags: [] })
  assert.deepEqual([code, errors], [0, ''])
  assert.equal((await counted(customer)).calls, 0)
})

test('both import styles have every name', async () => {
  const { code, errors } = await run(`
    import { createRequire } from 'node:module'
    const module = await import(process.env.INDEX)
    const farcall = createRequire(process.env.INDEX)(process.env.INDEX)
    for (const name of Object.keys(farcall)) if (module[name] !== farcall[name]) throw new Error(name)
    if (module.default !== farcall) throw new Error('default')
  `, { flags: [] })
  assert.deepEqual([code, errors], [0, ''])
})

after(() => assert.deepEqual(farcall.status().problems, { count: 0, last: null }))
