//! Nothing lost, nothing invented: torn ends, restarts, acknowledgements, the bound, many threads.

pub(super) mod faults;
mod slots;
mod trouble;

use super::*;
use contract::ids::{Generation, KeyId, RequestId, UserId};
use contract::pb;
use contract::usage::{Dialect, Outcome, TokenCounts, UsageSource};
use faults::Faults;
use prost::Message;
use std::collections::BTreeMap;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Spool {
        self.open_with(1 << 20, 1 << 30)
    }

    fn open_with(&self, segment_bytes: u64, max_bytes: u64) -> Spool {
        Spool::open(&self.options(segment_bytes, max_bytes)).expect("open")
    }

    fn options(&self, segment_bytes: u64, max_bytes: u64) -> Options {
        options(self.0.clone(), segment_bytes, max_bytes)
    }

    /// On a disk that fails when it is told to.
    fn faulty(&self, segment_bytes: u64) -> (Spool, Arc<Faults>) {
        let disk = Disk::default();
        let faults = Arc::clone(&disk.faults);
        (Spool::open_on(&self.options(segment_bytes, 1 << 30), disk).expect("open"), faults)
    }

    fn segments(&self, kind: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> =
            files(self).filter(|path| path.extension().is_some_and(|found| found == kind)).collect();
        found.sort_unstable();
        found
    }

    fn newest(&self) -> PathBuf {
        let entries = fs::read_dir(&self.0).expect("list").flatten().map(|entry| entry.path());
        let segments = entries.filter(|path| path.extension().is_some_and(|kind| kind == "seg"));
        segments.filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0)).max().expect("a segment")
    }
}

pub(crate) fn options(folder: PathBuf, segment_bytes: u64, max_bytes: u64) -> Options {
    let outstanding = Duration::from_secs(86_400);
    Options { folder, max_bytes, segment_bytes, slots: 16, failure: SpoolFailure::Refuse, outstanding }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A whole, dull record that began at `number`.
pub(crate) fn record(number: i64) -> UsageRecord {
    UsageRecord {
        id: RequestId::new(number, [7; 10]),
        proxy_id: "p".to_owned(),
        started_at_ms: number,
        owner_id: UserId(1),
        user_id: UserId(2),
        key_id: KeyId(3),
        provider_id: None,
        session_id: None,
        dialect: Dialect::Anthropic,
        endpoint: "/v1/messages".to_owned(),
        model: "m".to_owned(),
        upstream_model: None,
        response_model: None,
        billed_model: None,
        streamed: false,
        outcome: Outcome::Completed,
        status: 200,
        error: None,
        blocked_by: None,
        blocked_reason: None,
        tokens: TokenCounts::default(),
        usage_source: UsageSource::Reported,
        cost: None,
        unpriced: None,
        held_cost: None,
        cost_parts: BTreeMap::new(),
        cost_multiplier: rust_decimal::Decimal::ONE,
        generation: Generation(1),
        duration_ms: 1,
        ttft_ms: None,
        attempts: Vec::new(),
        user_agent: None,
        client_ip: None,
        trace_id: None,
        request_bytes: 0,
        response_bytes: 0,
        messages_count: 0,
        skipped: Vec::new(),
    }
}

async fn all(spool: &Spool) -> Vec<i64> {
    let batch = spool.next_batch(usize::MAX, Duration::ZERO).await;
    numbers(&batch.records)
}

/// What [`record`] was told, of encoded records.
pub(crate) fn numbers(records: &[Bytes]) -> Vec<i64> {
    let decode = |record: &Bytes| pb::UsageRecord::decode(record.clone()).expect("a record");
    records.iter().map(|record| decode(record).started_at_ms).collect()
}

#[tokio::test]
async fn acknowledged_records_never_come_back_and_others_always_do() {
    let folder = Folder::new("ack");
    let spool = folder.open_with(300, 1 << 30);
    (1..=20).for_each(|number| spool.append(&record(number), None).expect("append"));
    let batch = spool.next_batch(7, Duration::from_secs(1)).await;
    assert_eq!(batch.records.len(), 7);
    assert_eq!(all(&spool).await.len(), 20, "reading takes nothing out");
    spool.acknowledge(batch.position);
    assert_eq!(spool.depth().records, 13);
    drop(spool);
    let spool = folder.open_with(300, 1 << 30);
    assert_eq!(all(&spool).await, (8..=20).collect::<Vec<_>>());
    assert_eq!(spool.depth().records, 13);
    assert_eq!(spool.depth().oldest_ms, Some(8));
    assert!(!spool.depth().whole, "what an earlier run left may not lie in order");
    let rest = spool.next_batch(100, Duration::ZERO).await;
    spool.acknowledge(rest.position);
    assert!(spool.depth().whole);
    spool.append(&UsageRecord { duration_ms: 500, ..record(21) }, None).expect("append");
    let depth = spool.depth();
    assert_eq!((depth.oldest_ms, depth.oldest_ended_ms, depth.whole), (Some(21), Some(521), true));
    assert_eq!(all(&spool).await, [21]);
    assert_eq!(spool.depth().records, 1);
    assert!(fs::read_dir(&folder.0).expect("list").count() <= 4, "old segments are deleted");
}

#[tokio::test]
async fn a_torn_end_costs_only_the_torn_record() {
    let folder = Folder::new("torn");
    let spool = folder.open();
    (1..=2).for_each(|number| spool.append(&record(number), None).expect("append"));
    let newest = folder.newest();
    let last = fs::metadata(&newest).expect("size").len();
    spool.append(&record(3), None).expect("append");
    let whole = fs::read(&newest).expect("read");
    drop(spool);
    let start: Vec<_> = files(&folder).map(|path| (fs::read(&path).expect("read"), path)).collect();
    for cut in usize::try_from(last).expect("small")..=whole.len() {
        files(&folder).for_each(|path| fs::remove_file(path).expect("remove"));
        start.iter().for_each(|(content, path)| fs::write(path, content).expect("put back"));
        fs::write(&newest, &whole[..cut]).expect("tear");
        let spool = folder.open();
        let mut left = vec![1, 2];
        left.extend((cut == whole.len()).then_some(3));
        assert_eq!(all(&spool).await, left, "cut at {cut}");
        assert_eq!(spool.depth().records, left.len() as u64, "cut at {cut}");
        spool.append(&record(4), None).expect("append");
        left.push(4);
        assert_eq!(all(&spool).await, left, "cut at {cut}");
        // Once more, and the rest is acknowledged.
        drop(spool);
        let spool = folder.open();
        let batch = spool.next_batch(100, Duration::ZERO).await;
        assert_eq!(batch.records.len(), left.len(), "cut at {cut}");
        spool.acknowledge(batch.position);
        drop(spool);
        assert!(all(&folder.open()).await.is_empty(), "cut at {cut}");
    }
}

fn files(folder: &Folder) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(&folder.0).expect("list").flatten().map(|entry| entry.path())
}

