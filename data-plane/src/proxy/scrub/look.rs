//! How credentials, accounts and hosts look. A run of letters and the signs that occur in them is judged as a whole
//! (an address, a URL), else part by part. Pure.

use std::net::{IpAddr, SocketAddr};

/// Who reads the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Neither credentials nor accounts nor hosts.
    Callers,
    /// No credentials.
    Admins,
}

/// Endings of host names that occur in texts. Not those that are words of requests too: `content.id`, `tool.name`.
const TOP_LEVELS: &[&str] = &[
    "ai",
    "app",
    "arpa",
    "au",
    "biz",
    "br",
    "ca",
    "cc",
    "ch",
    "cloud",
    "club",
    "cluster",
    "cn",
    "co",
    "com",
    "corp",
    "de",
    "dev",
    "edu",
    "eu",
    "example",
    "fr",
    "gg",
    "gov",
    "hk",
    "icu",
    "internal",
    "intranet",
    "invalid",
    "io",
    "jp",
    "kr",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "me",
    "net",
    "nl",
    "onion",
    "org",
    "pl",
    "ru",
    "se",
    "sg",
    "svc",
    "tech",
    "top",
    "tv",
    "tw",
    "uk",
    "us",
    "vip",
    "ws",
    "xyz",
];
/// Beginnings of credentials, and the least length of one.
const CREDENTIALS: &[(&str, usize)] = &[
    ("sk-", 10),
    ("sk_", 10),
    ("pk_", 12),
    ("rk_", 12),
    ("sess-", 16),
    ("AIza", 20),
    ("ya29.", 10),
    ("AQ.", 20),
    ("GOCSPX-", 12),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ABSK", 20),
    ("eyJ", 20),
    ("xai-", 12),
    ("gsk_", 12),
    ("hf_", 12),
    ("r8_", 12),
    ("pplx-", 12),
    ("nvapi-", 12),
    ("fw_", 16),
    ("tgp_", 12),
    ("ghp_", 12),
    ("gho_", 12),
    ("ghs_", 12),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("xoxb-", 12),
    ("xoxp-", 12),
];
/// After these and a colon or an equals sign stands one.
const SECRET_NAMES: &[&str] = &[
    "key",
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "token",
    "access_token",
    "refresh_token",
    "secret",
    "client_secret",
    "password",
    "passwd",
    "signature",
    "sig",
    "authorization",
    "provided",
];
/// Beginnings of the ids of accounts.
const ACCOUNTS: &[&str] = &["org-", "org_", "proj-", "proj_", "wrkspc_", "acct_", "cus_", "user-", "team_"];
/// After these stands one, or a name of one.
const OWNERS: &[&str] =
    &["organization", "organisation", "workspace", "project", "tenant", "subscription", "account"];
/// How many parts after such a word an id may stand.
const NEAR: u8 = 4;

/// What stood before.
#[derive(Default)]
pub(super) struct Context {
    /// A secret's name was the last part.
    named: bool,
    /// And an assignment followed it.
    assigned: bool,
    /// `Bearer` or `Basic` was the last part.
    scheme: bool,
    /// Parts left in which an account's id may stand.
    near: u8,
    /// The owner's word was the last part.
    owner: bool,
    /// A quote ended a member's name: the number after the colon is JSON's own.
    member: bool,
}

impl Context {
    /// Passes what stands between two runs; how many bytes.
    pub(super) fn between(&mut self, bytes: &[u8], at: usize) -> usize {
        match bytes[at] {
            // An escape: the letter after it belongs to no word.
            b'\\' if is_code(bytes, at) => return 6,
            b'\\' if at + 1 < bytes.len() && bytes[at + 1].is_ascii() => return 2,
            b'"' | b'\'' => self.member = bytes.get(at + 1) == Some(&b':'),
            b' ' | b'`' | b'(' | b'[' => {}
            _ => (self.named, self.scheme, self.owner) = (false, false, false),
        }
        1
    }

    fn passed(&mut self, part: &str) {
        let is_one_of = |words: &[&str]| words.iter().any(|word| part.eq_ignore_ascii_case(word));
        self.named = is_one_of(SECRET_NAMES);
        self.assigned = false;
        self.scheme = is_one_of(&["bearer", "basic"]);
        self.owner = is_one_of(OWNERS);
        self.near = if self.owner { NEAR } else { self.near.saturating_sub(1) };
        self.member = false;
    }
}

/// Whether `\u00e4` stands there.
fn is_code(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 1) == Some(&b'u')
        && bytes.get(at + 2..at + 6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether the byte at `at` belongs to a run. Of other scripts only the dots by which keys are abridged do: a key may
/// stand right behind a letter of theirs.
pub(super) fn in_run(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        byte if byte.is_ascii_alphanumeric() => true,
        b'-' | b'_' | b'.' | b'~' | b'+' | b'/' | b'=' | b'@' | b':' | b'%' | b'&' | b'?' | b'#' | b'*'
        | b'$' | b';' => true,
        byte if byte >= 0x80 => (0..3).any(|back| {
            let from = at.checked_sub(back);
            from.and_then(|from| bytes.get(from..from + 3)).is_some_and(|three| three == "…".as_bytes())
        }),
        _ => false,
    }
}

