use super::super::edit::with_model;
use super::*;
use bytes::Bytes;
use mutate::{cuts, damaged, fuzz, pieces};
use proptest::prelude::*;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const TYPE: &str = "multipart/form-data; boundary=XyZ";

/// A form of header blocks and contents.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, content) in parts {
        body.extend_from_slice(format!("--XyZ\r\n{headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XyZ--\r\n");
    body
}

fn field(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

fn model_of(body: &[u8]) -> Result<Option<String>, FormError> {
    parse_form(TYPE, body).map(|ask| ask.model.map(Cow::into_owned))
}

#[test]
fn fields_are_read_wherever_they_stand() {
    let file = "Content-Disposition: form-data; name=\"image[]\"; filename=\"a \u{e4}.png\"\r\nContent-Type: image/png";
    let content = [&b"\r\n--XyY\r\n \x00\xff--XyZ "[..], &[7; 300_000]].concat();
    let body = form(&[
        (file, &content),
        (&field("prompt"), b"a cat\r\n\r\nwith a hat"),
        (&field("n"), b"2"),
        ("content-disposition:form-data;name=size", b"1024x1024"),
        (file, &content),
        (&field("model"), b"gpt-image-1"),
        (&field("stream"), b"True"),
        (&field("user"), b""),
    ]);
    for start in ["", "\r\n"] {
        let body = [start.as_bytes(), &body].concat();
        let ask = parse_form("Multipart/Form-Data ; charset=utf-8; Boundary=\"XyZ\"", &body).unwrap();
        assert_eq!((ask.model.as_deref(), ask.stream), (Some("gpt-image-1"), true));
        let form = ask.form().unwrap();
        let text = |range: &Range<usize>| std::str::from_utf8(&body[range.clone()]).unwrap();
        let texts: Vec<_> = form.texts.iter().map(text).collect();
        assert_eq!(texts, ["a cat\r\n\r\nwith a hat", ""]);
        assert_eq!(
            [&form.n, &form.size].map(|range| range.as_ref().map(text)),
            [Some("2"), Some("1024x1024")]
        );
        assert_eq!(form.file_bytes, 2 * content.len() as u64);
        let words: usize = texts.iter().map(|text| text.len()).sum();
        assert_eq!(ask.input_bytes(), words as u64 + 2 * content.len() as u64 / 256);
    }
    assert_eq!(model_of(b"--XyZ--"), Ok(None), "a form without fields");
}

#[test]
fn another_model_is_spliced_in() {
    let file = "Content-Disposition: form-data; name=file; filename*=utf-8''a.mp3";
    let body = |model: &str| {
        let parts: [(&str, &[u8]); 3] =
            [(file, &[1; 5000]), (&field("model"), model.as_bytes()), (&field("language"), b"en")];
        Bytes::from(form(&parts))
    };
    let before = body("whisper-1");
    let ask = parse_form(TYPE, &before).unwrap();
    assert_eq!(with_model(&before, &ask, "gpt-4o-transcribe"), body("gpt-4o-transcribe"));
    assert_eq!(with_model(&before, &ask, "a\r\n--XyZ"), body("a--XyZ"), "it stays one line");
    let same = with_model(&before, &ask, "whisper-1");
    assert_eq!(same.as_ptr(), before.as_ptr(), "the same model is no copy");
    let none = Bytes::from(form(&[(file, b"x")]));
    let ask = parse_form(TYPE, &none).unwrap();
    assert_eq!(with_model(&none, &ask, "m"), none);
}

#[test]
fn what_readers_differ_about_is_refused() {
    let model = |headers: &str| form(&[(headers, b"m")]);
    let raw = |text: &str| text.as_bytes().to_vec();
    let disposition = |params: &str| model(&format!("Content-Disposition: form-data{params}"));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", raw("")),
        ("a preamble", raw("hello\r\n--XyZ\r\n\r\n\r\n--XyZ--")),
        ("no end", raw("--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nm")),
        ("no end of headers", raw("--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n--XyZ--")),
        ("something after the end", [form(&[(&field("a"), b"m")]), raw("--XyZ\r\n")].concat()),
        (
            "blanks after the boundary",
            raw("--XyZ \r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nm\r\n--XyZ--"),
        ),
        ("line feeds", raw("--XyZ\nContent-Disposition: form-data; name=\"a\"\n\nm\n--XyZ--\n")),
        ("a delimiter after a line feed", form(&[(&field("a"), b"m\n--XyZ\r\n")])),
        ("a delimiter after a carriage return", form(&[(&field("a"), b"m\r--XyZ\r\n")])),
        (
            "a delimiter right after the headers",
            raw("--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--XyZ--"),
        ),
        ("a longer boundary", form(&[(&field("a"), b"m\r\n--XyZw\r\n")])),
        ("no headers", raw("--XyZ\r\n\r\n\r\nm\r\n--XyZ--")),
        ("no disposition", model("Content-Type: text/plain")),
        ("another disposition", model("Content-Disposition: attachment; name=\"a\"")),
        ("two dispositions", model(&format!("{}\r\n{}", field("a"), field("model")))),
        ("a folded line", model("Content-Disposition: form-data;\r\n name=\"model\"")),
        ("a line feed in a header", model("Content-Disposition: form-data; name=\"a\"\nX: y")),
        ("a blank before the colon", model("Content-Disposition : form-data; name=\"a\"")),
        ("no name", disposition("")),
        ("two names", disposition("; name=\"a\"; name=\"model\"")),
        ("two names in two cases", disposition("; name=\"a\"; NAME=\"model\"")),
        ("an extended name", disposition("; name=\"a\"; name*=utf-8''model")),
        ("a name in pieces", disposition("; name*0=\"mo\"; name*1=\"del\"")),
        ("an escaped name", disposition("; name=\"mo\\del\"")),
        ("an escaped quote", disposition("; filename=\"a\\\"; name=\"model\"; x=\"\"")),
        ("two file names", disposition("; name=\"a\"; filename=\"b\"; filename=\"c\"")),
        ("an open quote", disposition("; name=\"model")),
        ("text after a quote", disposition("; name=\"a\"b")),
        ("no semicolon", disposition(" name=\"a\"")),
        ("a blank after the equals sign", disposition("; name= \"a\"")),
        ("a last semicolon", disposition("; name=\"a\";")),
        ("an encoded part", model(&format!("{}\r\nContent-Transfer-Encoding: base64", field("model")))),
        (
            "another charset",
            model(&format!("{}\r\nContent-Type: text/plain; charset=utf-16", field("model"))),
        ),
        (
            "another charset of a text that nobody named",
            form(&[(&format!("{}\r\nContent-Type: text/plain; charset=utf-16", field("style")), b"x")]),
        ),
        ("two types", model(&format!("{0}\r\nContent-Type: a\r\nContent-Type: b", field("model")))),
        ("two models", form(&[(&field("model"), b"a"), (&field("model"), b"b")])),
        (
            "two models, one a file",
            form(&[
                (&field("model"), b"a"),
                ("Content-Disposition: form-data; name=\"model\"; filename=\"b\"", b"b"),
            ]),
        ),
        ("two streams", form(&[(&field("stream"), b"true"), (&field("stream"), b"false")])),
        ("two numbers", form(&[(&field("n"), b"1"), (&field("n"), b"10")])),
        ("two sizes", form(&[(&field("size"), b"1"), (&field("size"), b"10")])),
        ("a model in another case", model(&field("Model"))),
        ("models to fall back to", model(&field("Fallbacks"))),
        ("further models", model(&field("models[]"))),
        ("a list of models", model(&field("model[]"))),
        ("a model with blanks", model(&field(" model"))),
        ("blanks around the model", form(&[(&field("model"), b"m ")])),
        ("a line end in the model", form(&[(&field("model"), b"m\r\nn")])),
        ("a model that is no text", form(&[(&field("model"), b"\xff")])),
        ("a strange stream", form(&[(&field("stream"), b"maybe")])),
        ("too many parts", form(&vec![(field("a").as_str(), &b"m"[..]); MAX_PARTS + 1])),
        ("too long headers", model(&format!("{}\r\nX-A: {}", field("a"), "a".repeat(MAX_HEADERS)))),
    ];
    for (what, body) in cases {
        let error = parse_form(TYPE, &body).expect_err(what).to_string();
        assert!(error.contains("form"), "{what}: {error}");
    }
    let body = form(&[(&field("model"), b"m")]);
    for wrong in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"XyZ\\\"\"",
        "multipart/form-data; boundary=XyZ; boundary=abc",
        "multipart/form-data; boundary*=utf-8''XyZ",
        "multipart/form-data; boundary=XyZ; boundary*0=abc",
        "multipart/form-data; boundary=\"XyZ ",
        "multipart/form-data; boundary=Xy\u{e4}",
    ] {
        assert_eq!(parse_form(wrong, &body), Err(FormError::Boundary), "{wrong}");
    }
    assert!(["multipart/form-data", " Multipart/Form-Data;x"].into_iter().all(is_form));
    assert!(!["multipart/mixed", "application/json; x=multipart/form-data", ""].into_iter().any(is_form));
}