#[tokio::test]
async fn what_power_took_from_the_acknowledged_end_hides_nothing_new() {
    let folder = Folder::new("power");
    let spool = folder.open();
    (1..=5).for_each(|number| spool.append(&record(number), None).expect("append"));
    let newest = folder.newest();
    let batch = spool.next_batch(4, Duration::ZERO).await;
    spool.acknowledge(batch.position);
    drop(spool);
    fs::File::options().write(true).open(&newest).expect("open").set_len(100).expect("cut");
    let spool = folder.open();
    assert_eq!(spool.depth().records, 0, "the fifth is gone with the power");
    spool.append(&record(6), None).expect("append");
    drop(spool);
    assert_eq!(all(&folder.open()).await, [6]);
}

#[tokio::test]
async fn a_reader_waits_for_the_first_and_lingers_for_more() {
    let folder = Folder::new("linger");
    let spool = folder.open();
    let patient = Duration::from_secs(20);
    let reader = async {
        let batch = spool.next_batch(3, patient).await;
        numbers(&batch.records)
    };
    let writer = async {
        for number in 1..=3 {
            tokio::task::yield_now().await;
            spool.append(&record(number), None).expect("append");
        }
    };
    let begun = std::time::Instant::now();
    let (seen, ()) = tokio::join!(reader, writer);
    assert_eq!(seen, [1, 2, 3]);
    assert!(begun.elapsed() < patient, "a full batch does not linger");
    assert!(spool.next_batch(5, Duration::from_millis(1)).await.records.len() == 3, "patience ends");
    let batch = spool.next_batch(5, Duration::ZERO).await;
    spool.acknowledge(batch.position);
    assert!(spool.next_batch(5, Duration::ZERO).await.records.is_empty());
    // An old position, and the same again, do nothing.
    spool.append(&record(4), None).expect("append");
    spool.acknowledge(batch.position);
    assert_eq!(all(&spool).await, [4]);
}

#[test]
fn the_bound_is_said_and_what_is_under_way_finds_room_beyond_it() {
    let folder = Folder::new("bound");
    let mut frame = Vec::new();
    segment::encode(&record(1), &mut frame).expect("encode");
    let size = frame.len() as u64;
    for failure in [SpoolFailure::Refuse, SpoolFailure::Serve] {
        let _ = fs::remove_dir_all(&folder.0);
        let spool = Spool::open(&Options { failure, ..folder.options(1 << 20, size * 8) }).expect("open");
        for number in 1..=8 {
            assert_eq!(spool.standing(), Standing::Good);
            spool.append(&record(number), None).expect("below the bound");
        }
        let refuses = (failure == SpoolFailure::Refuse).then_some(Standing::Full);
        assert_eq!((spool.standing(), spool.refuses()), (Standing::Full, refuses));
        (9..=10).for_each(|number| spool.append(&record(number), None).expect("the reserve"));
        // Where new requests are refused, only those under way can come; where they are served, there is an end.
        assert_eq!(spool.append(&record(11), None).is_ok(), failure == SpoolFailure::Refuse);
    }
}

#[tokio::test]
async fn many_threads_append_whole_records() {
    let folder = Folder::new("threads");
    let spool = folder.open_with(4096, 1 << 30);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let spool = spool.clone();
            scope.spawn(move || {
                (0..250).for_each(|n| spool.append(&record(thread * 1000 + n), None).expect("append"))
            });
        }
    });
    let mut seen = all(&spool).await;
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
}

#[test]
fn one_process_at_a_time() {
    let folder = Folder::new("owner");
    let _spool = folder.open();
    let second = Spool::open(&folder.options(1, 1));
    assert!(matches!(second, Err(Error::InUse(_))));
}
