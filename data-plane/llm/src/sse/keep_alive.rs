//! What may be put into a stream that is silent, and where.

use contract::usage::Dialect;

/// What the official clients of a dialect read over, as a whole frame.
pub fn keep_alive(dialect: Dialect) -> &'static [u8] {
    match dialect {
        Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Dialect::OpenAi | Dialect::Responses => b": \n\n",
        // Google's clients take every other line for an answer, comments too.
        Dialect::Gemini => b"\n\n",
    }
}

/// Follows what goes to a caller, and knows whether it ends where a frame ends: only there may a keep-alive stand.
#[derive(Clone, Copy, Debug)]
pub struct FrameEnd {
    /// The last three bytes; at the beginning as if a frame had ended.
    last: [u8; 3],
}

impl Default for FrameEnd {
    fn default() -> Self {
        Self { last: *b"\n\n\n" }
    }
}

impl FrameEnd {
    /// The next bytes that go out.
    pub fn sent(&mut self, data: &[u8]) {
        let [first, second, third] = self.last;
        self.last = match *data {
            [.., a, b, c] => [a, b, c],
            [a, b] => [third, a, b],
            [a] => [second, third, a],
            [] => [first, second, third],
        };
    }

    /// Whether a blank line was the last thing sent.
    pub fn is_here(&self) -> bool {
        let ends = |byte| matches!(byte, b'\n' | b'\r');
        match self.last {
            [before, b'\r', b'\n'] => ends(before),
            [_, before, last] => ends(last) && ends(before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_gap_between_two_frames_however_they_are_cut() {
        for (text, here) in [
            ("", true),
            ("\n", true),
            ("data: x", false),
            ("data: x\n", false),
            ("data: x\r\n", false),
            ("data: x\r", false),
            ("data: x\n\n", true),
            ("data: x\r\n\r\n", true),
            ("data: x\r\r", true),
            ("data: x\n\r\n", true),
            (": comment\n", false),
            (": comment\n\n", true),
            ("data: x\n\nid", false),
        ] {
            for size in 1..=text.len().max(1) {
                let mut end = FrameEnd::default();
                text.as_bytes().chunks(size).for_each(|piece| end.sent(piece));
                assert_eq!(end.is_here(), here, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_keep_alive_is_a_whole_frame_without_content() {
        for dialect in Dialect::ALL {
            let mut end = FrameEnd::default();
            end.sent(keep_alive(*dialect));
            assert!(end.is_here(), "{dialect:?}");
            let mut scanner = crate::usage::UsageScanner::new(*dialect, true);
            scanner.feed(keep_alive(*dialect));
            assert!(!scanner.first_content() && scanner.error().is_none(), "{dialect:?}");
        }
    }
}
