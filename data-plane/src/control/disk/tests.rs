use super::*;
use crate::control::tests::fake::Dir;
use std::os::unix::fs::PermissionsExt;

fn stored(generation: i64) -> Stored {
    let section =
        |name: &str, length| (name.to_owned(), Bytes::from_static(&[7; 16]), vec![1; length].into());
    let sections = vec![section("keys/0", 300), section("providers", 0), section("users/0", 20_000)];
    Stored { generation: Generation(generation), table_hash: [9; 32], sections }
}

fn usable(dir: &Path) -> Vec<i64> {
    load(dir).filter_map(|(_, stored)| stored.ok()).map(|stored| stored.generation.0).collect()
}

#[test]
fn round_trip_of_two_generations() {
    let dir = Dir::new();
    assert_eq!(usable(dir.path()), [0; 0]);
    for generation in [1, 2, 3] {
        write(dir.path(), &stored(generation)).expect("write");
    }
    let read: Vec<_> = load(dir.path()).map(|(_, read)| read.expect("readable")).collect();
    assert_eq!(read, [stored(3), stored(2)]);
    for name in [LAST, PREVIOUS] {
        let mode = fs::metadata(dir.path().join(name)).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn whatever_happens_to_the_file_it_is_a_table_or_none() {
    let dir = Dir::new();
    write(dir.path(), &stored(1)).expect("write");
    write(dir.path(), &stored(2)).expect("write");
    let last = dir.path().join(LAST);
    let whole = fs::read(&last).expect("read");
    for cut in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&last, &whole[..cut]).expect("write");
        assert_eq!(usable(dir.path()), [1], "cut at {cut}");
    }
    for at in (0..whole.len()).step_by(97) {
        let mut broken = whole.clone();
        broken[at] ^= 4;
        fs::write(&last, &broken).expect("write");
        assert_eq!(usable(dir.path()), [1], "changed at {at}");
    }
    // The right checksum over something else.
    let mut other = [MAGIC, b"\x03\x0a\x01\xff"].concat();
    let sum = Sha256::digest(&other);
    other.extend_from_slice(&sum);
    fs::write(&last, &other).expect("write");
    assert!(matches!(load(dir.path()).next(), Some((_, Err(Unusable::Content)))));
    fs::remove_file(dir.path().join(PREVIOUS)).expect("remove");
    assert_eq!(usable(dir.path()), [0; 0]);
}

#[test]
fn a_leftover_of_a_crash_is_overwritten() {
    let dir = Dir::new();
    fs::write(dir.path().join(FRESH), "half").expect("write");
    write(dir.path(), &stored(1)).expect("write");
    assert_eq!(usable(dir.path()), [1]);
}
