//! Who connects, and to which name.

pub mod executable;
pub mod names;
pub mod process;
mod service;

pub use names::Names;
pub use process::{Process, Processes};
