//! The model of a `multipart/form-data` body (audio transcription, image edits).

use memchr::memmem;

/// A model field further into the body than this is not looked for: files come before it then.
const SEARCHED: usize = 64 * 1024;
const LONGEST_NAME: usize = 256;

/// The text of the form field `model`. Looks at the start and the end of the body only, as files of
/// many megabytes may stand between.
pub fn multipart_model(body: &[u8]) -> Option<&str> {
    let head = &body[..body.len().min(SEARCHED)];
    let tail = &body[body.len() - body.len().min(SEARCHED)..];
    field(head).or_else(|| field(tail))
}

fn field(text: &[u8]) -> Option<&str> {
    let name = memmem::find(text, br#"name="model""#)?;
    let headers = &text[name..];
    let start = memmem::find(&headers[..headers.len().min(1024)], b"\r\n\r\n")? + 4;
    let value = &headers[start..headers.len().min(start + LONGEST_NAME)];
    let end = memmem::find(value, b"\r\n")?;
    std::str::from_utf8(&value[..end]).ok().map(str::trim).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_field_before_and_after_a_file() {
        let model = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";
        let file = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n{}\r\n",
            "x".repeat(3 * SEARCHED)
        );
        assert_eq!(multipart_model(format!("{model}{file}--b--\r\n").as_bytes()), Some("whisper-1"));
        assert_eq!(multipart_model(format!("{file}{model}--b--\r\n").as_bytes()), Some("whisper-1"));
        assert_eq!(multipart_model(file.as_bytes()), None);
        assert_eq!(multipart_model(b"name=\"model\"\r\n\r\nwhis"), None);
        assert_eq!(multipart_model(b""), None);
    }
}
