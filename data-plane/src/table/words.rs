//! An owner's sensitive words, compiled: contains (lower-cased), exact (one whole text), regex (any case).

use super::upstream::{REGEX_SIZE, short};
use contract::convert::Invalid;
use contract::table::{MatchType, Word};
use llm::texts::{OVERLAP, Window};
use regex::{Match, Regex, RegexBuilder};
use std::collections::HashSet;

/// Words joined into one automaton; more go into a second one, so that no single one explodes.
const JOINED: usize = 1000;
/// Memory for one automaton of joined words.
const JOINED_SIZE: usize = 32 << 20;
/// Characters of the text shown on each side of a hit.
const AROUND: usize = 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The word, as its owner wrote it (contains, exact: lower-cased).
    pub word: String,
    /// How it matched.
    pub match_type: MatchType,
    /// The place in the text, with a little around it.
    pub excerpt: String,
}

/// See the module.
#[derive(Default)]
pub struct WordSet {
    contains: Vec<Regex>,
    exact: HashSet<String>,
    regexes: Vec<(String, Regex)>,
    problems: Vec<Invalid>,
}

impl WordSet {
    /// Compiles an owner's words. One that does not compile never matches, see [`WordSet::problems`].
    pub fn new<'a>(words: impl IntoIterator<Item = &'a Word>) -> Self {
        let mut set = Self::default();
        let mut contains = Vec::new();
        for word in words {
            let lower = word.word.trim().to_lowercase();
            if lower.is_empty() {
                continue;
            }
            match word.match_type {
                MatchType::Contains => contains.push(lower),
                MatchType::Exact => _ = set.exact.insert(lower),
                MatchType::Regex => {
                    let built =
                        RegexBuilder::new(&word.word).case_insensitive(true).size_limit(REGEX_SIZE).build();
                    match built {
                        Ok(regex) => set.regexes.push((word.word.clone(), regex)),
                        Err(error) => set.problems.push(problem(word.id, short(&error))),
                    }
                }
                MatchType::Prefix | MatchType::Suffix => {
                    set.problems.push(problem(word.id, "a word cannot match by prefix or suffix".to_owned()));
                }
            }
        }
        for chunk in contains.chunks(JOINED) {
            let joined = chunk.iter().map(|word| regex::escape(word)).collect::<Vec<_>>().join("|");
            match RegexBuilder::new(&joined).size_limit(JOINED_SIZE).build() {
                Ok(regex) => set.contains.push(regex),
                Err(error) => set.problems.push(Invalid::new("words", short(&error))),
            }
        }
        set
    }

    /// The words that do not compile.
    pub fn problems(&self) -> &[Invalid] {
        &self.problems
    }

    /// The first hit in a stretch of a text: contains before exact before regex. Words longer than what two stretches
    /// have in common are found in texts of one stretch only.
    pub fn find(&self, window: Window<'_>) -> Option<Hit> {
        let text = window.text;
        let lower = text.to_lowercase();
        let hit = |word: &str, match_type, text: &str, start, end| {
            Some(Hit { word: word.to_owned(), match_type, excerpt: excerpt(text, start, end) })
        };
        if let Some(found) = self.contains.iter().find_map(|regex| regex.find(&lower)) {
            return hit(found.as_str(), MatchType::Contains, &lower, found.start(), found.end());
        }
        let whole = lower.trim();
        if window.first
            && window.last
            && let Some(word) = self.exact.get(whole)
        {
            return hit(word, MatchType::Exact, whole, 0, whole.len());
        }
        let found = self.regexes.iter().find_map(|(word, regex)| Some((word, search(regex, window)?)));
        found.and_then(|(word, at)| hit(word, MatchType::Regex, text, at.start(), at.end()))
    }
}

/// An expression in a stretch. The ends of a stretch are no ends of the text: from the second letter on the expression
/// sees what stands before, and what touches the end is left to the next stretch if that holds the whole of it.
fn search<'t>(regex: &Regex, window: Window<'t>) -> Option<Match<'t>> {
    let text = window.text;
    let from = if window.first { 0 } else { text.chars().next().map_or(0, char::len_utf8) };
    let found = regex.find_at(text, from)?;
    let touches = !window.last && found.end() == text.len();
    let again = text.len().saturating_sub(OVERLAP) < found.start();
    (!(touches && again)).then_some(found)
}

