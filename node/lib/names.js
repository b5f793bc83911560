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
  /** @type {K | undefined} what was asked for last: mostly the same is asked for again */
  #latest = undefined
  #number = -1
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
    if (key === this.#latest) return this.#number
    let number = this.#known.get(key)
    if (number === undefined) number = this.#learn(key)
    this.#latest = key
    this.#number = number
    return number
  }

  /** @param {K} key */
  #learn (key) {
    // Not known, where this throws.
    this.#latest = undefined
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
