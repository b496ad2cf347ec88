//! Who speaks in an item of a conversation. Pure.

use super::name::{Mode, folded, of_vendor};
use crate::scan::{Kind, Member, Members, string_value};

/// Items of the Responses API that the model wrote, and that come back as they were.
const OF_THE_MODEL: &[&str] = &[
    "function_call",
    "custom_tool_call",
    "computer_call",
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "reasoning",
    "compaction",
    "item_reference",
];

/// How the object at `text[start..]`, an item of a conversation, is read. One look over it: a role may stand last.
pub(super) fn mode(text: &[u8], start: usize, vendors: bool) -> Mode {
    let mut found: Option<Mode> = None;
    // Kinds of items: the model's, and any but `message`, which says nothing.
    let (mut of_the_model, mut of_others) = (false, false);
    let mut members = Members::new(text, start);
    while let Ok(Some(member)) = members.next() {
        match name(&member) {
            Name::Role => {
                let mode = of_role(text, &member, vendors);
                // Of several roles it is not known whom the upstream believes.
                found = Some(match found {
                    Some(other) if other != mode => Mode::Look,
                    _ => mode,
                });
            }
            Name::Type => match string(text, &member).as_deref() {
                Some("message") => {}
                Some(kind) if OF_THE_MODEL.contains(&kind) => of_the_model = true,
                _ => of_others = true,
            },
            Name::Other => {}
        }
    }
    match found {
        // A tool's result, whoever is said to speak.
        Some(Mode::Mute) if of_others => Mode::Look,
        Some(mode) => mode,
        None if of_the_model && !of_others => Mode::Mute,
        None => Mode::Look,
    }
}

enum Name {
    Role,
    Type,
    Other,
}

fn name(member: &Member<'_>) -> Name {
    // Escapes and the letters that fold into others make a name longer, not shorter.
    if !(4..=16).contains(&member.name.len()) {
        return Name::Other;
    }
    match std::str::from_utf8(&member.name).map(folded).as_deref() {
        Ok("role") => Name::Role,
        Ok("type") => Name::Type,
        _ => Name::Other,
    }
}

fn of_role(text: &[u8], member: &Member<'_>, vendors: bool) -> Mode {
    match string(text, member).as_deref() {
        Some("assistant" | "model") => Mode::Mute,
        Some("system" | "developer") => of_vendor(vendors),
        _ => Mode::Look,
    }
}

fn string(text: &[u8], member: &Member<'_>) -> Option<String> {
    if member.kind != Kind::String || member.value.len() > 64 {
        return None;
    }
    String::from_utf8(string_value(text, &member.value)?.into_owned()).ok()
}
