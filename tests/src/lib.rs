//! One list of scenarios, run through every adapter.
//!
//! `scenarios.toml` says what is sent and what the ledger must say then; `adapters.toml` names the adapters and
//! the shims that stand behind them (`PROTOCOL.md`). [`run`] plays the list through one adapter against a
//! vendor-sim of its own and judges each cell by three accounts of the same traffic: what the application got,
//! what the ledger says, and what the vendor counted. [`Grid`] prints the outcome.

mod adapter;
mod behaviour;
mod exemption;
mod grid;
mod judge;
mod ledger;
mod program;
mod run;
mod scenario;
mod shim;
mod vendor;

pub use adapter::{Adapter, Adapters, Runtime};
pub use behaviour::{Behaviour, Behaviours, behave};
pub use exemption::Exemptions;
pub use grid::{Cell, Grid};
pub use ledger::{Account, Sums, read};
pub use program::{Home, Program};
pub use run::{Rules, run};
pub use scenario::{Scenario, Scenarios, workspace_root};
