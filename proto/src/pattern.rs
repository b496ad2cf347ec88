//! The one `*` matcher: a star stands for any run of characters, anywhere in the pattern.
//!
//! Among several patterns that match: exact > most literal characters > fewer stars > lexicographic.

use std::cmp::Reverse;

/// Whether `pattern` matches all of `text`; case matters.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut tail: Vec<&str> = parts.collect();
    let Some(last) = tail.pop() else { return rest.is_empty() };
    for part in tail {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The best of `patterns` for `text`, by the precedence above.
pub fn best<'a, V>(patterns: impl IntoIterator<Item = (&'a str, V)>, text: &str) -> Option<V> {
    patterns
        .into_iter()
        .filter(|(pattern, _)| matches(pattern, text))
        .min_by_key(|(pattern, _)| rank(pattern))
        .map(|(_, value)| value)
}

fn rank(pattern: &str) -> (bool, Reverse<usize>, usize, &str) {
    let stars = pattern.matches('*').count();
    (stars > 0, Reverse(pattern.chars().count() - stars), stars, pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anywhere() {
        let yes = [
            ("gpt-4o", "gpt-4o"),
            ("gpt*", "gpt-4o"),
            ("*", ""),
            ("gpt-4-*-preview", "gpt-4-1106-preview"),
            ("*-vision", "gpt-4-vision"),
            ("o*", "o"),
            ("a*b*c", "aXbYbZc"),
            ("a**c", "ac"),
        ];
        let no =
            [("gpt-4-*-preview", "gpt-4-preview"), ("gpt*", "o1"), ("", "a"), ("a*a", "a"), ("gpt", "gpt-4")];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{pattern} should match {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn precedence() {
        let map = [("gpt*", 1), ("gpt-4*", 2), ("gpt-4o", 3), ("*", 9)];
        for (text, want) in [("gpt-4o", 3), ("gpt-4-turbo", 2), ("gpt-3.5-turbo", 1), ("claude", 9)] {
            assert_eq!(best(map, text), Some(want), "{text}");
        }
    }
}
