pub mod fake;
mod report;

use self::fake::{Dir, Fake, Proxy, eventually, soon};
use super::Source;
use crate::health::{Gate, Pass, Verdict};
use crate::table::{RawSection, fixtures};
use bytes::Bytes;
use contract::ids::{ProviderId, UserId};
use contract::pb;
use contract::pb::from_control::Message as Down;
use contract::table::{CircuitState, Health, Rows};
use sha2::{Digest, Sha256};
use std::time::Duration;

fn keys(name: &str, ids: &[i64]) -> RawSection {
    RawSection::of(name, &Rows { keys: ids.iter().map(|id| fixtures::key(*id)).collect(), ..Rows::default() })
}

fn providers(ids: &[i64]) -> RawSection {
    let providers = ids.iter().map(|id| fixtures::provider(*id)).collect();
    RawSection::of("providers", &Rows { providers, ..Rows::default() })
}

fn health(rows: Vec<Health>) -> RawSection {
    RawSection::of("health", &Rows { health: rows, ..Rows::default() })
}

#[tokio::test]
async fn a_table_then_changes_of_it() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let mut proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    let hello = peer.hello().await;
    assert_eq!(peer.authorization, "Bearer fleet-token");
    assert_eq!((hello.proxy_id.as_str(), hello.generation, hello.held.len()), ("proxy-1", 0, 0));
    assert_eq!((hello.schema, hello.boot_id.len()), (contract::TABLE_SCHEMA, 36));
    assert!(!*proxy.watching.ready.borrow());

    peer.push(5, &[keys("keys/0", &[1]), keys("keys/1", &[2]), providers(&[1])], &[]).await;
    let ack = peer.ack().await;
    // The ack comes after the swap: whoever reads it may rely on the table.
    assert_eq!((ack.generation, proxy.generation(), ack.rejected.len()), (5, 5, 0));
    assert!(proxy.has_key(1) && proxy.has_key(2));
    soon("readiness", proxy.watching.ready.wait_for(|ready| *ready)).await.expect("ready");
    let status = proxy.watching.status.load_full();
    assert_eq!((status.source, status.connected, status.heard_ms > 0), (Source::Stream, true, true));

    peer.push(6, &[keys("keys/0", &[1, 3])], &["keys/1"]).await;
    let second = peer.ack().await;
    assert_eq!((second.generation, proxy.generation()), (6, 6));
    assert!(proxy.has_key(3) && !proxy.has_key(2));
    assert_ne!(ack.table_hash, second.table_hash);

    // A generation that changes nothing here is acknowledged all the same.
    peer.push(7, &[], &[]).await;
    let third = peer.ack().await;
    assert_eq!((third.generation, third.table_hash), (7, second.table_hash));
}

#[tokio::test]
async fn sections_that_do_not_add_up_are_asked_for_again() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    peer.hello().await;
    peer.push(1, &[keys("keys/0", &[1]), keys("keys/1", &[2])], &[]).await;
    peer.ack().await;
    let table_hash = Bytes::from_static(&[3; 32]);
    peer.say(Down::Commit(pb::Commit { generation: 2, table_hash, removed: Vec::new() })).await;
    assert!(peer.gone().await);
    assert_eq!(proxy.generation(), 1, "the old table serves on");

    let mut peer = fake.accept().await;
    let hello = peer.hello().await;
    assert_eq!((hello.generation, hello.held.len()), (0, 0));
    // What is not in the answer to an empty hello is gone.
    peer.push(3, &[keys("keys/0", &[1])], &[]).await;
    assert_eq!(peer.ack().await.generation, 3);
    assert!(proxy.has_key(1) && !proxy.has_key(2));
    peer.push(4, &[keys("keys/1", &[9])], &[]).await;
    assert_eq!(peer.ack().await.generation, 4);
    assert!(proxy.has_key(1) && proxy.has_key(9), "and from there on changes are changes again");
}

#[tokio::test]
async fn a_broken_section_is_refused_by_name() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    peer.hello().await;
    peer.push(1, &[keys("keys/0", &[1])], &[]).await;
    let good = peer.ack().await;
    let payload = Bytes::from_static(b"not rows");
    let version = Bytes::copy_from_slice(&Sha256::digest(&payload)[..16]);
    let broken = RawSection { name: "keys/0".to_owned(), version, payload };
    peer.push(2, &[broken, keys("keys/1", &[2])], &[]).await;
    let ack = peer.ack().await;
    assert_eq!(ack.generation, 2);
    assert_eq!(ack.rejected.iter().map(|r| r.section.as_str()).collect::<Vec<_>>(), ["keys/0"]);
    assert!(ack.rejected[0].reason.starts_with("payload: "), "{:?}", ack.rejected);
    assert!(proxy.has_key(1) && proxy.has_key(2), "the old section stays, the rest applies");
    assert_ne!(good.table_hash, ack.table_hash);
    // The next hello holds what is in use, so that the section comes again and is judged again.
    drop(peer);
    let hello = fake.accept().await.hello().await;
    let held: Vec<_> = hello.held.iter().map(|held| (held.name.as_str(), &held.version)).collect();
    assert_eq!(held, [("keys/0", &keys("keys/0", &[1]).version), ("keys/1", &keys("keys/1", &[2]).version)]);
    assert_eq!(proxy.watching.status.load().rejected.len(), 1);
}

