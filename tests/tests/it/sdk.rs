//! The official Python SDKs against the running system. `make test` installs them and names the interpreter in
//! `SWITCHYARD_PYTHON`.

use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use testkit::fleet::Fleet;
use tokio::process::Command;

#[tokio::test]
async fn official_clients_are_satisfied_and_raise_their_own_errors() -> Result<()> {
    let python = std::env::var("SWITCHYARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", "import anthropic, openai"]).output().await;
    if !probe.is_ok_and(|probe| probe.status.success()) {
        bail!(
            "`{python}` lacks the packages anthropic and openai: run `make test`, or set SWITCHYARD_PYTHON"
        );
    }
    let scene = Scene::open(Fleet::plan().proxy_env("SSE_KEEPALIVE", "500ms")).await?;
    let providers = scene.fleet.admin.action("providers/getProviders", json!({})).await?;
    for provider in providers.as_array().context("providers")? {
        // The script makes upstreams fail on purpose; nobody shall fall asleep over it.
        let edit = json!({"providerId": provider["id"], "circuitBreakerFailureThreshold": 0});
        scene.fleet.admin.action("providers/editProvider", edit).await?;
    }
    let (_, limited) = scene.user(json!({"name": "Limited", "rpm": 1})).await?;
    assert_eq!(scene.fleet.caller(0, &limited).status(CLAUDE).await?, 200);
    let mut runs = Vec::new();
    for proxy in &scene.fleet.proxies {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run.py"));
        command.env("PROXY_URL", proxy.url()).env("CLIENT_KEY", &scene.key).env("LIMITED_KEY", &limited);
        runs.push(command.kill_on_drop(true).output());
    }
    for run in futures_util::future::join_all(runs).await {
        let run = run?;
        let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{text}\n{}", scene.fleet.logs());
    }
    // Every answer that an SDK was satisfied with is priced to its reported usage.
    scene
        .fleet
        .expect_records(
            "status = 200 AND usage_source <> 'reported' AND endpoint NOT LIKE '%count_tokens'",
            0,
        )
        .await
}