/// Judges a run; what must go is added to `places`.
pub(super) fn run(
    text: &str,
    (start, end): (usize, usize),
    level: Level,
    context: &mut Context,
    places: &mut Vec<(usize, usize)>,
) {
    let whole = &text[start..end];
    let trimmed = whole.trim_end_matches(['.', ':', ';', '?', ',']);
    let end = start + trimmed.len();
    if level == Level::Callers && is_place(trimmed) {
        places.push((start, end));
        context.passed("");
        return;
    }
    let mut at = start;
    // After the last `//`.
    let mut slashes = None;
    for part in trimmed.split_inclusive(['=', ':', '&', '?', ';', '#', '/', '@']) {
        let (from, next) = (at, at + part.len());
        at = next;
        let word = part.trim_end_matches(['=', ':', '&', '?', ';', '#', '/', '@']);
        let sign = part[word.len()..].bytes().next();
        // Credentials of a URL: `//name:password@`.
        if sign == Some(b'@')
            && let Some(begin) = slashes.take()
        {
            while places.last().is_some_and(|(_, to)| *to > begin) {
                places.pop();
            }
            places.push((begin, from + word.len()));
        } else if !word.is_empty() && must_go(text, (from, word), level, context) {
            places.push((from, from + word.len()));
        }
        if !word.is_empty() {
            context.passed(word);
        }
        if part == "/" && text[start..from].ends_with('/') {
            slashes = Some(next);
        }
        context.assigned = matches!(sign, Some(b'=' | b':'));
    }
    context.assigned |= whole.ends_with(':');
}

/// URLs, addresses of mail and of machines, names of hosts and of resources.
fn is_place(run: &str) -> bool {
    if run.contains("://") || run.starts_with("arn:") || run.starts_with("projects/") {
        return true;
    }
    let run = run.trim_start_matches(['.', ':', '/', '=', '*']);
    if run.starts_with("type.googleapis.com/") {
        // The name of a type in an error of Google's, which clients compare.
        return false;
    }
    if let Some((name, domain)) = run.split_once('@') {
        return !name.is_empty() && domain.contains('.');
    }
    if run.parse::<SocketAddr>().is_ok() || run.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = run.split(['/', ':', '?', '#']).next().unwrap_or_default();
    host.parse::<IpAddr>().is_ok() || is_host(host)
}

fn is_host(text: &str) -> bool {
    let Some((rest, top)) = text.trim_end_matches('.').rsplit_once('.') else { return false };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    TOP_LEVELS.contains(&top)
        && rest.split('.').all(is_label)
        && rest.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn must_go(text: &str, (at, word): (usize, &str), level: Level, context: &Context) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let secretive = (word.len() >= 8 && has_digit) || word.len() >= 20;
    if is_credential(word) || (secretive && (context.scheme || (context.named && context.assigned))) {
        return true;
    }
    level == Level::Callers && is_account(text, (at, word), context)
}

fn is_credential(word: &str) -> bool {
    let begins = |(start, least): &(&str, usize)| word.starts_with(start) && word.len() >= *least;
    CREDENTIALS.iter().any(begins) || is_abridged(word) || is_opaque(word)
}

/// `sk-ab***wxyz`, `****wxyz`, `sk-ab…wxyz`, `sk-a...wxyz`; not `**bold**`.
fn is_abridged(word: &str) -> bool {
    let inner = word.trim_matches('*');
    let letters = |text: &str| text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    let cut =
        |mark: &str| inner.split_once(mark).is_some_and(|(left, right)| letters(left) && letters(right));
    let (before, after) = (word.starts_with("***"), word.ends_with("***"));
    (before != after && letters(inner))
        || cut("**")
        || inner.contains('…') && letters(inner)
        || (cut("...") && CREDENTIALS.iter().any(|(start, _)| inner.starts_with(start)))
}

/// Long, without the dashes and lines of an id, of letters and digits.
fn is_opaque(word: &str) -> bool {
    word.len() >= 32
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'%' | b'~'))
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn is_account(text: &str, (at, word): (usize, &str), context: &Context) -> bool {
    let rest = ACCOUNTS.iter().find_map(|start| word.strip_prefix(start));
    if let Some(rest) = rest {
        let odd = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        return context.near > 0 || (rest.len() >= 6 && rest.bytes().any(odd));
    }
    if context.near == 0 {
        return false;
    }
    if is_uuid(word) {
        return true;
    }
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of JSON stays one.
        let before = text[..at].trim_end_matches(' ');
        let bare = context.member || before.ends_with(['[', ',']) || before.ends_with("\":");
        return word.len() >= 6 && !bare;
    }
    // `project my-project-1`, not `account balance`.
    context.owner && word.len() >= 6 && word.bytes().any(|byte| byte == b'-' || byte.is_ascii_digit())
}

fn is_uuid(word: &str) -> bool {
    let at = |n: usize| matches!(n, 8 | 13 | 18 | 23);
    word.len() == 36
        && word
            .bytes()
            .enumerate()
            .all(|(n, byte)| if at(n) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}
