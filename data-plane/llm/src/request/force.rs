//! What a provider forces upon a request, as splices: found in a second pass over the body that only such providers
//! pay for. What has a form that we do not know stays as it is: the upstream will say what is wrong with it.

use super::edit::Splice;
use crate::scan::{Elements, Kind, Member, Members};
use std::borrow::Cow;
use std::ops::Range;

/// One thing that holds whatever the caller said. Values are JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Force {
    /// A member of the body.
    Member(&'static str, String),
    /// Members of a member, which becomes an object where it is none.
    Inside(&'static str, Vec<(&'static str, String)>),
    /// The caller's own thinking budget stays below so many tokens; one that would be too small for any upstream is no
    /// thinking at all.
    ThinkingBelow(u64),
    /// Whether a tool of this type is among `tools`.
    Tool(&'static str, bool),
    /// How long is kept what the caller marked to be cached (`cache_control`). Nothing else is marked.
    CacheTtl(&'static str),
}

/// Adds the splices in the body, and to `added` the members that it does not have.
pub(super) fn splices(body: &[u8], forced: &[Force], splices: &mut Vec<Splice>, added: &mut Vec<String>) {
    let mut missing: Vec<&Force> = forced.iter().collect();
    let mut members = Members::new(body, 0);
    while let Ok(Some(member)) = members.next() {
        for force in forced {
            if force.name() == Some(&*member.name) {
                missing.retain(|other| *other != force);
            }
            force.at(body, &member, splices);
        }
    }
    added.extend(missing.into_iter().filter_map(Force::absent));
}

impl Force {
    /// The member that it belongs into.
    fn name(&self) -> Option<&[u8]> {
        match self {
            Self::Member(name, _) | Self::Inside(name, _) => Some(name.as_bytes()),
            Self::Tool(..) => Some(b"tools"),
            Self::ThinkingBelow(_) => Some(b"thinking"),
            Self::CacheTtl(_) => None,
        }
    }

    /// The member that does what a body without it lacks.
    fn absent(&self) -> Option<String> {
        match self {
            Self::Member(name, value) => Some(format!("\"{name}\":{value}")),
            Self::Inside(name, parts) => Some(format!("\"{name}\":{}", object(parts))),
            Self::Tool(kind, true) => Some(format!("\"tools\":[{}]", tool(kind))),
            Self::Tool(_, false) | Self::CacheTtl(_) | Self::ThinkingBelow(_) => None,
        }
    }

    fn at(&self, body: &[u8], member: &Member<'_>, splices: &mut Vec<Splice>) {
        let text = &body[..member.value.end];
        match self {
            Self::CacheTtl(ttl) => cached(text, member, ttl, splices),
            // What is taken out cannot be chosen.
            Self::Tool(kind, false) if &*member.name == b"tool_choice" => {
                let named = format!("\"{kind}\"");
                if memchr::memmem::find(&text[member.value.start..], named.as_bytes()).is_some() {
                    splices.push(put(member.value.clone(), "\"auto\""));
                }
            }
            _ if self.name() != Some(&*member.name) => {}
            Self::ThinkingBelow(most) => splices.extend(below(text, member, *most)),
            Self::Member(_, value) => splices.push(put(member.value.clone(), value)),
            Self::Inside(_, parts) if member.kind == Kind::Object => {
                inside(text, member.value.start, parts, splices);
            }
            Self::Inside(_, parts) => splices.push(put(member.value.clone(), &object(parts))),
            Self::Tool(kind, wanted) => splices.extend(tools(text, member, kind, *wanted)),
        }
    }
}

fn put(range: Range<usize>, value: &str) -> Splice {
    (range, Cow::Owned(value.as_bytes().to_vec()))
}

fn object(parts: &[(&str, String)]) -> String {
    let parts: Vec<String> = parts.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", parts.join(","))
}

fn tool(kind: &str) -> String {
    format!("{{\"type\":\"{kind}\"}}")
}

/// The smallest thinking budget that Anthropic takes.
pub const MIN_THINKING: u64 = 1024;

fn below(text: &[u8], member: &Member<'_>, most: u64) -> Option<Splice> {
    let budget = find(text, member.value.start, b"budget_tokens").filter(|_| member.kind == Kind::Object)?;
    let asked: u64 = std::str::from_utf8(&text[budget.value.clone()]).ok()?.trim().parse().ok()?;
    match asked < most {
        true => None,
        false if most > MIN_THINKING => Some(put(budget.value, &(most - 1).to_string())),
        false => Some(put(member.value.clone(), r#"{"type":"disabled"}"#)),
    }
}

/// Sets members of the object at `start`.
fn inside(text: &[u8], start: usize, parts: &[(&str, String)], splices: &mut Vec<Splice>) {
    let mut members = Members::new(text, start);
    let mut missing: Vec<&(&str, String)> = parts.iter().collect();
    let mut empty = true;
    while let Ok(Some(member)) = members.next() {
        empty = false;
        for part in parts.iter().filter(|(name, _)| name.as_bytes() == &*member.name) {
            splices.push(put(member.value.clone(), &part.1));
            missing.retain(|other| *other != part);
        }
    }
    let mut new: String = missing.iter().map(|(name, value)| format!("\"{name}\":{value},")).collect();
    if empty {
        new.pop();
    }
    if !new.is_empty() {
        splices.push(put(start + 1..start + 1, &new));
    }
}

/// The list of tools with one of this type, or without.
fn tools(text: &[u8], member: &Member<'_>, kind: &str, wanted: bool) -> Option<Splice> {
    let (start, whole) = (member.value.start, member.value.clone());
    match member.kind {
        Kind::Null if wanted => return Some(put(whole, &format!("[{}]", tool(kind)))),
        Kind::Array => {}
        _ => return None,
    }
    let is = |range: &Range<usize>| {
        find(&text[..range.end], range.start, b"type")
            .is_some_and(|value| text[value.value].trim_ascii() == format!("\"{kind}\"").as_bytes())
    };
    let mut elements = Elements::new(text, start);
    let (mut kept, mut all) = (Vec::new(), 0);
    while let Some((range, element)) = elements.next() {
        all += 1;
        if element != Kind::Object || !is(&range) {
            kept.push(&text[range]);
        }
    }
    match wanted {
        true if kept.len() < all => None,
        true if all == 0 => Some(put(whole, &format!("[{}]", tool(kind)))),
        true => Some(put(start + 1..start + 1, &format!("{},", tool(kind)))),
        false if kept.len() == all => None,
        false => Some((whole, Cow::Owned([b"[", &*kept.join(&b","[..]), b"]"].concat()))),
    }
}

/// The last member of that name of the object at `start`.
fn find<'a>(text: &'a [u8], start: usize, name: &[u8]) -> Option<Member<'a>> {
    let mut members = Members::new(text, start);
    let mut found = None;
    while let Ok(Some(member)) = members.next() {
        if &*member.name == name {
            found = Some(member);
        }
    }
    found
}

/// Where Anthropic's dialect may mark something to be cached: the body, system blocks, tools, blocks of messages.
fn cached(text: &[u8], member: &Member<'_>, ttl: &str, splices: &mut Vec<Splice>) {
    match &*member.name {
        b"cache_control" => keep_for(text, member, ttl, splices),
        b"system" | b"tools" => blocks(text, member, ttl, (splices, false)),
        b"messages" if member.kind == Kind::Array => {
            let mut messages = Elements::new(text, member.value.start);
            while let Some((message, kind)) = messages.next() {
                if kind == Kind::Object
                    && let Some(content) = find(&text[..message.end], message.start, b"content")
                {
                    // What a tool answered is blocks in a block.
                    blocks(&text[..content.value.end], &content, ttl, (splices, true));
                }
            }
        }
        _ => {}
    }
}

fn blocks(text: &[u8], list: &Member<'_>, ttl: &str, (splices, deeper): (&mut Vec<Splice>, bool)) {
    if list.kind != Kind::Array {
        return;
    }
    let mut blocks = Elements::new(text, list.value.start);
    while let Some((block, kind)) = blocks.next() {
        if kind != Kind::Object {
            continue;
        }
        let within = &text[..block.end];
        if let Some(mark) = find(within, block.start, b"cache_control") {
            keep_for(&text[..mark.value.end], &mark, ttl, splices);
        }
        if deeper && let Some(content) = find(within, block.start, b"content") {
            self::blocks(&text[..content.value.end], &content, ttl, (&mut *splices, false));
        }
    }
}

fn keep_for(text: &[u8], mark: &Member<'_>, ttl: &str, splices: &mut Vec<Splice>) {
    let ephemeral = mark.kind == Kind::Object
        && find(text, mark.value.start, b"type").is_some_and(|kind| &text[kind.value] == b"\"ephemeral\"");
    if ephemeral {
        inside(text, mark.value.start, &[("ttl", format!("\"{ttl}\""))], splices);
    }
}

#[cfg(test)]
mod tests;
