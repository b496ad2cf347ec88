//! Request bodies: the members of a JSON object under their canonical names, and the forms made of them.
//!
//! A name may come in camelCase or snake_case and under several aliases; what it means is decided here and
//! nowhere else. Values stay as the bytes that came, so that numbers are read exactly.

use super::refusal::{Code, Refusal};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

/// A change of a value that may be null: absent, cleared, or set.
pub type Patch<T> = Option<Option<T>>;

/// The members of a body, by camelCase name.
#[derive(Debug, Default)]
pub struct Members {
    by_name: HashMap<String, Box<RawValue>>,
    /// What is to be changed, as it is shown.
    shown: Option<Value>,
}

impl Members {
    /// Reads a body; an empty one is `{}`.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BodyUnreadable))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
            Refusal::new(Code::MalformedJson).with("line", error.line()).with("column", error.column())
        })?;
        if !raw.get().starts_with('{') {
            return Err(Code::BodyNotObject.into());
        }
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(raw.get()).map_err(|_| Refusal::new(Code::BodyUnreadable))?;
        let mut by_name = HashMap::with_capacity(members.len());
        for (name, value) in members {
            if name.contains('\0') || value.get().contains("\\u0000") {
                return Err(Refusal::field(Code::ControlCharacter, &name));
            }
            let camel = camel(&name);
            if let Some(other) = by_name.insert(camel.clone(), value)
                && other.get() != by_name[&camel].get()
            {
                return Err(Refusal::field(Code::Contradiction, &camel).with("other", name));
            }
        }
        Ok(Self { by_name, shown: None })
    }

    /// The same as a change of what is shown under all names: where those of one field differ, the one that differs
    /// from what is shown was meant.
    #[must_use]
    pub fn over(self, shown: Value) -> Self {
        Self { shown: Some(shown), ..self }
    }

    fn is_shown(&self, name: &str, value: &RawValue) -> bool {
        let shown = self.shown.as_ref().and_then(|shown| shown.get(name));
        shown.is_some_and(|shown| {
            serde_json::from_str::<Value>(value.get()).is_ok_and(|value| value == *shown)
        })
    }

    /// The value under the first of `names` that is there. All names of one field must agree.
    pub fn take(&self, names: &[&'static str]) -> Result<Field, Refusal> {
        let name = names.first().copied().unwrap_or_default();
        let mut found: Option<(&'static str, &RawValue)> = None;
        for alias in names {
            let Some(value) = self.by_name.get(*alias) else { continue };
            match found {
                None => found = Some((alias, value)),
                Some((first, other)) if other.get() != value.get() && self.is_shown(first, other) => {
                    found = Some((alias, value));
                }
                Some((first, other)) if other.get() != value.get() && !self.is_shown(alias, value) => {
                    return Err(Refusal::field(Code::Contradiction, first).with("other", *alias));
                }
                Some(_) => {}
            }
        }
        Ok(match found {
            Some((alias, value)) => Field { name: alias, raw: Some(value.to_owned()) },
            None => Field { name, raw: None },
        })
    }

    /// Refuses a member that no form knows: a misspelt limit would be no limit.
    pub fn refuse_others(&self, known: &[&'static str]) -> Result<(), Refusal> {
        let others = self.by_name.keys().filter(|name| !known.contains(&name.as_str()));
        match others.min() {
            None => Ok(()),
            Some(other) => Err(Refusal::field(Code::UnknownField, other)),
        }
    }

    /// Every member's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// `limit_5h_usd` → `limit5hUsd`; camelCase stays.
pub fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for character in name.chars() {
        match character {
            '_' if !out.is_empty() => up = true,
            _ if up => {
                out.extend(character.to_uppercase());
                up = false;
            }
            _ => out.push(character),
        }
    }
    out
}

/// One value of a form, not yet understood.
#[derive(Clone, Debug)]
pub struct Field {
    /// The name to use when speaking to the caller.
    pub name: &'static str,
    pub(super) raw: Option<Box<RawValue>>,
}

impl Field {
    /// A field that was not in the body.
    #[cfg(test)]
    pub fn absent(name: &'static str) -> Self {
        Self { name, raw: None }
    }

    /// Whether the body names it.
    pub fn is_given(&self) -> bool {
        self.raw.is_some()
    }

    /// The JSON text: `None` if absent, `Some(None)` if null.
    pub fn json(&self) -> Patch<&str> {
        let text = self.raw.as_ref()?.get();
        Some((text != "null").then_some(text))
    }
}

/// What a handler asks for.
pub trait Form: Sized {
    /// Takes its fields.
    fn read(members: &Members) -> Result<Self, Refusal>;

    /// Adds every name that it knows, aliases included.
    fn names(known: &mut Vec<&'static str>);
}

/// Declares a form: its fields with the type that the documentation shows, the canonical name, and aliases.
/// `..name: Form` takes the fields of another form as well. Names that no field has are refused by `Ask`,
/// except those after `=>`: what an answer has beside the fields, so that an object may be sent back as it was shown.
macro_rules! form {
    (
        $(#[$meta:meta])*
        $vis:vis struct $form:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = [$name:literal $(, $alias:literal)*] $({$($attr:tt)*})?,)*
            $(..$rest:ident: $rest_type:ty,)*
            $(=> [$($shown:literal),* $(,)?],)?
        }
    ) => {
        #[derive(Debug, utoipa::ToSchema)]
        $(#[$meta])*
        $vis struct $form {
            $($(#[$doc])* #[schema(rename = $name, value_type = $type $(, $($attr)*)?)] pub $field: $crate::rules::Field,)*
            $(
                #[doc = "The fields that other forms have as well."]
                #[serde(flatten)]
                pub $rest: $rest_type,
            )*
        }

        impl $crate::rules::Form for $form {
            fn read(members: &$crate::rules::Members) -> Result<Self, $crate::rules::Refusal> {
                let _ = members;
                Ok(Self {
                    $($field: members.take(&[$name $(, $alias)*])?,)*
                    $($rest: <$rest_type as $crate::rules::Form>::read(members)?,)*
                })
            }

            fn names(known: &mut Vec<&'static str>) {
                let _ = &known;
                $(known.extend([$name $(, $alias)*]);)*
                $(<$rest_type as $crate::rules::Form>::names(known);)*
                $(known.extend([$($shown),*]);)?
            }
        }
    };
}
pub(crate) use form;

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str, names: &[&'static str]) -> Result<Option<String>, Code> {
        let members = Members::parse(body.as_bytes()).map_err(|refusal| refusal.code)?;
        let field = members.take(names).map_err(|refusal| refusal.code)?;
        Ok(field.raw.map(|raw| raw.get().to_owned()))
    }

    #[test]
    fn names_and_aliases() {
        let url = &["baseUrl", "url"];
        type Case<'a> = (&'a str, &'a [&'static str], Result<Option<&'a str>, Code>);
        let cases: &[Case<'_>] = &[
            ("", url, Ok(None)),
            (" \n", url, Ok(None)),
            (r#"{"url":"a"}"#, url, Ok(Some("\"a\""))),
            (r#"{"base_url":"a","url":"a"}"#, url, Ok(Some("\"a\""))),
            (r#"{"baseUrl":"a","url":"b"}"#, url, Err(Code::Contradiction)),
            (r#"{"base_url":"a","baseUrl":"b"}"#, url, Err(Code::Contradiction)),
            (r#"{"limit_5h_usd":0.10}"#, &["limit5hUsd"], Ok(Some("0.10"))),
            (r#"{"url":null}"#, url, Ok(Some("null"))),
            ("[]", url, Err(Code::BodyNotObject)),
            ("3", url, Err(Code::BodyNotObject)),
            ("{", url, Err(Code::MalformedJson)),
            ("{} x", url, Err(Code::MalformedJson)),
            (r#"{"url":"a\u0000"}"#, url, Err(Code::ControlCharacter)),
            (r#"{"a\u0000":1}"#, url, Err(Code::ControlCharacter)),
        ];
        for (body, names, want) in cases {
            assert_eq!(code(body, names), want.map(|text| text.map(str::to_owned)), "{body}");
        }
        let shown = serde_json::json!({"baseUrl": "a", "url": "a"});
        for (body, want) in [
            (r#"{"baseUrl":"a","url":"b"}"#, Ok("\"b\"")),
            (r#"{"baseUrl":"b","url":"a"}"#, Ok("\"b\"")),
            (r#"{"baseUrl":"b","url":"c"}"#, Err(Code::Contradiction)),
            (r#"{"baseUrl":"b","url":"b"}"#, Ok("\"b\"")),
        ] {
            let members = Members::parse(body.as_bytes()).unwrap().over(shown.clone());
            let took = members.take(url).map(|field| field.raw.unwrap().get().to_owned());
            assert_eq!(took.map_err(|refusal| refusal.code), want.map(str::to_owned), "{body}");
        }
        let members = Members::parse(br#"{"limit_daily":1,"zeta":2,"baseUrl":"a"}"#).unwrap();
        let others = members.refuse_others(&["baseUrl", "url"]).map_err(|refusal| refusal.to_string());
        assert!(others.as_ref().is_err_and(|text| text.contains("limitDaily")), "{others:?}");
        assert!(members.refuse_others(&["baseUrl", "limitDaily", "zeta"]).is_ok());
        assert_eq!(Members::parse(b"\xff").map_err(|r| r.code).err(), Some(Code::BodyUnreadable));
    }

    #[test]
    fn depth_does_not_hurt() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let read = Members::parse(deep.as_bytes());
        assert!(read.is_ok() || read.is_err());
    }
}
