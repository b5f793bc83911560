//! The Node bindings of Farcall: converts types, and decides nothing.
//!
//! The adapters are JavaScript (`node/lib/`). Names that come back often (origins, methods, customers) cross
//! once and are numbers from then on, because a string costs more to pass than the whole decision: `handle`
//! keeps them, `call` takes the calls, `outbox` those that must not be lost, `report` is the read side.
//!
//! The number of a name is only good on the thread that asked for it: each worker thread of Node loads the
//! addon for itself. The engine behind them is one for the process.

mod call;
mod decide;
mod handle;
mod kept;
mod outbox;
mod parking;
mod report;
mod sigterm;
mod step;
