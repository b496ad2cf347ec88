//! Tokens from bytes, where nobody reported them: for reservations, and for streams that were broken off.

/// Average bytes per token of English prose and code in today's tokenizers; other scripts have more bytes
/// per token, so that the estimate errs on the high side for them.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens in so many bytes of text, rounded up.
pub fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// What to reserve for a request: its body as input, and its output ceiling, or `assumed` without one.
pub fn reservation(body_bytes: u64, max_output: Option<u64>, assumed: u64) -> u64 {
    tokens(body_bytes).saturating_add(max_output.unwrap_or(assumed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_and_saturates() {
        assert_eq!([0, 1, 4, 5].map(tokens), [0, 1, 1, 2]);
        assert_eq!(reservation(8, None, 10), 12);
        assert_eq!(reservation(8, Some(3), 10), 5);
        assert_eq!(reservation(8, Some(u64::MAX), 10), u64::MAX);
    }
}
