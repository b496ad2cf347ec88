//! Requests under way, over a kill: known once, and only if their record is nowhere.

use super::*;
use crate::spool::disk::Op;
use contract::ids::{Generation, KeyId, ProviderId, UserId};
use faults::{EIO, ENOSPC};

fn entry(number: i64) -> Entry<'static> {
    Entry {
        id: RequestId::new(number, [7; 10]),
        started_at_ms: number,
        owner: UserId(1),
        user: UserId(2),
        key: KeyId(3),
        provider: ProviderId(4),
        generation: Generation(5),
        request_bytes: 600,
        input_bytes: 500,
        classes: 0,
        messages: 1,
        dialect: Dialect::Anthropic,
        streamed: true,
        metered: true,
        sent: true,
        fast: false,
        model: "m".into(),
        session: "".into(),
        endpoint: "/v1/messages".into(),
        upstream_model: "".into(),
        client_ip: "".into(),
        user_agent: "".into(),
    }
}

/// A kill: nothing of the process's memory is left, and nothing is tidied up.
fn kill(spool: Spool) {
    // The lock goes with the process; here a copy of the folder takes its place.
    std::mem::forget(spool);
}

/// What the next process finds, in a copy because the killed one cannot be got to release its lock here.
fn after(folder: &Folder, name: &str) -> (Folder, Spool) {
    let copy = Folder::new(name);
    fs::create_dir_all(&copy.0).expect("make");
    for path in files(folder).filter(|path| !path.ends_with("lock")) {
        fs::copy(&path, copy.0.join(path.file_name().expect("a name"))).expect("copy");
    }
    let spool = copy.open();
    (copy, spool)
}

fn settle(spool: &Spool) -> Vec<i64> {
    let mut seen = Vec::new();
    let seen_by = std::cell::RefCell::new(&mut seen);
    spool.settle_left(|entry| {
        seen_by.borrow_mut().push(entry.started_at_ms);
        record(entry.started_at_ms)
    });
    seen.sort_unstable();
    seen
}

#[tokio::test]
async fn what_was_under_way_at_a_kill_is_recorded_once() {
    let folder = Folder::new("slots");
    let spool = folder.open();
    let mut slots: Vec<_> = (1..=4).map(|number| spool.begin(&entry(number)).expect("a slot")).collect();
    // The first two end: one is delivered, one waits. The third is tried elsewhere.
    spool.append(&record(1), Some(slots.remove(0))).expect("append");
    let batch = spool.next_batch(1, Duration::ZERO).await;
    spool.acknowledge(batch.position);
    spool.append(&record(2), Some(slots.remove(0))).expect("append");
    spool.change(&slots[0], &Entry { provider: ProviderId(9), ..entry(3) });
    kill(spool);
    let (next, spool) = after(&folder, "slots-2");
    assert_eq!(settle(&spool), [3, 4]);
    assert_eq!(settle(&spool), [0; 0], "once");
    assert_eq!(all(&spool).await, [2, 3, 4]);
    // Killed again before anybody was told: they are in the spool now.
    kill(spool);
    let (last, spool) = after(&next, "slots-3");
    assert_eq!(settle(&spool), [0; 0]);
    assert_eq!(all(&spool).await, [2, 3, 4]);
    // A clean end leaves nothing.
    drop(spool);
    assert!(crate::spool::slots::find(&last.0).left.is_empty());
}

#[tokio::test]
async fn before_a_segment_goes_the_slots_of_its_records_are_emptied() {
    let folder = Folder::new("slots-segments");
    let spool = folder.open_with(300, 1 << 30);
    for number in 1..=9 {
        let slot = spool.begin(&entry(number));
        // All at once, so that no slot is written over.
        spool.append(&record(number), None).expect("append");
        spool.forget(slot.expect("a slot"));
    }
    let slots: Vec<_> = (11..=15).map(|number| spool.begin(&entry(number)).expect("a slot")).collect();
    for (number, slot) in (11..=15).zip(slots) {
        spool.append(&record(number), Some(slot)).expect("append");
    }
    assert!(!crate::spool::slots::find(&folder.0).left.is_empty(), "a spent slot still holds its entry");
    let batch = spool.next_batch(100, Duration::ZERO).await;
    assert_eq!(batch.records.len(), 14);
    spool.acknowledge(batch.position);
    assert!(crate::spool::slots::find(&folder.0).left.is_empty(), "nothing in the spool would tell");
}

