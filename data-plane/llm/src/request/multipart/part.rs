//! One part's headers, and the boundary that separates parts.

use super::FormError;
use std::ops::Range;

/// A part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The field's name.
    pub name: &'a str,
    /// Whether it has a file's name.
    pub file: bool,
    /// Where its content stands.
    pub content: Range<usize>,
    /// The `charset` that its type names.
    charset: Option<&'a str>,
}

impl<'a> Part<'a> {
    /// `head` are the header lines without the blank one, `at` is where they begin.
    pub(super) fn new(head: &'a [u8], at: usize, content: Range<usize>) -> Result<Self, FormError> {
        let wrong = |expected| FormError::Malformed { offset: at, expected };
        let head = std::str::from_utf8(head).map_err(|_| wrong("headers in UTF-8"))?;
        let (mut named, mut charset) = (None, None);
        for line in head.split("\r\n") {
            let (name, value) =
                line.split_once(':').ok_or_else(|| wrong("`name: value` in a part's header"))?;
            let odd = |c: char| c.is_ascii_control() && c != '\t';
            if !is_token(name) || value.contains(odd) {
                return Err(wrong("`name: value` in a part's header"));
            }
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-disposition") {
                let params =
                    value.split_at_checked("form-data".len()).filter(|(kind, _)| is(kind, "form-data"));
                let params = params.ok_or_else(|| wrong("`Content-Disposition: form-data`"))?.1;
                let found = disposition(params).ok_or_else(|| wrong("one name of a field, in quotes"))?;
                if named.replace(found).is_some() {
                    return Err(wrong("one Content-Disposition in a part"));
                }
            } else if name.eq_ignore_ascii_case("content-type") {
                let given = charset_of(value).ok_or_else(|| wrong("a Content-Type"))?;
                if charset.replace(given).is_some() {
                    return Err(wrong("one Content-Type in a part"));
                }
            } else if name.eq_ignore_ascii_case("content-transfer-encoding")
                && !["7bit", "8bit", "binary"].iter().any(|plain| is(value, plain))
            {
                return Err(wrong("no Content-Transfer-Encoding"));
            }
        }
        let (name, file) = named.ok_or_else(|| wrong("a Content-Disposition in each part"))?;
        Ok(Self { name, file, content, charset: charset.flatten() })
    }

    /// Refuses a field that counts where its text may be encoded otherwise than in UTF-8.
    pub(super) fn plain(&self, name: &'static str) -> Result<(), FormError> {
        match self.charset {
            None => Ok(()),
            Some(charset) if is(charset, "utf-8") || is(charset, "us-ascii") => Ok(()),
            Some(_) => Err(FormError::Field { name, expected: "in UTF-8" }),
        }
    }
}

fn is(text: &str, word: &str) -> bool {
    text.eq_ignore_ascii_case(word)
}

/// Name of the field, and whether it is a file. `None` for what readers differ about.
fn disposition(params: &str) -> Option<(&str, bool)> {
    let (mut name, mut file, mut file_ext) = (None, false, false);
    for param in Params(params) {
        let (key, value) = param?;
        if is(key, "name") {
            // A backslash is an escape to some readers and itself to others.
            if value.contains('\\') || name.replace(value).is_some() {
                return None;
            }
        } else if is(key, "filename") {
            if std::mem::replace(&mut file, true) {
                return None;
            }
        } else if is(key, "filename*") {
            if std::mem::replace(&mut file_ext, true) {
                return None;
            }
        } else if key.get(..4).is_some_and(|start| is(start, "name")) {
            // `name*` and `name*0` are names to readers of RFC 2231.
            return None;
        }
    }
    Some((name?, file || file_ext))
}

/// The charset of a type: outer `None` if the value is none that readers agree about.
fn charset_of(value: &str) -> Option<Option<&str>> {
    let end = value.find(';').unwrap_or(value.len());
    let mut charset = None;
    for param in Params(&value[end..]) {
        let (key, value) = param?;
        if is(key, "charset") && charset.replace(value).is_some() {
            return None;
        }
    }
    Some(charset)
}

/// The boundary that a `Content-Type` names.
pub(super) fn boundary(content_type: &str) -> Result<String, FormError> {
    let end = content_type.find(';').unwrap_or(content_type.len());
    let mut found = None;
    for param in Params(&content_type[end..]) {
        let (key, value) = param.ok_or(FormError::Boundary)?;
        // `boundary*` is a boundary to readers of RFC 2231.
        let is_extended = key.get(..9).is_some_and(|start| is(start, "boundary*"));
        if is_extended || is(key, "boundary") && found.replace(value).is_some() {
            return Err(FormError::Boundary);
        }
    }
    let fits =
        |text: &&str| (1..=70).contains(&text.len()) && !text.ends_with(' ') && text.chars().all(in_boundary);
    found.filter(fits).map(str::to_owned).ok_or(FormError::Boundary)
}

fn in_boundary(c: char) -> bool {
    c.is_ascii_alphanumeric() || "'()+_,-./:=? ".contains(c)
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// `; name=value; name="value"`, each as written between the quotes; `None` where something else stands.
struct Params<'a>(&'a str);

impl<'a> Iterator for Params<'a> {
    type Item = Option<(&'a str, &'a str)>;

    fn next(&mut self) -> Option<Self::Item> {
        let blank = [' ', '\t'];
        let rest = self.0.trim_start_matches(blank);
        if rest.is_empty() {
            return None;
        }
        let read = || {
            let rest = rest.strip_prefix(';')?.trim_start_matches(blank);
            let (key, rest) = rest.split_once('=').filter(|(key, _)| is_token(key))?;
            let Some(quoted) = rest.strip_prefix('"') else {
                let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
                let value = &rest[..end];
                let odd = |c: char| c.is_control() || matches!(c, '"' | '\\' | ',' | '<' | '>' | '@');
                return (!value.is_empty() && !value.contains(odd)).then_some((key, value, &rest[end..]));
            };
            let (value, rest) = quoted.split_once('"')?;
            // An escaped quote ends the value for some readers and not for others.
            (!value.ends_with('\\')).then_some((key, value, rest))
        };
        let found: Option<(&str, &str, &str)> = read();
        // After what cannot be read nothing follows.
        self.0 = found.map_or("", |(_, _, rest)| rest);
        Some(found.map(|(key, value, _)| (key, value)))
    }
}
