//! Encryption of what is kept. Each record has a key of its own, derived from the installation's with a random salt
//! (HKDF-SHA256, RFC 5869), and is sealed with AES-256-GCM: however many records there are, no nonce is used twice
//! under one key.

use super::OutboxError;
use super::file::sync_directory;
use crate::handle::key;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs;
use std::path::Path;

/// The key's file in the home directory: 32 random bytes.
pub(super) const FILE: &str = "outbox.key";
/// Keys in hexadecimal, separated by commas: the first one encrypts, all decrypt.
pub(super) const VARIABLE: &str = "FARCALL_OUTBOX_KEY";

const VERSION: u8 = 1;
const ID: usize = 4;
const SALT: usize = 16;
const HEAD: usize = 1 + ID + SALT;
const NO_RANDOM: &str = "cannot be used: the system has no random numbers";

/// The installation's keys.
pub(super) struct Keys {
    /// With what names them. The first one encrypts.
    keys: Vec<([u8; ID], [u8; 32])>,
    random: SystemRandom,
}

/// Random bytes for one record: to name it, and to derive its key with. No two records are sealed with the same.
pub(super) struct Fresh {
    name: [u8; 16],
    salt: [u8; SALT],
}

impl Fresh {
    /// As 32 hexadecimal digits.
    pub(super) fn name(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.name))
    }
}

/// What a record holds; one cannot be taken for the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Request,
    Response,
}

impl Keys {
    /// Those of the environment, which encrypt where there are any, and the one of this home directory, which is
    /// made where there is none at all. `newest` is the beginning of what was sealed last, where the outbox holds
    /// anything: it has to be readable, since with other keys the calls in there would wait for ever, and nobody
    /// would know why.
    pub(super) fn of(home: &Path, newest: Option<&[u8]>) -> Result<Self, OutboxError> {
        Self::chosen(std::env::var(VARIABLE).ok().as_deref(), home, newest)
    }

    /// Those that are there: none is made.
    pub(super) fn there(home: &Path) -> Result<Self, OutboxError> {
        known(std::env::var(VARIABLE).ok().as_deref(), home).map(Self::from)
    }

    fn chosen(variable: Option<&str>, home: &Path, newest: Option<&[u8]>) -> Result<Self, OutboxError> {
        let mut keys = known(variable, home)?;
        if keys.is_empty() && newest.is_none() {
            keys.push(of_file(home)?);
        }
        let (keys, file) = (Self::from(keys), home.join(FILE));
        let lost = "put back the one that belongs to outbox.db. If that is lost, so are the calls: stop all \
            programs and move outbox.db, outbox.db-wal and outbox.db-shm away";
        match newest.and_then(key_id) {
            _ if keys.keys.is_empty() => Err(OutboxError::Key(format!(
                "its key {} is not there, nor in ${VARIABLE}, and none is made beside calls that it could not read; {lost}",
                file.display()
            ))),
            Some(sealed_by) if keys.with(sealed_by).is_none() => Err(OutboxError::Key(format!(
                "neither {} nor ${VARIABLE} has the key of the calls that are there, and nothing is put under another; {lost}",
                file.display()
            ))),
            _ => Ok(keys),
        }
    }

    pub(super) fn from(keys: Vec<[u8; 32]>) -> Self {
        let keys = keys.into_iter().map(|key| (id(&key), key)).collect();
        Self { keys, random: SystemRandom::new() }
    }

    fn with(&self, sealed_by: &[u8]) -> Option<&[u8; 32]> {
        self.keys.iter().find(|(id, _)| id == sealed_by).map(|(_, key)| key)
    }

    /// What the next record needs of the system, asked for at once.
    pub(super) fn fresh(&self) -> Result<Fresh, OutboxError> {
        let mut bytes = [0; 16 + SALT];
        self.random.fill(&mut bytes).map_err(|_| OutboxError::NoKey(NO_RANDOM.into()))?;
        let mut fresh = Fresh { name: [0; 16], salt: [0; SALT] };
        fresh.name.copy_from_slice(&bytes[..16]);
        fresh.salt.copy_from_slice(&bytes[16..]);
        Ok(fresh)
    }

    /// Seals the parts one behind the other.
    pub(super) fn seal(&self, purpose: Purpose, of: &str, parts: &[&[u8]]) -> Result<Vec<u8>, OutboxError> {
        self.seal_with(self.fresh()?, purpose, of, parts)
    }

