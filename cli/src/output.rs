//! stdout and stderr.

use crate::Exit;
use farcall_agent::report::{Query, Render, Report, ReportError, Style};
use serde::Serialize;
use std::env;
use std::io::{self, IsTerminal, Write};

/// Prints to stdout. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str, exit: Exit) -> Exit {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            complain(&format!("cannot write to stdout: {error}"));
            Exit::Wrong
        }
    }
}

/// Prints a line to stderr.
pub(crate) fn complain(sentence: &str) {
    let _ = writeln!(io::stderr(), "farcall: {sentence}");
}

/// An answer as JSON.
pub(crate) fn json(answer: &impl Serialize) -> String {
    // Only maps with keys that are not text could fail, and there are none.
    serde_json::to_string_pretty(answer).unwrap_or_default() + "\n"
}

/// Prints a report as a table, or which of the filters left nothing of it.
pub(crate) fn table(report: &Report, query: &Query) -> Exit {
    match report.unmatched(query) {
        Ok(Some(unmatched)) => print(&unmatched.render(&style()), Exit::Fine),
        Ok(None) => print(&report.render(&style()), Exit::Fine),
        Err(error) => failed(&error),
    }
}

/// Says why a question could not be answered.
pub(crate) fn failed(error: &ReportError) -> Exit {
    complain(&error.to_string());
    match error {
        ReportError::Filter(_) | ReportError::NoSuchReport(_) | ReportError::NotFound(_) => Exit::Usage,
        _ => Exit::NoLedger,
    }
}

/// The terminal's width, or 80 columns; colours in a terminal unless `$NO_COLOR` is set (no-color.org).
pub(crate) fn style() -> Style {
    let terminal = io::stdout().is_terminal();
    let width = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).or_else(|| {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    });
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Style::new(width.unwrap_or(80), terminal && !plain)
}
