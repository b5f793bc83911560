/** What `install` may be told. */
export interface InstallOptions {
  /** The service's name in the ledger. Default: `OTEL_SERVICE_NAME`, else the name of the script. */
  service?: string
  /** The directory of the ledger. Default: `FARCALL_HOME`, else `farcall` in the XDG state directory. */
  home?: string
  /** Which clients are looked at; all of them by default. `http` stands for `http` and `https`. */
  adapters?: { fetch?: boolean; http?: boolean }
}

/** How Farcall itself is doing in this thread. */
export interface Status {
  /** Whether calls are counted. */
  installed: boolean
  adapters: { fetch: boolean; http: boolean }
  /** The directory of the ledger; null where there is none, or nothing is installed. */
  home: string | null
  /** Calls that have begun and not ended. */
  inFlight: number
  /** Exceptions inside Farcall's hooks: each was caught, and the application's call went on. */
  problems: { count: number; last: string | null }
  /** What engine and agent could not do as asked, by name, in the whole process. */
  counters: Record<string, number>
}

/** What the calls of a row amount to. Percentiles are within 2%; everything else is exact. */
export interface Numbers {
  calls: number
  /** Calls that failed, or were answered with 4xx or 5xx; and their share, 0 to 1. */
  errors: number
  error_rate: number
  /** Calls that were not made because a rule said so; no errors. */
  refused: number
  /** Calls whose last attempt an injected fault failed or answered in the vendor's place; neither errors nor refused. */
  faulted: number
  /** Calls that the cache answered; and those of them that got a stale answer, because the vendor could not be had. */
  cached: number
  stale: number
  /** Calls that failed, or that a rule refused, and that the outbox took for delivery; part of `calls` and `errors`. */
  parked: number
  /** From begin to the last byte, over the calls that were made. */
  p50_ms: number | null
  p99_ms: number | null
  /** What calls waited because a rule said so, all together. */
  waited_ms: number
  /** Bytes of the bodies on the wire. */
  bytes_out: number
  bytes_in: number
  /** Exchanges on the wire. */
  attempts: number
  /** What the calls cost as far as known, an exact decimal number; null where the cost of none is known. */
  cost: string | null
  currency: string
  /** Calls whose cost is not known, or not wholly. */
  cost_unknown_calls: number
  /** Bytes of bodies that came from the cache. */
  saved_bytes: number
  /** What these answers cost when they were asked for, as far as known, an exact decimal number; null where nothing is known. */
  saved_cost: string | null
  /** What the cache spared of quotas: exchanges that were not made, tokens that were not used, as far as known. */
  saved_requests: number
  saved_tokens: number
  /** Tokens of prompts (cached ones included) and of answers (reasoning included); 0 also where no price asks for them. */
  tokens_in: number
  tokens_out: number
  /** Calls by the tap that counted them; their sum is `calls`. */
  library_calls: number
  kernel_calls: number
  /** Part of `library_calls` that the kernel saw too. */
  confirmed_calls: number
  tap: 'library' | 'kernel' | 'library+kernel'
}

/** The answer to a question: rows, what matters most first. docs/report.md describes each field. */
export interface Table<Row> {
  report: string
  window: { from: string; to: string; seconds: number }
  rows: Row[]
  totals: Numbers
  notes: string[]
}

export interface VendorRow extends Numbers {
  vendor: string
  label: string
  customers: string[]
  customer_count: number
  callers: string[]
  endpoint_count: number
}

export interface EndpointRow extends Numbers {
  vendor: string
  label: string
  endpoint: string
  dns_ms: number | null
  connect_ms: number | null
  tls_ms: number | null
  ttfb_ms: number | null
  transfer_ms: number | null
  connections: number
}

export interface CustomerRow extends Numbers {
  customer: string
  share: number
  vendors: string[]
}

export interface CallerRow extends Numbers {
  service: string
  executable: string
  user: string
  containers: string[]
  pids: number[]
  process_count: number | null
  instrumented: boolean
  vendors: string[]
}

