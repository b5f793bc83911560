//! The few sentences that the agent ever says on its host's stderr.

use std::io::Write;

/// Writes one line to stderr; a closed or full stderr is not the host's problem.
pub(crate) fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "farcall: {sentence}");
}
