//! What leaves for other people's tools.

mod exporter;
pub(crate) mod otlp;

pub(crate) use exporter::{Exporter, Source};
