'use strict'
// A second attempt beside a slow first one. The first answer that is of use counts; one that fails while the other is
// under way is let go of. Where the second counts, the application's request goes on as after any further attempt.

const { clearTimeout, setTimeout } = require('node:timers')
const { LONGEST_MS } = require('../../acting.js')
const { Side, isOfUse } = require('../../beside.js')
const { classify } = require('../../errors.js')
const { note } = require('../../problems.js')
const { isReplayable } = require('./attempts.js')
const { kExchange, kHeld } = require('./request.js')

/** @typedef {InstanceType<typeof Side>} Racer */

/**
 * Two attempts under way: the first is the application's own request.
 *
 * @typedef {{ first: Racer, second: Racer, made: any }} Race
 */

/**
 * Sends a second attempt once the first has taken so long, where there is room for one then.
 *
 * @param {any} request
 * @param {number} ms
 * @param {(step: import('../../native.js').NextStep, second: Racer) => any} send makes it; throws where it cannot be made
 */
function beside (request, ms, send) {
  const held = request[kHeld]
  held.hedge = setTimeout(() => {
    try {
      begin(request, send)
    } catch (error) {
      note(error)
    }
  }, Math.min(Math.ceil(ms), LONGEST_MS)).unref()
}

/**
 * @param {any} request
 * @param {(step: import('../../native.js').NextStep, second: Racer) => any} send
 */
function begin (request, send) {
  const held = request[kHeld]
  const { decision } = held
  // One that waits for a connection of its agent would not have the second one sooner.
  if (!held.open || decision.done || request.destroyed || !request.socket || !isReplayable(request)) return
  const step = decision.hedge()
  if (step === undefined) return
  const exchange = request[kExchange]
  const first = new Side(decision, held.number)
  const second = new Side(decision, step.number ?? 0)
  decision.leave()
  first.attach(exchange)
  /** @type {Race} */
  const race = held.race = { first, second, made: undefined }
  try {
    race.made = send(step, second)
  } catch (error) {
    decision.lost(second.number, 0, classify(error))
    end(held, first)
  }
}

/**
 * The race is over, and this is the attempt that counts.
 *
 * @param {any} held
 * @param {Racer} winner
 */
function end (held, winner) {
  held.race = undefined
  winner.adopt()
}

/**
 * The first of two attempts was answered, or failed. Returns whether the second is waited for.
 *
 * @param {any} request
 * @param {number} status 0 for none
 * @param {unknown} error
 */
function firstCame (request, status, error) {
  const held = request[kHeld]
  const { decision, race: { first, second, made } } = held
  if (isOfUse(status)) {
    decision.lost(second.number, 0, 0)
    second.letGo()
    made.destroy()
    end(held, first)
    return false
  }
  decision.lost(first.number, status, status > 0 ? 0 : classify(error))
  first.letGo()
  held.race = undefined
  held.alone = second
  return true
}

/**
 * The second of two was answered, or failed. Returns whether it counts.
 *
 * @param {any} request
 * @param {number} status 0 for none
 * @param {unknown} error
 */
function secondCame (request, status, error) {
  const held = request[kHeld]
  if (held.race === undefined) {
    // The first failed meanwhile.
    held.alone?.adopt()
    held.alone = undefined
    return true
  }
  const { decision, race: { first, second } } = held
  if (!isOfUse(status)) {
    decision.lost(second.number, status, status > 0 ? 0 : classify(error))
    second.letGo()
    end(held, first)
    return false
  }
  decision.lost(first.number, 0, 0)
  first.letGo()
  end(held, second)
  request[kExchange].abandon()
  return true
}

/**
 * No second attempt is sent any more, and one that is under way is given up: the application let go.
 *
 * @param {any} held
 */
function noMore (held) {
  clearTimeout(held.hedge)
  held.alone?.adopt()
  held.alone = undefined
  const { decision, race } = held
  if (race === undefined) return
  decision.lost(race.second.number, 0, 0)
  race.second.letGo()
  race.made?.destroy()
  end(held, race.first)
}

module.exports = { beside, firstCame, noMore, secondCame }