#[test]
fn slots_have_an_end_and_come_back() {
    let folder = Folder::new("slots-bound");
    let spool = folder.open();
    let slots: Vec<_> = (1..=16).map(|number| spool.begin(&entry(number)).expect("a slot")).collect();
    assert_eq!(spool.begin(&entry(17)), None);
    slots.into_iter().for_each(|slot| spool.forget(slot));
    assert!(spool.begin(&entry(18)).is_some());
}

#[test]
fn a_disk_that_takes_no_entry_takes_no_slot_away() {
    let folder = Folder::new("slots-full");
    let (spool, faults) = folder.faulty(1 << 20);
    faults.fail(Op::Write, "", ENOSPC);
    assert!((1..=40).all(|number| spool.begin(&entry(number)).is_none()));
    faults.mend();
    assert!((1..=16).all(|number| spool.begin(&entry(number)).is_some()));
}

#[tokio::test]
async fn a_start_that_removes_segments_empties_the_slots_of_their_records() {
    let folder = Folder::new("slots-start");
    let spool = folder.open();
    let slot = spool.begin(&entry(1));
    spool.append(&record(1), slot).expect("append");
    let batch = spool.next_batch(9, Duration::ZERO).await;
    spool.acknowledge(batch.position);
    kill(spool);
    let (next, spool) = after(&folder, "slots-start-2");
    assert_eq!(settle(&spool), [0; 0], "the segment tells that it was recorded");
    kill(spool);
    let (_last, spool) = after(&next, "slots-start-3");
    assert_eq!(settle(&spool), [0; 0], "the segment is gone");
    assert_eq!(all(&spool).await, [0; 0]);
}

#[tokio::test]
async fn what_a_segment_that_was_set_aside_holds_is_no_interrupted_request() {
    let folder = Folder::new("slots-unread");
    let spool = folder.open();
    let slot = spool.begin(&entry(1));
    spool.append(&record(1), slot).expect("append");
    kill(spool);
    // As a process leaves it that could not empty the slot.
    let segment = folder.segments("seg").remove(0);
    fs::rename(&segment, segment.with_extension("unread")).expect("rename");
    let (_next, spool) = after(&folder, "slots-unread-2");
    assert_eq!(settle(&spool), [0; 0]);
    assert_eq!(all(&spool).await, [1], "it can be read again");
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_set_aside_is_all_that_is_left_of_its_records() {
    let folder = Folder::new("slots-aside");
    let (spool, faults) = folder.faulty(1);
    let slots: Vec<_> = (1..=2).map(|number| spool.begin(&entry(number))).collect();
    for (number, slot) in (1..=2).zip(slots) {
        spool.append(&record(number), slot).expect("append");
    }
    let first = folder.segments("seg").into_iter().find(|path| fs::metadata(path).is_ok_and(|m| m.len() > 8));
    let name = first.expect("a segment").file_name().expect("a name").to_string_lossy().into_owned();
    faults.fail(Op::Open, &name, EIO);
    let batch = spool.next_batch(9, Duration::from_millis(1)).await;
    assert_eq!(numbers(&batch.records), [2]);
    kill(spool);
    // It still cannot be read.
    let unread = folder.segments("unread").remove(0);
    fs::write(&unread, "").expect("damage");
    let (_next, spool) = after(&folder, "slots-aside-2");
    assert_eq!(settle(&spool), [0; 0]);
}

#[tokio::test]
async fn what_another_version_left_is_counted_once_and_makes_room() {
    let folder = Folder::new("slots-foreign");
    let spool = folder.open();
    let slots: Vec<_> = (1..=3).map(|number| spool.begin(&entry(number)).expect("a slot")).collect();
    kill(spool);
    let file = folder.0.join("in-flight");
    let mut bytes = fs::read(&file).expect("slots");
    // The form's number is behind length and checksum, which are right.
    let at = 1024 * usize::try_from(slots[1].0).expect("small");
    let end = 8 + at + u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    bytes[at + 8] += 1;
    let checksum = crc32fast::hash(&bytes[at + 8..end]);
    bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&file, bytes).expect("write");
    let found = |folder: &Folder| crate::spool::slots::find(&folder.0).unreadable;
    assert_eq!(found(&folder), [slots[1].0]);
    let (next, spool) = after(&folder, "slots-foreign-2");
    assert_eq!(settle(&spool), [1, 3], "the others are recorded");
    assert_eq!(found(&next), [0; 0], "told once");
    kill(spool);
}
