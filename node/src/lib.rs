//! The Node bindings of Farcall: converts types, and decides nothing.
//!
//! The adapters are JavaScript (`node/lib/`). They know a call by a number, its *ticket*, and names that
//! come back often (origins, methods, customers) by numbers too, because a string costs more to pass than
//! the whole decision: `handle` keeps those names, `call` the calls under way, `report` the read side.
//!
//! A ticket, and the number of a name, are only good on the thread that made them: each worker thread of
//! Node loads the addon for itself. The engine behind them is one for the process.

mod call;
mod handle;
mod report;
