//! Who connects, and to which name.

pub mod executable;
pub mod hosts;
pub mod names;
pub mod process;
mod service;

pub use hosts::Hosts;
pub use names::Names;
pub use process::{Process, Processes};
