//! What a provider may be: its URL, its model rules, its headers, and the fields that are kept for features
//! that read them later.

mod extra;
mod models;

pub use extra::{Extras, PROXY_SCHEMES, extras};
pub use models::{allowed_models, redirects};

use super::form::{Field, Patch};
use super::refusal::{Code, Refusal};
use super::{check, key};
use serde_json::{Map, Value};
use url::Url;

/// Longest base URL.
pub const URL_MAX: usize = 255;
/// Longest credential: service-account files are credentials too.
pub const CREDENTIAL_MAX: usize = 1 << 20;
/// Headers that belong to the transport or to the credential.
const FORBIDDEN_HEADERS: [&str; 18] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "proxy-connection",
];
/// Most headers, and the longest value.
const HEADERS_MAX: usize = 50;
const HEADER_VALUE_MAX: usize = 4096;

/// An absolute http(s) URL without credentials, query and fragment.
pub fn base_url(field: &Field) -> Result<Option<String>, Refusal> {
    let Some(text) = field.name(URL_MAX)? else { return Ok(None) };
    let url = web_url(field, &text, &["http", "https"])?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(field.refuse(Code::UrlQuery));
    }
    Ok(Some(text))
}

/// A URL of one of `schemes`, without credentials.
fn web_url(field: &Field, text: &str, schemes: &[&str]) -> Result<Url, Refusal> {
    let named: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
    let wrong = || field.refuse(Code::Url).with("schemes", named.join(", "));
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !schemes.contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    match url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        false => Err(field.refuse(Code::UrlCredentials)),
    }
}

/// A credential, or `None` where an edit keeps the old one: absent, null, empty or a mask.
pub fn credential(field: &Field) -> Result<Option<String>, Refusal> {
    match field.text(CREDENTIAL_MAX)?.flatten() {
        Some(text) if text.is_empty() || key::is_mask(&text) => Ok(None),
        // Service accounts are JSON over several lines; everything else goes into a header as it is.
        Some(text) if !text.starts_with('{') && text.chars().any(char::is_control) => {
            Err(field.refuse(Code::CredentialCharacter))
        }
        other => Ok(other),
    }
}

/// A new provider needs a real credential.
pub fn required_credential(field: &Field) -> Result<String, Refusal> {
    let masked = || match field.json() {
        Some(Some(text)) if text != "\"\"" => field.refuse(Code::MaskedCredential),
        _ => field.refuse(Code::Required),
    };
    credential(field)?.ok_or_else(masked)
}

/// Headers to send upstream; none of those that carry the credential or the message.
pub fn headers(field: &Field) -> Result<Patch<Map<String, Value>>, Refusal> {
    let Some(Some(headers)) = field.object()? else { return Ok(field.json().map(|_| None)) };
    if headers.len() > HEADERS_MAX {
        return Err(field.refuse(Code::MaxItems).with("max", HEADERS_MAX));
    }
    for (name, value) in &headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let sendable = |text: &str| {
            text.len() <= HEADER_VALUE_MAX && text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
        };
        let fine = !name.is_empty()
            && name.bytes().all(token)
            && !FORBIDDEN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
            && value.as_str().is_some_and(sendable);
        if !fine {
            return Err(field.refuse(Code::Header).with("header", name.as_str()));
        }
    }
    Ok(Some((!headers.is_empty()).then_some(headers)))
}

/// Group to priority.
pub fn group_priorities(field: &Field) -> Result<Patch<Map<String, Value>>, Refusal> {
    let Some(Some(map)) = field.object()? else { return Ok(field.json().map(|_| None)) };
    let fits = |value: &Value| value.as_i64().is_some_and(|n| (0..=i64::from(i32::MAX)).contains(&n));
    match map.values().all(fits) {
        true => Ok(Some((!map.is_empty()).then_some(map))),
        false => Err(field.refuse(Code::Range).with("min", 0).with("max", i32::MAX)),
    }
}

/// Active time: both or neither, and not the same.
pub fn active_time(start: Option<&str>, end: Option<&str>) -> Result<(), Refusal> {
    match (start, end) {
        (None, None) => Ok(()),
        (Some(start), Some(end)) if start != end && check::is_clock(start) && check::is_clock(end) => Ok(()),
        _ => Err(Code::ActiveTime.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn field(json: &str) -> Field {
        Field { name: "x", raw: Some(RawValue::from_string(json.to_owned()).unwrap()) }
    }

    #[test]
    fn urls() {
        for url in ["https://api.provider.com/v1", "http://127.0.0.1:8090", "https://h"] {
            assert_eq!(base_url(&field(&format!("\"{url}\""))), Ok(Some(url.to_owned())), "{url}");
        }
        for (url, code) in [
            ("abc", Code::Url),
            ("ftp://h", Code::Url),
            ("http://", Code::Url),
            ("file:///etc/passwd", Code::Url),
            ("https://user:pw@h/v1", Code::UrlCredentials),
            ("https://h/v1?key=1", Code::UrlQuery),
            ("https://h/v1#x", Code::UrlQuery),
            ("", Code::MinLength),
        ] {
            assert_eq!(base_url(&field(&format!("\"{url}\""))).map_err(|r| r.code), Err(code), "{url}");
        }
        let long = format!("\"https://{}\"", "h".repeat(300));
        assert_eq!(base_url(&field(&long)).map_err(|r| r.code), Err(Code::MaxLength));
    }

    #[test]
    fn credentials() {
        assert_eq!(credential(&field("\"sk-xxx\"")), Ok(Some("sk-xxx".to_owned())));
        for kept in ["null", "\"\"", "\"[REDACTED]\"", "\"sk-1••••••cdef\""] {
            assert_eq!(credential(&field(kept)), Ok(None), "{kept}");
        }
        assert!(credential(&field(r#""{\n}""#)).is_ok());
        assert_eq!(credential(&field(r#""a\nb""#)).map_err(|r| r.code), Err(Code::CredentialCharacter));
        let required = |json| required_credential(&field(json)).map_err(|r| r.code);
        assert_eq!(required("\"[REDACTED]\""), Err(Code::MaskedCredential));
        assert_eq!(required("null"), Err(Code::Required));
        assert_eq!(required("\"\""), Err(Code::Required));
    }

    #[test]
    fn headers_and_times() {
        assert!(headers(&field(r#"{"X-Team":"a"}"#)).is_ok());
        for bad in [
            r#"{"Authorization":"x"}"#,
            r#"{"a b":"x"}"#,
            r#"{"X":"a\nb"}"#,
            r#"{"X":"é"}"#,
            r#"{"X":1}"#,
            r#"{"HOST":"x"}"#,
            r#"{"content-type":"x"}"#,
        ] {
            assert_eq!(headers(&field(bad)).map_err(|r| r.code), Err(Code::Header), "{bad}");
        }
        assert!(active_time(Some("22:00"), Some("06:00")).is_ok());
        assert!(active_time(Some("22:00"), None).is_err());
        assert!(active_time(Some("22:00"), Some("22:00")).is_err());
        assert!(group_priorities(&field(r#"{"a":-1}"#)).is_err());
    }
}
