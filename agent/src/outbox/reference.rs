use super::queue;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a credential is found at delivery, so that one that was replaced meanwhile is not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub(super) source: Source,
    pub(super) prefix: String,
    pub(super) suffix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Source {
    Env(String),
    File(PathBuf),
    Callback(String),
}

impl Source {
    /// How long its name is.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Env(name) | Self::Callback(name) => name.len(),
            Self::File(path) => path.as_os_str().len(),
        }
    }
}

impl Reference {
    /// An environment variable of the process that delivers.
    pub fn env(name: impl Into<String>) -> Self {
        Self { source: Source::Env(name.into()), prefix: String::new(), suffix: String::new() }
    }

    /// A file, without the white space at its end; for the process that delivers to read.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()), prefix: String::new(), suffix: String::new() }
    }

    /// What the program's own callback of this name has ([`Outbox::credential`](super::Outbox::credential)): asked at
    /// each delivery, by a process of the service that knows it. A call has one such callback at most, in as many
    /// headers as it likes.
    pub fn callback(name: impl Into<String>) -> Self {
        Self { source: Source::Callback(name.into()), prefix: String::new(), suffix: String::new() }
    }

    /// What stands before it: `Bearer `.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What stands behind it.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// The environment variable, if there is one, whose whole value is a part of this one: credentials mostly come
    /// from there. The longest wins.
    pub(super) fn found_in(value: &str) -> Option<Self> {
        const SHORTEST: usize = 12;
        let known = std::env::vars_os().filter_map(|(name, known)| {
            let (name, known) = (name.into_string().ok()?, known.into_string().ok()?);
            (known.len() >= SHORTEST).then(|| value.find(&known).map(|at| (known.len(), at, name)))?
        });
        let (length, at, name) = known.max_by(|a, b| (a.0, &b.2).cmp(&(b.0, &a.2)))?;
        Some(Self::env(name).prefix(&value[..at]).suffix(&value[at + length..]))
    }

    /// The value, as it is now; `given` is what the callback has.
    pub(super) fn resolve(&self, given: Option<&str>) -> Result<String, String> {
        let found = match &self.source {
            Source::Env(name) => std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set in this process"))?,
            Source::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?
                .trim_end()
                .to_owned(),
            Source::Callback(name) => given.ok_or_else(|| queue::waits_for(name))?.to_owned(),
        };
        if found.is_empty() {
            return Err(match &self.source {
                Source::Env(name) => format!("the environment variable {name} is empty"),
                Source::File(path) => format!("{} is empty", path.display()),
                Source::Callback(name) => {
                    format!("the callback of the credential `{name}` has nothing to give")
                }
            });
        }
        Ok(format!("{}{found}{}", self.prefix, self.suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_repeats_an_environment_variable_becomes_a_reference() {
        // Cargo sets it for every test, long enough to be taken for a credential.
        let (name, value) = ("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
        let found = Reference::found_in(&format!("Bearer {value};")).unwrap();
        assert_eq!(found.resolve(None).unwrap(), format!("Bearer {value};"));
        let Source::Env(found) = &found.source else { panic!("{found:?}") };
        assert_eq!(std::env::var(found).unwrap(), std::env::var(name).unwrap());
        assert_eq!(Reference::found_in("nothing that anybody has in the environment"), None);
    }
}
