//! The end of a value, found without looking at what is in it. Resumable at any byte.

use super::block::{self, Masks, Steps, WIDTH};

/// Runs over one object or array, from its opening bracket to the matching closing one.
///
/// Brackets are only counted: `[}` passes as balanced here and is refused by whoever parses it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skip {
    depth: u32,
    /// All ones inside a string, else 0.
    in_string: u64,
    /// 1 if the next byte is escaped.
    escaped: u64,
    /// Containers closed directly inside the outermost one.
    items: u32,
    counting: bool,
}

impl Skip {
    /// A skip that also counts the objects and arrays directly inside the value.
    pub(crate) fn counting() -> Self {
        Self { counting: true, ..Self::default() }
    }

    /// How many objects and arrays stood directly inside the value, so far.
    pub(crate) fn items(&self) -> u32 {
        self.items
    }

    /// Feeds the next bytes of the value; `Some(n)` when it ends after the `n`th of them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let (blocks, rest) = bytes.as_chunks::<WIDTH>();
        if let Some((block, end)) = block::run(&mut Run { skip: self, len: WIDTH }, blocks) {
            return Some(block * WIDTH + end);
        }
        if rest.is_empty() {
            return None;
        }
        let mut padded = [b' '; WIDTH];
        padded[..rest.len()].copy_from_slice(rest);
        let (_, end) = block::run(&mut Run { skip: self, len: rest.len() }, &[padded])?;
        Some(blocks.len() * WIDTH + end)
    }

    /// Bit by bit through a block in which the value, or an element of it, may end.
    fn walk(&mut self, open: u64, close: u64) -> Option<usize> {
        let mut brackets = open | close;
        while brackets != 0 {
            let at = brackets.trailing_zeros();
            if (open >> at) & 1 == 1 {
                self.depth += 1;
            } else {
                self.depth = self.depth.saturating_sub(1);
                match self.depth {
                    0 => return Some(at as usize + 1),
                    1 => self.items += 1,
                    _ => {}
                }
            }
            brackets &= brackets - 1;
        }
        None
    }

    /// The bytes of a block that a backslash escapes; carries over to the next block.
    ///
    /// In a run of backslashes every second one escapes. Subtracting the starts of the runs from the
    /// odd bits lets the borrow run through each run and leaves its parity behind.
    #[inline(always)]
    fn escaped(&mut self, backslash: u64, len: usize) -> u64 {
        if backslash == 0 {
            return std::mem::take(&mut self.escaped);
        }
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let carried = self.escaped;
        let starts = backslash & !carried;
        let parity = ((starts << 1) | ODD).wrapping_sub(starts) ^ ODD;
        self.escaped = ((parity & backslash) >> (len - 1)) & 1;
        parity ^ (backslash | carried)
    }
}

/// A run over blocks of which the first `len` bytes are text and the others spaces.
struct Run<'a> {
    skip: &'a mut Skip,
    len: usize,
}

impl Steps for Run<'_> {
    #[inline(always)]
    fn step(&mut self, masks: Masks, prefix_xor: impl Fn(u64) -> u64) -> Option<usize> {
        let skip = &mut *self.skip;
        let quotes = masks.quote & !skip.escaped(masks.backslash, self.len);
        let inside = prefix_xor(quotes) ^ skip.in_string;
        skip.in_string = ((inside as i64) >> 63) as u64;
        let (open, close) = (masks.open & !inside, masks.close & !inside);
        let closes = close.count_ones();
        // While the depth cannot come down to where something is to be noticed, arithmetic is enough.
        if skip.depth > closes + u32::from(skip.counting) {
            skip.depth = skip.depth + open.count_ones() - closes;
            return None;
        }
        skip.walk(open, close)
    }
}

/// Bytes of a string that are looked at one by one before the vector search starts.
const SHORT: usize = 24;

/// Runs over the inside of a string, from after its opening quote.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Text {
    escaped: bool,
}

impl Text {
    /// Feeds the next bytes; `Some(n)` when the closing quote is the byte at `n`.
    #[inline]
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if self.escaped && !bytes.is_empty() {
            self.escaped = false;
            at = 1;
        }
        // Names and most values are shorter than the call of a vector search is worth.
        for (found, byte) in bytes.iter().enumerate().skip(at).take(SHORT) {
            match byte {
                b'"' => return Some(found),
                b'\\' => break,
                _ => at = found + 1,
            }
        }
        loop {
            let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[found] == b'"' {
                return Some(found);
            }
            at = found + 2;
            if at > bytes.len() {
                self.escaped = true;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious way, one byte after the other.
    fn slow(bytes: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        for (index, byte) in bytes.iter().enumerate() {
            // Outside of strings a backslash is no JSON; there it hides quotes but no brackets.
            let hidden = std::mem::take(&mut escaped);
            match byte {
                b'\\' if !hidden => escaped = true,
                b'"' if !hidden => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn skips_like_the_obvious_way_in_any_pieces(
            text in r#"\[([\\"{}\[\] a]|\\\\){0,300}"#, cut in 0usize..300,
        ) {
            let bytes = text.as_bytes();
            let expected = slow(bytes);
            prop_assert_eq!(Skip::default().feed(bytes), expected);
            let cut = cut.min(bytes.len());
            let mut skip = Skip::counting();
            let found = skip.feed(&bytes[..cut])
                .or_else(|| skip.feed(&bytes[cut..]).map(|n| cut + n));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn counts_elements(sizes in prop::collection::vec(0usize..90, 0..12)) {
            let items: Vec<String> =
                sizes.iter().map(|n| format!("{{\"a\":[{{}}],\"b\":\"{}\"}}", "}x".repeat(*n))).collect();
            let text = format!("[{}]", items.join(","));
            let mut skip = Skip::counting();
            prop_assert_eq!(skip.feed(text.as_bytes()), Some(text.len()));
            prop_assert_eq!(skip.items() as usize, sizes.len());
        }

        #[test]
        fn finds_the_closing_quote_in_any_pieces(text in r#"([\\"a]){0,40}"#, cut in 0usize..40) {
            let bytes = text.as_bytes();
            let whole = Text::default().feed(bytes);
            let cut = cut.min(bytes.len());
            let mut pieces = Text::default();
            let found = pieces.feed(&bytes[..cut]).or_else(|| pieces.feed(&bytes[cut..]).map(|n| cut + n));
            prop_assert_eq!(found, whole);
        }
    }
}
