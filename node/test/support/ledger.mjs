// What the ledger says, through the same report that an application would ask for.
import farcall from '../../index.js'

/**
 * The calls that were made for this customer, how they ended, and their bytes. Flushes first.
 *
 * @param {string} customer
 * @param {string[]} filter
 */
export async function counted (customer, ...filter) {
  await farcall.flush()
  const where = [`customer=${customer}`, ...filter]
  const { totals } = await farcall.report('endpoints', { filter: where })
  return {
    calls: /** @type {number} */ (totals.calls),
    bytesOut: /** @type {number} */ (totals.bytes_out),
    bytesIn: /** @type {number} */ (totals.bytes_in)
  }
}

/**
 * How many of the customer's calls came out so.
 *
 * @param {string} customer
 * @param {string} outcome
 * @param {number} [status]
 */
export async function outcomes (customer, outcome, status) {
  const filter = [`outcome=${outcome}`]
  if (status !== undefined) filter.push(`status=${status}`)
  return (await counted(customer, ...filter)).calls
}

let made = 0

/** A customer of whom the ledger has not heard. */
export function newCustomer () {
  made += 1
  return `customer-${process.pid}-${made}`
}

/**
 * Waits until something holds; fails after half a minute.
 *
 * @param {string} what
 * @param {() => unknown} holds
 */
export async function until (what, holds) {
  const end = Date.now() + 30_000
  while (!await holds()) {
    if (Date.now() > end) throw new Error(`it never came true that ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