#[tokio::test]
async fn a_new_stream_brings_only_the_difference() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    peer.hello().await;
    peer.push(1, &[keys("keys/0", &[1]), keys("keys/1", &[2])], &[]).await;
    peer.ack().await;
    drop(peer);
    let mut peer = fake.accept().await;
    let hello = peer.hello().await;
    assert_eq!((hello.generation, hello.held.len()), (1, 2));
    peer.push(4, &[keys("keys/1", &[7])], &[]).await;
    assert_eq!(peer.ack().await.generation, 4);
    assert!(proxy.has_key(1) && proxy.has_key(7) && !proxy.has_key(2));
}

#[tokio::test]
async fn silence_is_a_dead_stream() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let silence = Duration::from_millis(500);
    let proxy = Proxy::with(fake.address, &dir, silence);
    let mut first = fake.accept().await;
    first.hello().await;
    // Beats keep it alive for longer than the silence that would end it.
    for _ in 0..8 {
        first.say(Down::Heartbeat(pb::Heartbeat { generation: 0, now_ms: 0 })).await;
        tokio::time::sleep(silence / 5).await;
    }
    assert!(proxy.watching.status.load().connected);
    assert!(first.gone().await);
    fake.accept().await.hello().await;
}

#[tokio::test]
async fn starts_from_its_disk_without_a_control_plane() {
    let dir = Dir::new();
    let nobody = {
        let mut fake = Fake::start().await;
        let proxy = Proxy::start(fake.address, &dir);
        let mut peer = fake.accept().await;
        peer.hello().await;
        peer.push(8, &[keys("keys/0", &[1]), providers(&[1])], &[]).await;
        peer.ack().await;
        assert!(proxy.tasks.finish(fake::PATIENCE).await, "the last table is written before the end");
        fake.address
    };
    let file = std::fs::read(dir.path().join("table.last")).expect("file");
    assert!(!file.windows(4).any(|bytes| bytes == b"sk-1"), "no clear credential on disk");

    let proxy = Proxy::start(nobody, &dir);
    eventually("the table from disk", || proxy.generation() == 8).await;
    assert!(*proxy.watching.ready.borrow() && proxy.has_key(1));
    assert_eq!(proxy.watching.status.load().source, Source::Disk);
    let upstream = proxy.table.load().upstream(ProviderId(1)).cloned().expect("provider");
    assert_eq!(upstream.secret.expose(), "sk-1");
}

#[tokio::test]
async fn a_broken_disk_is_an_empty_one_and_an_older_table_is_better_than_none() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    std::fs::write(dir.path().join("table.last"), "rubbish").expect("write");
    let proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    assert_eq!(peer.hello().await.held.len(), 0);
    for generation in [1, 2] {
        peer.push(generation, &[keys("keys/0", &[generation])], &[]).await;
        peer.ack().await;
        let last = dir.path().join("table.last");
        let written = || {
            super::disk::load(dir.path())
                .any(|(path, read)| path == last && read.is_ok_and(|table| table.generation.0 == generation))
        };
        eventually("the write", written).await;
    }
    drop(proxy);
    std::fs::write(dir.path().join("table.last"), "rubbish").expect("write");
    let proxy = Proxy::start(fake.address, &dir);
    let hello = fake.accept().await.hello().await;
    assert_eq!((hello.generation, hello.held.len(), proxy.generation()), (1, 1, 1));
}

#[tokio::test]
async fn health_goes_up_and_comes_down() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let proxy = Proxy::start(fake.address, &dir);
    let mut peer = fake.accept().await;
    peer.hello().await;
    let row = |id, state, epoch| Health {
        provider_id: ProviderId(id),
        state,
        until_ms: Some(i64::MAX),
        reason: "failures".to_owned(),
        failures: 5,
        epoch,
    };
    peer.push(1, &[providers(&[1, 2]), health(vec![row(2, CircuitState::Open, 4)])], &[]).await;
    peer.ack().await;
    assert_eq!(proxy.health.peek(ProviderId(2), 0), Gate::Asleep { until_ms: Some(i64::MAX) });

    let one = proxy.table.load().upstream(ProviderId(1)).cloned().expect("provider");
    (0..5).for_each(|_| proxy.health.record(&one, Pass::default(), (&Verdict::Failure, UserId(1)), 1000));
    let told = peer.health().await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].provider_id, told[0].state(), told[0].epoch), (1, pb::CircuitState::Open, 1));

    // The stream breaks before the control plane has stored it: it is told again.
    drop(peer);
    let mut peer = fake.accept().await;
    peer.hello().await;
    assert_eq!(peer.health().await, told);

    let reset = Health { reason: "manual".to_owned(), ..row(1, CircuitState::Closed, 2) };
    peer.push(2, &[health(vec![reset, row(2, CircuitState::Open, 4)])], &[]).await;
    peer.ack().await;
    assert_eq!(proxy.health.gate(&one, 1000).0, Gate::Open);
    assert_eq!(proxy.health.peek(ProviderId(2), 0), Gate::Asleep { until_ms: Some(i64::MAX) });
}
