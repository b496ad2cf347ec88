//! What the members of a request are for, by their names. Pure.

/// How what stands below a member is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A request.
    Body,
    /// A conversation.
    Turns,
    /// Requests of a batch.
    Requests,
    /// One of them.
    Request,
    /// Every string is a text.
    Look,
    /// Nothing is.
    Mute,
}

/// Longer names are none that is known here.
pub(super) const LONGEST: usize = 64;

/// A name in the form in which names are compared: ASCII without case, and the two letters beyond it that fold into
/// ASCII.
pub(crate) fn folded(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        })
        .collect()
}

/// How a member of a request is read. `vendors`: whether what the vendor of the caller's program wrote is looked at.
pub(super) fn of_body(name: &str, vendors: bool) -> Mode {
    match folded(name).as_str() {
        "messages" | "input" | "contents" => Mode::Turns,
        "requests" => Mode::Requests,
        // Ids and names of models: what looks like a word in them is chance.
        "model"
        | "models"
        | "fallbacks"
        | "metadata"
        | "client_metadata"
        | "user"
        | "prompt_cache_key"
        | "safety_identifier"
        | "service_tier"
        | "previous_response_id"
        | "conversation" => Mode::Mute,
        "system" | "instructions" | "system_instruction" | "systeminstruction" | "tools" | "functions"
        | "tool_choice" | "tool_config" | "toolconfig" | "mcp_servers" | "response_format"
        | "output_config" | "reasoning" | "thinking" | "include" | "stop" | "stop_sequences"
        | "context_management" | "container" | "stream_options" => of_vendor(vendors),
        _ => Mode::Look,
    }
}

/// What a vendor wrote.
pub(super) fn of_vendor(vendors: bool) -> Mode {
    if vendors { Mode::Look } else { Mode::Mute }
}

/// Members whose strings are no texts: words of the protocol and ids. Exactly so written; another reader may take
/// another spelling for something else.
pub(super) fn is_word(name: &str) -> bool {
    matches!(
        name,
        "role"
            | "type"
            | "id"
            | "media_type"
            | "mime_type"
            | "mimeType"
            | "tool_use_id"
            | "tool_call_id"
            | "call_id"
            | "custom_id"
            | "file_id"
            | "signature"
            | "thought_signature"
            | "thoughtSignature"
            | "encrypted_content"
    )
}

/// Members in which a file may stand as base64.
pub(super) fn may_be_file(name: &str) -> bool {
    matches!(
        name,
        "data"
            | "url"
            | "image_url"
            | "file_data"
            | "fileData"
            | "file"
            | "image"
            | "audio"
            | "video"
            | "b64_json"
            | "bytes"
    )
}
