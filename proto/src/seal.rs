//! Secrets at rest: AES-256-GCM under `SECRETS_KEY`, with the row's identity as associated data.
//!
//! A sealed value is: version byte 1, 12-byte nonce, ciphertext with tag. Values travel sealed to the
//! proxies, which open them in memory; nothing in clear reaches a table, a disk or a log.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::RngCore;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

const VERSION: u8 = 1;
const NONCE: usize = 12;

/// Why a value could not be sealed or opened. Says nothing about the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The configured key is not 64 hex digits.
    #[error("the secrets key must be 64 hexadecimal digits (32 bytes)")]
    Key,
    /// The sealed value is too short or of an unknown version.
    #[error("the sealed value has an unknown form")]
    Form,
    /// It was sealed under another key, for another row, or changed since.
    #[error("the sealed value does not open under this secrets key")]
    Open,
    /// The cipher refused the input.
    #[error("the value could not be sealed")]
    Seal,
}

/// The key that seals and opens. Cheap to clone; prints as nothing.
#[derive(Clone)]
pub struct Sealer(Arc<Keys>);

struct Keys {
    cipher: Aes256Gcm,
    /// Makes the nonces of [`Sealer::seal_alike`].
    nonces: [u8; 32],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let bytes = hex::decode(text.trim()).map_err(|_| SealError::Key)?;
        let cipher = Aes256Gcm::new_from_slice(&bytes).map_err(|_| SealError::Key)?;
        let nonces = Sha256::new().chain_update(b"nonces").chain_update(&bytes).finalize().into();
        Ok(Self(Arc::new(Keys { cipher, nonces })))
    }

    /// Seals `clear` for the row named by `identity`.
    pub fn seal(&self, clear: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        self.seal_with(nonce, clear, identity)
    }

    /// Seals such that the same value for the same row gives the same bytes: for what is hashed and compared sealed. The
    /// nonce is made from all that is sealed, so none serves two values; what it tells is that two are equal.
    pub fn seal_alike(&self, clear: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let mut hash = Sha256::new();
        for part in [&self.0.nonces, &(identity.len() as u64).to_le_bytes()[..], identity.as_bytes(), clear] {
            hash.update(part);
        }
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&hash.finalize()[..NONCE]);
        self.seal_with(nonce, clear, identity)
    }

    fn seal_with(&self, nonce: [u8; NONCE], clear: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let payload = Payload { msg: clear, aad: identity.as_bytes() };
        let sealed =
            self.0.cipher.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| SealError::Seal)?;
        Ok([&[VERSION], nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Sealer::seal`] made for the same identity.
    pub fn open(&self, sealed: &[u8], identity: &str) -> Result<Vec<u8>, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Form)?;
        if version != VERSION || rest.len() < NONCE {
            return Err(SealError::Form);
        }
        let (nonce, msg) = rest.split_at(NONCE);
        let payload = Payload { msg, aad: identity.as_bytes() };
        self.0.cipher.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| SealError::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_its_row_and_key() {
        let sealer = Sealer::from_hex(&"0f".repeat(32)).expect("key");
        let other = Sealer::from_hex(&"1f".repeat(32)).expect("key");
        let sealed = sealer.seal(b"sk-canary", "provider:1").expect("seal");
        assert!(!sealed.windows(9).any(|w| w == b"sk-canary"));
        assert_eq!(sealer.open(&sealed, "provider:1").as_deref(), Ok(b"sk-canary".as_slice()));
        assert_eq!(sealer.open(&sealed, "provider:2"), Err(SealError::Open));
        assert_eq!(other.open(&sealed, "provider:1"), Err(SealError::Open));
        assert_eq!(sealer.open(&[9; 40], "provider:1"), Err(SealError::Form));
        assert_eq!(sealer.open(&[], "provider:1"), Err(SealError::Form));
        assert!(matches!(Sealer::from_hex("12"), Err(SealError::Key)));
    }

    #[test]
    fn the_same_value_of_a_row_gives_the_same_bytes() {
        let sealer = Sealer::from_hex(&"0f".repeat(32)).expect("key");
        let alike = |clear: &[u8], row: &str| sealer.seal_alike(clear, row).expect("seal");
        assert_eq!(alike(b"a", "provider:1"), alike(b"a", "provider:1"));
        assert_eq!(sealer.open(&alike(b"a", "provider:1"), "provider:1").as_deref(), Ok(b"a".as_slice()));
        let nonce = |sealed: Vec<u8>| sealed[1..=NONCE].to_vec();
        assert_ne!(nonce(alike(b"a", "provider:1")), nonce(alike(b"b", "provider:1")));
        assert_ne!(nonce(alike(b"a", "provider:1")), nonce(alike(b"a", "provider:2")));
        let other = Sealer::from_hex(&"1f".repeat(32)).expect("key");
        assert_ne!(nonce(alike(b"a", "r")), nonce(other.seal_alike(b"a", "r").expect("seal")));
    }
}
