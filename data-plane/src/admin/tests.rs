use super::*;
use crate::config::Setting;
use crate::spool::tests::{options, record};
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use http_body_util::BodyExt;
use tokio::sync::watch;

async fn text(answer: Response<Full<Bytes>>) -> (u16, String) {
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_tells_the_truth() {
    let (ready, is_ready) = watch::channel(false);
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let (open, is_open) = watch::channel(false);
    let folder = std::env::temp_dir().join(format!("switchyard-ops-{}", std::process::id()));
    // A spool whose bound is reached at once.
    let spool = Spool::open(&options(folder.clone(), 1, 1)).unwrap();
    let ops = Ops {
        proxy_id: "p1".into(),
        vital: tasks.vital().clone(),
        token: Hidden::parse("t0ken").unwrap(),
        page: Metrics::install().1,
        table: Snapshot::empty(),
        health: Book::new(),
        watching: Watching { ready: is_ready, status: Arc::<ArcSwap<Status>>::default() },
        open: is_open,
        spool: spool.clone(),
        draining: Arc::default(),
        trouble: Arc::default(),
    };
    let get = async |path: &str| text(ops.answer(&Method::GET, path, true)).await;
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/readyz").await, (503, "no routing table yet\n".into()));
    ready.send_replace(true);
    assert_eq!(get("/readyz").await, (503, "starting\n".into()));
    open.send_replace(true);
    assert_eq!(get("/readyz").await, (200, "ready\n".into()));
    spool.append(&record(1), None).unwrap();
    assert_eq!(get("/readyz").await, (503, "the spool is full\n".into()));
    ops.draining.store(true, Ordering::Relaxed);
    assert_eq!(get("/readyz").await, (503, "draining\n".into()));
    assert_eq!(get("/livez").await.0, 200);

    let (status, page) = get("/metrics").await;
    assert!(status == 200 && page.contains("switchyard_proxy_connections"));
    let (status, dump) = get("/table").await;
    assert_eq!(status, 200);
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(dump["generation"], 0);
    assert_eq!(dump["control"]["source"], "nowhere");
    assert_eq!(get("/else").await.0, 404);

    tasks.spawn_vital("report", async { panic!("on purpose") });
    tasks.vital().told().cancelled().await;
    assert_eq!(get("/livez").await, (503, "the task report died\n".into()));
    // What probes and scrapers need is open, the table is not.
    for (path, status) in [("/livez", 503), ("/metrics", 200), ("/readyz", 503), ("/table", 401)] {
        assert_eq!(text(ops.answer(&Method::GET, path, false)).await.0, status, "{path}");
    }
    for (value, told) in
        [("Bearer t0ken", true), ("bearer t0ken", true), ("Bearer t0kens", false), ("t0ken", false)]
    {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        assert_eq!(ops.is_told(&headers), told, "{value}");
    }
    assert!(!ops.is_told(&HeaderMap::new()));
    assert_eq!(text(ops.answer(&Method::POST, "/livez", true)).await.0, 405);
    std::fs::remove_dir_all(folder).unwrap();
}
