//! Which endings of an attempt a rule speaks of.

use crate::call::ErrorType;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A response with this status began.
    Status(u16),
    /// No response, or only a part of one.
    Error(ErrorType),
}

/// A set of endings, as in `retry_on = ["5xx", "429", "connect"]`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Triggers {
    /// One bit for each status from 400 to 599 and one for each error's number.
    statuses: [u64; 4],
    errors: u16,
}

const FIRST: u16 = 400;
const LAST: u16 = 599;

impl Triggers {
    /// `["5xx", "429", "connect", "reset", "timeout"]`: what usually passes.
    pub const TRANSIENT: Self = Self::NONE
        .class(5)
        .status(429)
        .error(ErrorType::Dns)
        .error(ErrorType::Connect)
        .error(ErrorType::Reset)
        .error(ErrorType::Timeout);

    /// No ending.
    pub const NONE: Self = Self { statuses: [0; 4], errors: 0 };

    /// With this status; those outside of 400 to 599 are never failures.
    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        if let Some((word, bit)) = place(status) {
            self.statuses[word] |= bit;
        }
        self
    }

    /// With this error.
    #[must_use]
    pub const fn error(mut self, error: ErrorType) -> Self {
        self.errors |= 1 << error as u16;
        self
    }

    /// With all statuses of a class, 4 or 5.
    const fn class(mut self, class: u16) -> Self {
        let mut status = class * 100;
        while status < class * 100 + 100 {
            self = self.status(status);
            status += 1;
        }
        self
    }

    /// With what a word of the configuration stands for: `5xx`, a status, `connect` (which includes names that
    /// do not resolve), `dns`, `tls`, `reset`, `timeout`, `protocol`.
    ///
    /// # Errors
    /// What to write instead, for a word that stands for nothing.
    pub fn word(self, word: &str) -> Result<Self, &'static str> {
        Ok(match word {
            "5xx" => self.class(5),
            "4xx" => {
                return Err(
                    "an ending; most 4xx would end the same way again, so name those you mean, such as \"408\" or \"429\"",
                );
            }
            "connect" => self.error(ErrorType::Connect).error(ErrorType::Dns),
            "dns" => self.error(ErrorType::Dns),
            "tls" => self.error(ErrorType::Tls),
            "reset" => self.error(ErrorType::Reset),
            "timeout" => self.error(ErrorType::Timeout),
            "protocol" => self.error(ErrorType::Protocol),
            _ => match word.parse() {
                Ok(status) if word.len() == 3 && place(status).is_some() => self.status(status),
                Ok(_) => return Err(r#"an ending; write a status from "400" to "599""#),
                Err(_) => {
                    return Err(
                        r#"an ending; write "5xx", a status such as "503", "connect", "dns", "tls", "reset", "timeout" or "protocol""#,
                    );
                }
            },
        })
    }

    /// Whether the set has this ending.
    #[must_use]
    pub const fn has(&self, ending: Ending) -> bool {
        match ending {
            Ending::Error(error) => self.errors & (1 << error as u16) != 0,
            Ending::Status(status) => match place(status) {
                Some((word, bit)) => self.statuses[word] & bit != 0,
                None => false,
            },
        }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether the set has errors beside statuses.
    #[must_use]
    pub const fn has_errors(&self) -> bool {
        self.errors != 0
    }
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let statuses = (FIRST..=LAST).filter(|status| self.has(Ending::Status(*status)));
        let errors = ErrorType::ALL.into_iter().filter(|error| self.has(Ending::Error(*error)));
        f.debug_set().entries(statuses).entries(errors.map(ErrorType::as_str)).finish()
    }
}

const fn place(status: u16) -> Option<(usize, u64)> {
    if status < FIRST || status > LAST {
        return None;
    }
    let at = (status - FIRST) as usize;
    Some((at / 64, 1 << (at % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_endings() {
        let words = ["5xx", "429", "connect"];
        let triggers = words.iter().try_fold(Triggers::NONE, |set, word| set.word(word)).unwrap();
        for ending in (500..600).chain([429]) {
            assert!(triggers.has(Ending::Status(ending)), "{ending}");
        }
        for ending in [200, 404, 428, 499, 600, 655, 0, u16::MAX] {
            assert!(!triggers.has(Ending::Status(ending)), "{ending}");
        }
        assert!(triggers.has(Ending::Error(ErrorType::Connect)));
        assert!(triggers.has(Ending::Error(ErrorType::Dns)));
        assert!(!triggers.has(Ending::Error(ErrorType::Reset)));
        for wrong in ["4xx", "6xx", "200", "600", "999", "+429", "Connect", "cancelled", ""] {
            assert!(Triggers::NONE.word(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_application_cancelled_is_not_tried_again() {
        assert!(!Triggers::TRANSIENT.has(Ending::Error(ErrorType::Cancelled)));
        assert!(!Triggers::TRANSIENT.has(Ending::Error(ErrorType::Tls)));
    }
}