/** A single call; docs/report.md says which are kept. */
export interface CallRow {
  /** 16 hexadecimal digits. */
  id: string
  /** RFC 3339, in UTC. */
  begun: string
  service: string
  pid: number
  customer: string
  /** `key=value,key=value` */
  tags: string
  vendor: string
  endpoint: string
  tap: 'library' | 'kernel'
  /** 0 without a response. */
  status: number
  /**
   * `complete`, `abandoned`, `cached`, `stale`, `parked`, the type of its error, `refused-` and the concept that refused it, or
   * `unknown` where the sidecar lost the answer.
   */
  outcome: string
  error: boolean
  /** The rule that refused it; null where none did, or its name was not kept. */
  rule: string | null
  /** Why it was refused, and when the same call would have passed; null where it was not, or that was not kept. */
  why: string | null
  /** What rules of the policy told of it that let it pass; in report mode what they would have done. */
  warned: { rule: string; verdict: string }[]
  duration_ms: number
  ttfb_ms: number | null
  bytes_out: number
  bytes_in: number
  attempts: number
  /** What it waited because a rule said so. */
  waited_ms: number
  /** What it cost as far as known, an exact decimal number; null where nothing of it is known. */
  cost: string | null
  /** Why the cost is not known, or not wholly; null where it is. */
  cost_unknown: string | null
  currency: string
  /** What happened to it beside being sent and answered, a line each. */
  events: string[]
}

/** The questions whose answer is a table, and its rows. */
export interface Answers {
  vendors: Table<VendorRow>
  endpoints: Table<EndpointRow>
  customers: Table<CustomerRow>
  callers: Table<CallerRow>
  calls: Table<CallRow>
}

export interface ReportOptions {
  /** How far back: a duration (`"90s"`, `"15m"`, `"1h"`, `"7d"`, a number of milliseconds) or a moment. Default: an hour. */
  since?: string | number | Date
  /** Only what all of these match, as on the command line: `"vendor=stripe"`, `"status>=500"`. */
  filter?: string | string[]
}

/**
 * Counts, from now on, the calls that this process makes with `fetch`, undici, `http` and `https`, and what
 * stands on them (axios, got, node-fetch, the vendors' SDKs). The second time it does nothing, also where another copy
 * of this package is asked: they share one set of hooks.
 *
 * Never throws, and never makes a call of the application fail. Worker threads count their own calls after
 * an `install` of their own: `node --import farcall/register` brings it to all of them. With
 * `FARCALL_DISABLED=1` it does nothing. `service` and `home` are those of the first install in the process.
 */
export function install(options?: InstallOptions): void

/**
 * Leaves the clients as they were, and writes what was counted. Calls that are under way end as they began, and are
 * counted then. Of whichever copy of this package it is asked.
 */
export function uninstall(): void

/**
 * Runs `fn(...args)` with its calls, and those of all that it starts, made on behalf of `customer`; returns
 * what `fn` returns. A stream that outlives `fn` still settles on this customer.
 */
export function withCustomer<R, A extends unknown[]>(customer: string, fn: (...args: A) => R, ...args: A): R

/** Runs `fn(...args)` with `tags` on its calls (at most 8); an inner tag of the same key wins. */
export function withTags<R, A extends unknown[]>(
  tags: Record<string, string | number | boolean>,
  fn: (...args: A) => R,
  ...args: A
): R

/**
 * Runs `fn(...args)` with its calls of this priority: where a quota is short, `'batch'` waits for
 * `'interactive'`, which is what calls are unless told otherwise.
 */
export function withPriority<R, A extends unknown[]>(
  priority: 'interactive' | 'batch',
  fn: (...args: A) => R,
  ...args: A
): R

/**
 * A call that was not sent, because a rule of farcall.toml says so: `fetch` rejects with it, a request of `http`
 * emits it as its `'error'`.
 */
export class RefusedError extends Error {
  private constructor()
  readonly name: 'FarcallRefusedError'
  readonly code: 'ERR_FARCALL_REFUSED'
  /** Which concept refused: `'policy'`, `'rollout'`, `'budget'`, `'quota'`, `'concurrency'`, `'breaker'`, `'deadline'`, `'fault'` or `'cache'`. */
  readonly by: string
  /** The rule's name: its own, or its kind and line (`budget@12`). */
  readonly rule: string
  /** What the rule's owner wants the reader to know; empty where he said nothing. */
  readonly reason: string
  /** When the same call would pass, in milliseconds since 1970; null where waiting does not help. */
  readonly until: number | null
}

/**
 * The answer of `farcall report QUESTION --json`, from the ledger of this process: the calls of every
 * process that shares it. What was counted in the last second may not be in it yet: see `flush`.
 *
 * Rejects where the ledger cannot be read, or an option cannot be understood.
 */
export function report<Q extends keyof Answers>(question: Q, options?: ReportOptions): Promise<Answers[Q]>
export function report(
  question: 'coverage' | 'incidents' | 'quotas' | 'budgets' | 'notices' | 'findings' | 'advise' | 'all',
  options?: ReportOptions
): Promise<any>

