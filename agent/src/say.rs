//! The few sentences that the agent ever says on its host's stderr.

use std::borrow::Cow;
use std::io::Write;

/// Writes one line to stderr, at once, since other processes may write there, too; a closed or full stderr is not the
/// host's problem.
pub(crate) fn say(sentence: &str) {
    let line = format!("farcall: {}\n", plain(sentence));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A text as it may stand in a line: names come from customers and from the network, and what is no visible
/// character among them could rewrite a terminal or forge a line of a log.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    match text.contains(is_hidden) {
        true => text.chars().map(|c| if is_hidden(c) { '\u{FFFD}' } else { c }).collect(),
        false => text.into(),
    }
}

/// Control characters, and the marks that turn the direction of what follows or have no width.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_rewrite_a_line_is_shown_as_unknown() {
        assert_eq!(
            plain("acme\x1b[2J\nfarcall: all is well\0"),
            "acme\u{FFFD}[2J\u{FFFD}farcall: all is well\u{FFFD}"
        );
        assert_eq!(plain("a\u{202E}b\u{2067}c\u{200B}"), "a\u{FFFD}b\u{FFFD}c\u{FFFD}");
        assert!(matches!(plain("Grüße, 東京 🎉"), Cow::Borrowed(_)));
    }
}