#[test]
fn only_fields_for_files_are_files() {
    for (name, texts, file_bytes) in
        [("image[]", 0, 4), ("Mask", 0, 4), ("input_reference", 0, 4), ("style", 1, 0)]
    {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"a.txt\"");
        let body = form(&[(&head, b"some")]);
        let ask = parse_form(TYPE, &body).expect("a form");
        let form = ask.form().expect("a form");
        assert_eq!((form.texts.len(), form.file_bytes), (texts, file_bytes), "{name}");
    }
}

type Fields = Vec<(String, Option<String>, Vec<u8>)>;

/// The same form as `multer` reads it.
fn by_multer(boundary: &str, body: &[&[u8]]) -> Result<Fields, String> {
    let pieces: Vec<_> =
        body.iter().map(|piece| Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(piece))).collect();
    let mut reader = multer::Multipart::new(futures_util::stream::iter(pieces), boundary);
    let mut reading = pin!(async {
        let mut fields = Vec::new();
        while let Some(field) = reader.next_field().await.map_err(|error| error.to_string())? {
            let name = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(str::to_owned);
            let content = field.bytes().await.map_err(|error| error.to_string())?;
            fields.push((name, file, content.to_vec()));
        }
        Ok(fields)
    });
    // Everything is there already, so nothing is waited for.
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(fields) = reading.as_mut().poll(&mut context) {
            return fields;
        }
    }
    Err("it waits".to_owned())
}