/** A header's value: itself, or where it is found at each delivery. */
export type OutboxHeader =
  | string
  | { env: string; prefix?: string; suffix?: string }
  | { file: string; prefix?: string; suffix?: string }
  | { callback: string; prefix?: string; suffix?: string }

/** A call to be delivered. */
export interface OutboxCall {
  method: string
  url: string | URL
  headers?: Record<string, OutboxHeader>
  body?: string | Uint8Array
  /** Sent as the body, with its content type. */
  json?: unknown
  /** Default: that of the scope. */
  customer?: string
  /** Calls of one key are delivered one after the other, in the order in which they were put. */
  orderKey?: string
  /** Default: that of the request's own header, else a random one. */
  idempotencyKey?: string
  /** Default: what the catalogue knows of the vendor. */
  idempotencyHeader?: string
  /** How long delivery is tried: 1 at least. Default: 3 days. */
  maxAgeMs?: number
  /** How often: 1 at least. Default: without a bound. */
  maxAttempts?: number
  /** How long one attempt may take. Default: 30,000. */
  timeoutMs?: number
  /** How long the first attempt waits. */
  delayMs?: number
}

/** A call that is on the disk. */
export interface OutboxReceipt {
  id: number
  /** What all its attempts carry, where the vendor takes one. */
  idempotencyKey: string
  /**
   * What the vendor answered, once it took the call. Rejects where the call was given up, or after `timeoutMs` (which has
   * no end unless given). An outbox that cannot be asked now is asked again.
   */
  done(options?: { timeoutMs?: number }): Promise<OutboxAnswer>
}

/** A call in the outbox, as `farcall outbox ls --json` shows it. Moments are RFC 3339. */
export interface OutboxItem {
  id: number
  service: string
  /** The callback that has its credential, where one has. */
  credential: string | null
  state: 'pending' | 'delivered' | 'dead'
  method: string
  vendor: string
  endpoint: string
  host: string
  customer: string | null
  order_key: string | null
  blocked: boolean
  idempotency_key: string
  attempts: number
  put_at: string
  next_at: string
  expires_at: string
  settled_at: string | null
  status: number | null
  error: string | null
  bytes: number
}

/** What the vendor answered; `cut` where the body was longer than what is kept. */
export interface OutboxAnswer {
  status: number
  headers: [string, string][]
  body: Buffer
  cut: boolean
}

/**
 * Calls that must not be lost; docs/outbox.md says what is promised. `install` comes first. What rejects with the code
 * `ERR_FARCALL_OUTBOX_UNAVAILABLE` says nothing about a call: the outbox cannot be asked now, and may be later.
 */
export const outbox: {
  /** Takes a call for delivery; resolves once it is on the disk. Rejects where it was not taken. */
  put(call: OutboxCall): Promise<OutboxReceipt>
  /**
   * A header's value that a function of the program has (`credential`). A call has one such name at most, in as many
   * headers as it likes.
   */
  callback(name: string, around?: { prefix?: string; suffix?: string }): OutboxHeader
  /**
   * Registers the function that has the credential of this name. It is asked at each delivery, and has 10 seconds; what
   * throws, gives no string, or is late is a failed attempt. Another one of the name takes its place. From then on this
   * process delivers calls of its service that take the credential, whoever put them. Keeps no process alive.
   */
  credential(name: string, ask: () => string | Promise<string>): void
  /** The receipt of a call that a rule has parked (`[[outbox]]`), from its response; null where it was not. */
  parked(response: { headers: { get(name: string): string | null } }): Promise<OutboxReceipt | null>
  /** A call as it stands. Delivered ones are forgotten after a day. */
  item(id: number): Promise<OutboxItem>
  /** A call as it stands once it was delivered or given up, or after `timeoutMs` (60,000). */
  wait(id: number, options?: { timeoutMs?: number }): Promise<OutboxItem>
  /** What the vendor answered to a call that was delivered; null while it was not. */
  answer(id: number): Promise<OutboxAnswer | null>
}

/** Which kept answers: patterns, as in a `match` of `farcall.toml`. */
export interface Purge {
  vendor?: string
  /** Method and URL template: `GET /v1/prices*`. */
  endpoint?: string
  method?: string
  customer?: string
}

/**
 * Has the programs of this machine forget the answers that match, all where nothing is said, as `farcall cache purge`
 * does: this process has forgotten them when it resolves, the others do within a second or so. Resolves to how many
 * programs were told.
 */
export function purgeCache(match?: Purge): Promise<number>

/** Writes what was counted to the ledger; resolves once it is there. Farcall does so each second by itself, and at exit. */
export function flush(): Promise<void>

/** How Farcall itself is doing in this thread. */
export function status(): Status