    /// The same, with what was asked for before.
    pub(super) fn seal_with(
        &self,
        Fresh { salt, .. }: Fresh,
        purpose: Purpose,
        of: &str,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, OutboxError> {
        let failed = || OutboxError::NoKey("cannot encrypt a call".into());
        let (id, key) = self.keys.first().ok_or_else(failed)?;
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut sealed = Vec::with_capacity(HEAD + length + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(id);
        sealed.extend_from_slice(&salt);
        parts.iter().for_each(|part| sealed.extend_from_slice(part));
        let tag = derived(key, &salt)
            .and_then(|key| {
                key.seal_in_place_separate_tag(nonce(), aad(purpose, of), &mut sealed[HEAD..]).ok()
            })
            .ok_or_else(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    pub(super) fn open(&self, purpose: Purpose, of: &str, sealed: &[u8]) -> Result<Vec<u8>, OutboxError> {
        let damaged = || OutboxError::Key("it is damaged, or was moved".into());
        let (head, text) = sealed.split_at_checked(HEAD).ok_or_else(damaged)?;
        if head[0] != VERSION {
            return Err(OutboxError::Key("a later version of farcall wrote it".into()));
        }
        let key = self.with(&head[1..1 + ID]).ok_or_else(|| {
            OutboxError::Key(format!(
                "its key is not here; put it back as {FILE} in the home directory, or into ${VARIABLE}"
            ))
        })?;
        let mut text = text.to_vec();
        let length = derived(key, &head[1 + ID..])
            .and_then(|key| {
                key.open_in_place(nonce(), aad(purpose, of), &mut text).ok().map(|text| text.len())
            })
            .ok_or_else(damaged)?;
        text.truncate(length);
        Ok(text)
    }

    /// These, and another one that only decrypts.
    pub(super) fn with_another(&self, key: Option<[u8; 32]>) -> Self {
        let keys = self.keys.iter().copied().chain(key.map(|key| (id(&key), key))).collect();
        Self { keys, random: SystemRandom::new() }
    }

    /// Whether the key of a record is among them.
    pub(super) fn knows(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_some_and(|sealed_by| self.with(sealed_by).is_some())
    }

    /// Whether the key of a record is none of them.
    pub(super) fn lacks(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_some_and(|sealed_by| self.with(sealed_by).is_none())
    }

    /// What tells them apart; see [`key_of`].
    pub(super) fn ids(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|(id, _)| id.to_vec()).collect()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Those of the environment, then the one of this home directory.
fn known(variable: Option<&str>, home: &Path) -> Result<Vec<[u8; 32]>, OutboxError> {
    let mut keys = match variable.filter(|text| !text.trim().is_empty()) {
        Some(text) => parse(text).ok_or_else(|| {
            OutboxError::NoKey(format!(
                "in ${VARIABLE} is not a list of keys; write 64 hexadecimal digits for each, separated by commas"
            ))
        })?,
        None => Vec::new(),
    };
    if home.join(FILE).exists() {
        keys.push(of_file(home)?);
    }
    Ok(keys)
}

fn of_file(home: &Path) -> Result<[u8; 32], OutboxError> {
    let file = home.join(FILE);
    let wrong = |what: String| OutboxError::NoKey(format!("({}) {what}", file.display()));
    // Never made anew where there is one: what it encrypted would be lost.
    let there = fs::metadata(&file);
    if there.as_ref().is_ok_and(|metadata| metadata.len() != 32) {
        return Err(wrong("is not 32 bytes long; put the right one back".into()));
    }
    let done = if there.is_ok() { "read" } else { "made" };
    let failed = |error| wrong(format!("cannot be {done}: {error}"));
    let key = key::kept(home, FILE).map_err(failed)?;
    // On the disk before anything that it encrypts.
    sync_directory(home).map_err(|error| wrong(format!("cannot be put on the disk: {error}")))??;
    Ok(key)
}

fn parse(text: &str) -> Option<Vec<[u8; 32]>> {
    text.split(',')
        .map(|key| {
            let key = key.trim();
            if key.len() != 64 || !key.is_ascii() {
                return None;
            }
            let mut bytes = [0; 32];
            for (place, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&key[2 * place..2 * place + 2], 16).ok()?;
            }
            Some(bytes)
        })
        .collect()
}

/// Which key sealed it; `None` where that cannot be said.
fn key_id(sealed: &[u8]) -> Option<&[u8]> {
    (sealed.first() == Some(&VERSION)).then(|| sealed.get(1..1 + ID))?
}

/// Tells which key it was; says nothing about it.
fn id(key: &[u8; 32]) -> [u8; ID] {
    let mut id = [0; ID];
    let named = [b"farcall outbox key id ".as_slice(), key].concat();
    id.copy_from_slice(&digest(&SHA256, &named).as_ref()[..ID]);
    id
}

fn derived(key: &[u8; 32], salt: &[u8]) -> Option<LessSafeKey> {
    let material = Salt::new(HKDF_SHA256, salt).extract(key);
    let key = material.expand(&[b"farcall outbox record"], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

/// Tells which key sealed a record.
#[cfg(feature = "postgres")]
pub(super) fn key_of(sealed: &[u8]) -> &[u8] {
    sealed.get(1..1 + ID).unwrap_or_default()
}

/// Where in a record its name is, from 1, and how long it is.
pub(super) const NAME_AT: usize = 2 + ID;
pub(super) const NAME_LENGTH: usize = SALT;

/// Tells a record from all others: its salt.
pub(super) fn name_of(sealed: &[u8]) -> &[u8] {
    sealed.get(1 + ID..HEAD).unwrap_or_default()
}

/// Whether the environment has keys, which hosts may have in common, and which a lost directory does not take along.
#[cfg(feature = "postgres")]
pub(super) fn has_common_key() -> bool {
    std::env::var(VARIABLE).is_ok_and(|text| !text.trim().is_empty())
}

/// Each derived key seals one record.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn aad(purpose: Purpose, of: &str) -> Aad<Vec<u8>> {
    let word = match purpose {
        Purpose::Request => "request ",
        Purpose::Response => "response ",
    };
    Aad::from([word.as_bytes(), of.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Keys {
        Keys::from(bytes.iter().map(|byte| [*byte; 32]).collect())
    }

    #[test]
    fn a_record_opens_only_whole_in_its_place_for_its_purpose_and_with_its_key() {
        let sealed = keys(&[1]).seal(Purpose::Request, "a", &[b"sec", b"ret"]).unwrap();
        assert_eq!(keys(&[2, 1]).open(Purpose::Request, "a", &sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for (keys, purpose, of) in [
            (keys(&[2]), Purpose::Request, "a"),
            (keys(&[1]), Purpose::Response, "a"),
            (keys(&[1]), Purpose::Request, "b"),
        ] {
            assert!(matches!(keys.open(purpose, of, &sealed), Err(OutboxError::Key(_))));
        }
        for place in 0..sealed.len() {
            let mut torn = sealed.clone();
            torn[place] ^= 1;
            assert!(keys(&[1]).open(Purpose::Request, "a", &torn).is_err(), "{place}");
            assert!(keys(&[1]).open(Purpose::Request, "a", &sealed[..place]).is_err(), "{place}");
        }
        assert_ne!(keys(&[1]).seal(Purpose::Request, "a", &[b"sec", b"ret"]).unwrap(), sealed);
    }

    #[test]
    fn a_key_that_cannot_be_made_is_not_said_to_decrypt_nothing() {
        let home = tempfile::tempdir().unwrap();
        // In the way of the key's making, also for root; as a home that cannot be written would be.
        fs::create_dir_all(home.path().join("outbox.key.new/full")).unwrap();
        let error = Keys::chosen(None, home.path(), None).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, OutboxError::NoKey(_)) && !error.is_passing());
        let expected =
            format!("the key of the outbox ({}) cannot be made: ", home.path().join(FILE).display());
        assert!(said.starts_with(&expected), "{said}");
    }

    #[test]
    fn a_key_file_of_another_length_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let key = of_file(home.path()).unwrap();
        assert_eq!(of_file(home.path()).unwrap(), key);
        fs::write(home.path().join(FILE), "short").unwrap();
        assert!(of_file(home.path()).is_err());
        assert_eq!(fs::read(home.path().join(FILE)).unwrap(), b"short");
    }

    #[test]
    fn no_key_is_made_and_none_is_taken_that_cannot_read_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        let refused =
            |variable: Option<&str>, newest: &[u8]| match Keys::chosen(variable, home.path(), Some(newest)) {
                Err(OutboxError::Key(why)) => why,
                other => panic!("{other:?}"),
            };
        let first = Keys::chosen(None, home.path(), None).unwrap();
        let sealed = first.seal(Purpose::Request, "a", &[b"call"]).unwrap();
        assert!(Keys::chosen(None, home.path(), Some(&sealed)).is_ok());

        let kept = fs::read(home.path().join(FILE)).unwrap();
        fs::remove_file(home.path().join(FILE)).unwrap();
        let why = refused(None, &sealed);
        assert!(why.contains("outbox.key is not there") && why.contains("move outbox.db"), "{why}");
        assert!(!home.path().join(FILE).exists());

        let (other, hexadecimal) = ("0f".repeat(32), |key: &[u8]| -> String {
            key.iter().map(|byte| format!("{byte:02x}")).collect()
        });
        assert!(refused(Some(&other), &sealed).contains("has the key of the calls"));
        fs::write(home.path().join(FILE), [15; 32]).unwrap();
        assert!(refused(None, &sealed).contains("has the key of the calls"));
        let back = Keys::chosen(Some(&hexadecimal(&kept)), home.path(), Some(&sealed)).unwrap();
        assert_eq!(back.open(Purpose::Request, "a", &sealed).unwrap(), b"call");
    }

    #[test]
    fn a_key_in_the_environment_takes_over_from_the_one_in_the_file_which_still_reads() {
        let home = tempfile::tempdir().unwrap();
        let old = Keys::chosen(None, home.path(), None).unwrap();
        let sealed = old.seal(Purpose::Request, "a", &[b"call"]).unwrap();
        let new = Keys::chosen(Some(&"0f".repeat(32)), home.path(), Some(&sealed)).unwrap();
        assert_eq!(new.open(Purpose::Request, "a", &sealed).unwrap(), b"call");
        let resealed = new.seal(Purpose::Request, "a", &[b"call"]).unwrap();
        assert_eq!(keys(&[15]).open(Purpose::Request, "a", &resealed).unwrap(), b"call");
    }

    #[test]
    fn keys_of_the_environment_are_read_or_refused() {
        let one = "0f".repeat(32);
        assert_eq!(parse(&format!("{one}, {one}")).unwrap(), [[15; 32], [15; 32]]);
        for wrong in ["", "0f", &format!("{one},"), &"é".repeat(32)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
