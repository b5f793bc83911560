//! What is kept outside of this process's memory is sealed: nobody who finds it can read it, and nothing that was torn,
//! changed, moved or made by others is taken for an answer.
//!
//! Each record has a key of its own, derived from the installation's with a random salt (HKDF-SHA256, RFC 5869), and is
//! sealed with AES-256-GCM: however many there are, no nonce is used twice under one key. What it is kept under is part
//! of what is authenticated.

use crate::handle::key;
use farcall::cache::{Kept, Key};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::path::Path;

/// The key's file in the home directory: 32 random bytes.
const FILE: &str = "cache.key";
/// The key in hexadecimal, for hosts that share a Redis: instead of the file.
const VARIABLE: &str = "FARCALL_CACHE_KEY";

const VERSION: u8 = 1;
const SALT: usize = 16;
const HEAD: usize = 1 + SALT;

/// The installation's key.
pub(super) struct Seal {
    key: [u8; 32],
    random: SystemRandom,
    /// Whether other hosts can have the same.
    pub(super) is_portable: bool,
}

impl Seal {
    /// By the key of the environment, else by the one of this home directory, which is made where there is none.
    pub(super) fn of(home: &Path) -> io::Result<Self> {
        let (key, is_portable) = match std::env::var(VARIABLE) {
            Ok(text) if !text.trim().is_empty() => {
                let wrong = || {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("${VARIABLE} is no key; write 64 hexadecimal digits"),
                    )
                };
                (parse(&text).ok_or_else(wrong)?, true)
            }
            _ => (key::kept(home, FILE)?, false),
        };
        Ok(Self { key, random: SystemRandom::new(), is_portable })
    }

    /// What the cache's keys are made with by the processes of a service.
    pub(super) fn secret(&self, service: &str) -> Option<[u8; 16]> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                16
            }
        }
        let mut secret = [0; 16];
        let material = Salt::new(HKDF_SHA256, b"").extract(&self.key);
        let info = [b"farcall cache keys of ".as_slice(), service.as_bytes()];
        material.expand(&info, Length).and_then(|made| made.fill(&mut secret)).ok()?;
        Some(secret)
    }

    /// What is kept under a key, as nobody else can read it.
    pub(super) fn seal(&self, key: Key, kept: &Kept) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        self.random.fill(&mut salt).ok()?;
        let mut text = kept.to_bytes();
        let tag = self.derived(&salt)?.seal_in_place_separate_tag(nonce(), aad(key), &mut text).ok()?;
        let mut sealed = Vec::with_capacity(HEAD + text.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&salt);
        sealed.append(&mut text);
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// What was sealed, whole and under this key; `None` for anything else.
    pub(super) fn open(&self, key: Key, mut sealed: Vec<u8>) -> Option<Kept> {
        let (head, text) = sealed.split_at_mut_checked(HEAD)?;
        if head[0] != VERSION {
            return None;
        }
        let text = self.derived(&head[1..])?.open_in_place(nonce(), aad(key), text).ok()?;
        Kept::from_bytes(text)
    }

    fn derived(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let material = Salt::new(HKDF_SHA256, salt).extract(&self.key);
        let key = material.expand(&[b"farcall cache record"], &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("is_portable", &self.is_portable).finish_non_exhaustive()
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(key)
}

/// Each derived key seals one record.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn aad(key: Key) -> Aad<[u8; 17]> {
    let mut bytes = [Kept::VERSION; 17];
    bytes[..16].copy_from_slice(&key.number().to_le_bytes());
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> (tempfile::TempDir, Seal) {
        let home = tempfile::tempdir().unwrap();
        let seal = Seal::of(home.path()).unwrap();
        (home, seal)
    }

    #[test]
    fn a_record_opens_only_whole_and_under_its_key() {
        let (home, seal) = seal();
        let kept = Kept::Varies(["accept-language".into()].into());
        let sealed = seal.seal(Key::of(1), &kept).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"accept"));
        let open = |key, sealed: &[u8]| Seal::of(home.path()).unwrap().open(key, sealed.to_vec());
        assert!(
            matches!(open(Key::of(1), &sealed), Some(Kept::Varies(names)) if &*names[0] == "accept-language")
        );
        assert!(open(Key::of(2), &sealed).is_none());
        for place in 0..sealed.len() {
            let mut torn = sealed.clone();
            torn[place] ^= 1;
            assert!(open(Key::of(1), &torn).is_none(), "{place}");
            assert!(open(Key::of(1), &sealed[..place]).is_none(), "{place}");
        }
        assert_ne!(seal.seal(Key::of(1), &kept).unwrap(), sealed);
        assert!(super::tests::seal().1.open(Key::of(1), sealed).is_none(), "another installation's");
    }

    #[test]
    fn services_make_different_keys_and_processes_of_one_the_same() {
        let (home, seal) = seal();
        assert_eq!(seal.secret("a"), Seal::of(home.path()).unwrap().secret("a"));
        assert_ne!(seal.secret("a"), seal.secret("b"));
    }

    #[test]
    fn a_key_of_the_environment_is_read_or_refused() {
        assert_eq!(parse(&" 0f".repeat(32).replace(' ', "")).unwrap(), [15; 32]);
        for wrong in ["", "0f", &"0f".repeat(33), &"+f".repeat(32), &"é".repeat(32)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