fn problem(id: i64, why: String) -> Invalid {
    Invalid::new(format!("words[id {id}].word"), why)
}

fn excerpt(text: &str, start: usize, end: usize) -> String {
    let before = text[..start].char_indices().rev().nth(AROUND - 1).map_or(0, |(at, _)| at);
    let hit = text[start..end].chars().take(4 * AROUND);
    text[before..start].chars().chain(hit).chain(text[end..].chars().take(AROUND)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::UserId;
    use llm::texts::Windows;

    fn word(match_type: MatchType, word: &str) -> Word {
        Word { id: 1, owner_id: UserId(1), match_type, word: word.to_owned() }
    }

    #[test]
    fn order_and_case() {
        let words = [
            word(MatchType::Regex, r"a{2,}h"),
            word(MatchType::Exact, " Hello There"),
            word(MatchType::Contains, "Bad.Word"),
            word(MatchType::Contains, "Ünfug"),
            word(MatchType::Regex, "("),
            word(MatchType::Prefix, "x"),
            word(MatchType::Contains, " "),
        ];
        let set = WordSet::new(&words);
        assert_eq!(set.problems().len(), 2, "{:?}", set.problems());
        let cases = [
            ("say BAD.WORD aah", Some(("bad.word", MatchType::Contains))),
            ("say badxword", None),
            ("  hello THERE \n", Some(("hello there", MatchType::Exact))),
            ("hello there you", None),
            ("AAAH", Some((r"a{2,}h", MatchType::Regex))),
            ("so ein ÜNFUG!", Some(("ünfug", MatchType::Contains))),
            ("", None),
        ];
        for (text, want) in cases {
            let got = set.find(Window::whole(text));
            let got = got.as_ref().map(|hit| (hit.word.as_str(), hit.match_type));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn excerpts_are_short_and_cut_between_characters() {
        let set = WordSet::new(&[word(MatchType::Contains, "boom")]);
        let text = format!("{}boom{}", "ä".repeat(500), "ß".repeat(500));
        let hit = set.find(Window::whole(&text)).expect("hit");
        assert_eq!(hit.excerpt, format!("{}boom{}", "ä".repeat(20), "ß".repeat(20)));
    }

    #[test]
    fn the_ends_of_a_stretch_are_no_ends_of_the_text() {
        let words = [
            word(MatchType::Regex, "^start"),
            word(MatchType::Regex, "end$"),
            word(MatchType::Regex, r"\bwhole\b"),
            word(MatchType::Exact, "alone"),
        ];
        let set = WordSet::new(&words);
        let found = |text, first, last| set.find(Window { text, first, last }).is_some();
        assert!(found("start", true, false) && !found("xstart", false, true) && !found("start", false, true));
        assert!(found("the end", false, true) && !found("the end", false, false));
        assert!(found("xx whole", true, true) && !found("xx whole", true, false), "`wholesome` may follow");
        assert!(found("alone", true, true) && !found("alone", true, false) && !found("alone", false, true));
        // Longer than what the next one repeats.
        let set = WordSet::new(&[word(MatchType::Regex, "boom.*")]);
        let text = format!("boom{}", "x".repeat(OVERLAP));
        assert!(set.find(Window { text: &text, first: true, last: false }).is_some());
    }

    #[test]
    fn a_word_across_two_stretches_is_found() {
        let set = WordSet::new(&[word(MatchType::Contains, "Bad Word"), word(MatchType::Regex, r"\bba+h\b")]);
        for (text, hits) in [("bad word", 1), ("baaah", 1), ("good word", 0)] {
            for at in (llm::texts::WINDOW - 12)..(llm::texts::WINDOW + 4) {
                let text =
                    format!("{}{text} {}", "ü ".repeat(at)[..at / 3 * 3].to_owned(), "x ".repeat(5_000));
                let mut windows = Windows::plain(text.as_bytes());
                let mut found = 0;
                while let Some(window) = windows.step() {
                    found += usize::from(set.find(window).is_some());
                }
                assert!(found.min(1) == hits, "{at}");
            }
        }
    }
}