/// All parts as this parser reads them.
fn by_us(content_type: &str, body: &[u8]) -> Result<Vec<(String, bool, Vec<u8>)>, FormError> {
    let mut parts = Parts::new(&boundary(content_type)?, body)?;
    let mut fields = Vec::new();
    while let Some(part) = parts.next()? {
        fields.push((part.name.to_owned(), part.file, body[part.content].to_vec()));
    }
    Ok(fields)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("model".to_owned()),
        Just("prompt".to_owned()),
        Just("image[]".to_owned()),
        "[a-z_]{1,8}",
        "[^\"\\\\\\x00-\\x1f\\x7f]{1,6}",
    ]
}

/// Contents that are full of what separates parts.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"--".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n--".to_vec()),
        Just(b"--bound".to_vec()),
        Just(b"\"; name=\"model\"".to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn written() -> impl Strategy<Value = Vec<u8>> {
    let part = (name(), prop::option::of("[^\"\\\\\\x00-\\x1f\\x7f]{0,8}"), any::<bool>(), content());
    prop::collection::vec(part, 0..6).prop_map(|parts| {
        let mut body = Vec::new();
        for (name, file, is_typed, content) in parts {
            body.extend_from_slice(
                format!("--boundary\r\nContent-Disposition: form-data; name=\"{name}\"").as_bytes(),
            );
            if let Some(file) = file {
                body.extend_from_slice(format!("; filename=\"{file}\"").as_bytes());
            }
            if is_typed {
                body.extend_from_slice(b"\r\nContent-Type: text/plain");
            }
            body.extend_from_slice(b"\r\n\r\n");
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--boundary--\r\n");
        body
    })
}

const BOUNDARY: &str = "multipart/form-data; boundary=boundary";

fn same_as_multer(body: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(ours) = by_us(BOUNDARY, body) else { return Ok(false) };
    let theirs = by_multer("boundary", &[body]);
    let theirs = theirs.map(|fields| {
        fields.into_iter().map(|(name, file, content)| (name, file.is_some(), content)).collect::<Vec<_>>()
    });
    prop_assert_eq!(Ok(ours), theirs, "{}", String::from_utf8_lossy(body));
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What was written well is taken, and read as another reader reads it.
    #[test]
    fn a_written_form_is_read_as_multer_reads_it(body in written()) {
        let taken = same_as_multer(&body)?;
        let starts = |at: usize| body[at..].starts_with(b"--boundary");
        let odd = (1..body.len()).any(|at| starts(at) && !body[..at].ends_with(b"\r\n"));
        prop_assert!(taken || odd, "{}", String::from_utf8_lossy(&body));
    }

    /// Whatever is taken of a spoilt form is what the other reader takes of it.
    #[test]
    fn a_spoilt_form_is_refused_or_read_as_multer_reads_it(
        body in written(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..4),
    ) {
        let mut body = body;
        for (at, how, byte) in changes {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match how {
                0 => _ = body.remove(at),
                1 => body.insert(at, byte),
                2 => body.insert(at, b"\r\n-\" ;="[usize::from(byte) % 7]),
                _ => body.truncate(at.max(1)),
            }
        }
        same_as_multer(&body)?;
    }

    #[test]
    fn anything_at_all_is_survived(kind in ".{0,80}", body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_form(&kind, &body);
        let _ = parse_form(TYPE, &[b"--XyZ\r\n", &body[..]].concat());
    }
}

/// Forms as clients write them, with several parts.
const FORMS: &[&[u8]] = &[
    b"--boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-image-1\r\n--boundary\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n--bound\r\n--\r\n--boundary\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n\r\nwith a hat\r\n--boundary--\r\n",
    b"\r\n--boundary\r\ncontent-disposition:form-data;name=file; filename*=utf-8''a.mp3\r\n\r\nID3\xff\r\n--boundary\r\ncontent-disposition: form-data; name=model\r\ncontent-type: text/plain; charset=utf-8\r\n\r\nwhisper-1\r\n--boundary\r\ncontent-disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--boundary--",
    b"--boundary\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--boundary\r\nContent-Disposition: form-data; name=\"size\"\r\n\r\n1024x1024\r\n--boundary\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\n\r\n--boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--boundary--\r\n",
    b"--boundary--\r\n",
];

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"--",
    b"--boundary",
    b"\r\n--boundary\r\n",
    b"\r\n--boundary--\r\n",
    b"--Boundary",
    b"--boundar",
    b"Content-Disposition: form-data; name=\"model\"\r\n",
    b"Content-Disposition: form-data; name=\"Model\"\r\n\r\ndear",
    b"; name=\"model\"",
    b"; name*=utf-8''model",
    b"; filename=\"x\"",
    b"; filename=",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Type: text/plain; charset=utf-16\r\n",
    b" ",
    b"\t",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"%22",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
];

/// Damaged forms are refused or read as another reader reads them, which gets them in pieces.
#[test]
fn a_damaged_form_is_refused_or_read_as_multer_reads_it() {
    fuzz(4_000, (damaged(FORMS, TOKENS), cuts()), |(body, cuts)| {
        let Ok(ours) = by_us(BOUNDARY, &body) else { return Ok(()) };
        for pieces in [vec![&body[..]], pieces(&body, &cuts)] {
            let theirs = by_multer("boundary", &pieces)?;
            // multer does not know file names in another charset.
            let odd = memchr::memmem::find(&body, b"*=").is_some();
            let theirs: Vec<_> = theirs
                .into_iter()
                .zip(&ours)
                .map(|((name, file, content), our)| (name, file.is_some() || odd && our.1, content))
                .collect();
            if ours != theirs {
                return Err(format!("{ours:?} and {theirs:?}"));
            }
        }
        Ok(())
    });
}

/// What is read depends on the bytes of the form and on nothing that lies around them; a spliced model is the only
/// difference that it makes.
#[test]
fn only_the_bytes_of_a_form_decide_and_a_splice_changes_the_model_alone() {
    fuzz(4_000, (damaged(FORMS, TOKENS), cuts()), |(body, cuts)| {
        let alone = parse_form(BOUNDARY, &body);
        for around in pieces(FORMS[0], &cuts) {
            let all = [around, &body, b"\r\n--boundary--\r\n"].concat();
            let within = parse_form(BOUNDARY, &all[around.len()..around.len() + body.len()]);
            if format!("{within:?}") != format!("{alone:?}") {
                return Err(format!("alone {alone:?}, among others {within:?}"));
            }
        }
        let Ok(ask) = alone else { return Ok(()) };
        let spliced = with_model(&Bytes::from(body.clone()), &ask, "another");
        let (before, mut after) = (by_us(BOUNDARY, &body), by_us(BOUNDARY, &spliced));
        if let (Ok(before), Ok(after)) = (&before, &mut after) {
            for (part, old) in after.iter_mut().zip(before) {
                if part.0 == "model" && !part.1 {
                    if part.2 != b"another" {
                        return Err(format!("the model reads {part:?}"));
                    }
                    part.2.clone_from(&old.2);
                }
            }
        }
        if before == after { Ok(()) } else { Err(format!("{before:?} became {after:?}")) }
    });
}
