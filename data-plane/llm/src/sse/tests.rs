use super::*;
use proptest::prelude::*;

type Owned = (Option<String>, String);

fn read(limit: usize, pieces: &[&[u8]]) -> (Vec<Owned>, bool) {
    let mut parser = Parser::new(limit);
    let mut events = Vec::new();
    let mut too_long = false;
    let mut on_event = |event: Event<'_>| {
        events.push((event.event.map(str::to_owned), String::from_utf8_lossy(event.data).into_owned()));
    };
    for piece in pieces {
        too_long |= parser.feed(piece, &mut on_event).is_err();
    }
    parser.finish(&mut on_event);
    (events, too_long)
}

fn events(text: &str) -> Vec<Owned> {
    read(EVENT_LIMIT, &[text.as_bytes()]).0
}

fn event(name: &str, data: &str) -> Owned {
    ((!name.is_empty()).then(|| name.to_owned()), data.to_owned())
}

const STREAM: &str = "\u{feff}: hello\n\nevent: message_start\ndata: {\"a\":1}\n\ndata:one\ndata: two\ndata\n\r\nid: 7\r\nevent: x\r\ndata:  y\r\n\r\ndata: é\r\revent: nothing\n\n\ndata: [DONE]\n\n";

#[test]
fn reads_every_form() {
    let expected = vec![
        event("message_start", "{\"a\":1}"),
        event("", "one\ntwo\n"),
        event("x", " y"),
        event("", "é"),
        event("", "[DONE]"),
    ];
    assert_eq!(events(STREAM), expected);
    assert_eq!(events("data: {}"), [event("", "{}")], "an end without blank line");
    assert_eq!(events("data: a\ndata: b\n"), [event("", "a\nb")]);
    assert_eq!(events("\u{feff}data: a\n\n"), [event("", "a")]);
    assert_eq!(events("dataset: a\nda\n\n"), []);
    assert_eq!(events(""), []);
}

#[test]
fn reads_the_same_wherever_the_stream_is_cut() {
    let bytes = STREAM.as_bytes();
    let whole = events(STREAM);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(read(EVENT_LIMIT, &pieces).0, whole, "cut at {first} and {second}");
        }
    }
    assert_eq!(read(EVENT_LIMIT, &bytes.chunks(1).collect::<Vec<_>>()).0, whole);
}

#[test]
fn copies_nothing_that_is_whole() {
    let mut parser = Parser::default();
    let piece = b"event: a\ndata: {\"x\":1}\n\n";
    let mut seen = false;
    parser
        .feed(piece, |event| {
            seen = piece.as_ptr_range().contains(&event.data.as_ptr());
        })
        .unwrap();
    assert!(seen && parser.held() == 0);
}

#[test]
fn passes_over_an_event_that_is_too_long() {
    let long = format!("data: a\n\nevent: big\ndata: {}\ndata: x\n\ndata: b\n\n", "y".repeat(100));
    let (got, too_long) = read(64, &long.as_bytes().chunks(10).collect::<Vec<_>>());
    assert_eq!(got, [event("", "a"), event("", "b")]);
    assert!(too_long);
}

#[test]
fn gives_the_memory_of_a_large_event_back() {
    let mut parser = Parser::default();
    let large = format!("data: {}\n\n", "x".repeat(1 << 20));
    for piece in large.as_bytes().chunks(1000) {
        parser.feed(piece, |_| {}).unwrap();
    }
    assert_eq!(parser.held(), 0);
    assert!(parser.line.capacity() + parser.data.capacity() <= 2 * KEPT);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_events(
        text in "(data: |data|event:|id|:|a|\u{feff}|é|\r\n|\n|\r){0,40}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(read(EVENT_LIMIT, &pieces).0, events(&text));
    }
}
