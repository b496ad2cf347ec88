//! Whether a string holds a file and no text. Pure.

/// Shorter, it is looked at: no file is that small, and a sentence without spaces may be.
const LEAST: usize = 64;
/// In an array of strings, of which nobody says what they are.
pub(super) const LEAST_UNNAMED: usize = 1024;

/// Whether the inside of a string token is base64, alone or in a `data:` URL. A base64 text of files has upper and lower
/// case and digits; prose without spaces hardly has all three.
pub(super) fn is_file(inside: &[u8], least: usize) -> bool {
    let rest = match inside.strip_prefix(b"data:") {
        Some(rest) => {
            let head = &rest[..rest.len().min(256)];
            match memchr::memmem::find(head, b";base64,") {
                Some(at) => &rest[at + 8..],
                None => return false,
            }
        }
        None => inside,
    };
    rest.len() >= least.max(LEAST) && is_base64(rest)
}

fn is_base64(bytes: &[u8]) -> bool {
    let (mut upper, mut lower, mut digit) = (false, false, false);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'A'..=b'Z' => upper = true,
            b'a'..=b'z' => lower = true,
            b'0'..=b'9' => digit = true,
            b'+' | b'/' | b'=' | b'-' | b'_' => {}
            // Lines of it, and slashes as PHP writes them.
            b'\\' if matches!(bytes.get(at + 1), Some(b'n' | b'r' | b'/')) => at += 1,
            _ => return false,
        }
        at += 1;
    }
    upper && lower && digit
}
