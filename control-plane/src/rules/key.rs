//! Client keys and login tokens: how they are made, hashed and shown.

use rand::RngCore;
use sha2::{Digest, Sha256};

/// What stands in the middle of a mask.
const DOTS: &str = "••••••";
/// Characters shown at either end of a mask.
const SHOWN: usize = 4;

/// A new client key: `sk-` and 16 random bytes in lower-case hexadecimal.
pub fn mint() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    format!("sk-{}", hex::encode(bytes))
}

/// A new login token: `sid_` and 32 random bytes.
pub fn mint_session() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{SESSION_PREFIX}{}", hex::encode(bytes))
}

/// How a login token begins.
pub const SESSION_PREFIX: &str = "sid_";

/// Whether a credential has the form of a login token, which is too long to be guessed.
pub fn is_login(credential: &str) -> bool {
    let digits = credential.strip_prefix(SESSION_PREFIX).unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is stored of a key or token. They are long and random, so one round of SHA-256 is enough.
pub fn hash(clear: &str) -> [u8; 32] {
    Sha256::digest(clear.as_bytes()).into()
}

/// The first and last characters that may be kept: none of a secret so short that they would give it away.
pub fn ends(clear: &str) -> (String, String) {
    let characters: Vec<char> = clear.chars().collect();
    if characters.len() <= 2 * SHOWN {
        return (String::new(), String::new());
    }
    let first = characters.iter().take(SHOWN).collect();
    let last = characters.iter().skip(characters.len() - SHOWN).collect();
    (first, last)
}

/// The mask of a key whose ends are known.
pub fn mask_of(first: &str, last: &str) -> String {
    format!("{first}{DOTS}{last}")
}

/// The mask of a secret.
pub fn mask(clear: &str) -> String {
    let (first, last) = ends(clear);
    mask_of(&first, &last)
}

/// Whether a text is a mask, ours or another program's, and so no secret.
pub fn is_mask(text: &str) -> bool {
    text.contains("••") || text.contains("***") || text == "[REDACTED]"
}

/// Associated data under which the clear copy of a key is sealed, where `KEY_REVEAL` keeps one.
pub fn aad(id: i64) -> String {
    format!("key:{id}:clear")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_masks() {
        let key = mint();
        assert_eq!(key.len(), 35);
        assert!(
            key.strip_prefix("sk-")
                .unwrap()
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        );
        assert_ne!(key, mint());
        for (clear, want) in [
            ("sk-1234567890", "sk-1••••••7890"),
            ("123456789", "1234••••••6789"),
            ("12345678", "••••••"),
            ("sk-xxx", "••••••"),
            ("", "••••••"),
            ("密钥一二三四五六七", "密钥一二••••••四五六七"),
        ] {
            assert_eq!(mask(clear), want, "{clear}");
            assert!(is_mask(want));
        }
        assert!(is_mask("[REDACTED]") && is_mask("sk-***abc") && !is_mask(&key));
        assert_eq!(hash("a"), hash("a"));
    }
}
