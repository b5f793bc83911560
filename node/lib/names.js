'use strict'

/** As many as a service has vendors, or customers at work at the same time; then all are forgotten. */
const MOST = 1024

/**
 * Things that the addon knows by number: each is passed once, and then costs a look-up. Bounded: when it is
 * full it starts again, so a number is good only until the table forgets.
 *
 * @template K
 */
class Names {
  /** @type {Map<K, number>} */
  #known = new Map()
  #add
  #forget

  /**
   * @param {(key: K) => number} add tells the addon, and returns the number
   * @param {() => void} forget makes the addon forget all of them
   */
  constructor (add, forget) {
    this.#add = add
    this.#forget = forget
  }

  /**
   * The number of `key`.
   *
   * @param {K} key
   */
  numberOf (key) {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    if (this.#known.size >= MOST) {
      this.#known.clear()
      this.#forget()
    }
    const number = this.#add(key)
    this.#known.set(key, number)
    return number
  }
}

module.exports = { MOST, Names }
