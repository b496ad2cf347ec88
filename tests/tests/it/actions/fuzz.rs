//! What machines make of the document: a hundred calls of everything at once, and the generated requests of
//! schemathesis, which `make test` installs beside the interpreter that `SWITCHYARD_PYTHON` names.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use testkit::fleet::{ADMIN_TOKEN, Fleet};
use tokio::process::Command;

/// Nothing is called outside: the price table's host is a closed port, and webhooks may go nowhere.
fn plan() -> testkit::fleet::Plan {
    Fleet::plan().proxies(0).without_redis().control_env("PRICE_URL", "http://127.0.0.1:9/")
}

#[tokio::test]
async fn a_hundred_at_once_of_everything() -> Result<()> {
    let fleet = plan().start().await?;
    let (base, http) = (fleet.control_url(), testkit::client::http());
    let document: Value = http.get(format!("{base}/api/actions/openapi.json")).send().await?.json().await?;
    let paths = document["paths"].as_object().context("paths")?;
    for (path, item) in
        paths.iter().filter(|(path, item)| path.starts_with("/api/actions/") && item["post"].is_object())
    {
        // Several of these name user 1, who is the owner and cannot be removed or switched off.
        let media = &item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let schema = media.as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
        let example = document["components"]["schemas"][schema]["example"].to_string();
        // A message to the example's host would leave this machine.
        let example = if path.ends_with("/testWebhookAction") { "{}".to_owned() } else { example };
        let calls = (0..100).map(|_| {
            let post = http.post(format!("{base}{path}")).bearer_auth(ADMIN_TOKEN);
            post.body(example.replace("null", "{}")).send()
        });
        let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
        for answer in futures_util::future::join_all(calls).await {
            *seen.entry(answer.with_context(|| path.clone())?.status().as_u16()).or_default() += 1;
        }
        assert!(seen.keys().all(|status| [200, 400, 429].contains(status)), "{path}: {seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn generated_requests_find_no_500_and_no_answer_that_breaks_the_document() -> Result<()> {
    let python = std::env::var("SWITCHYARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let program = Path::new(&python).with_file_name("schemathesis");
    if !program.exists() {
        bail!("there is no {}: run `make test`, or set SWITCHYARD_PYTHON", program.display());
    }
    let fleet = plan().start().await?;
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(format!("{}/api/actions/openapi.json", fleet.control_url()))
        .args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance,response_headers_conformance"])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--workers",
            "2",
        ])
        // The one lets others in no more after ten wrong tokens, the other calls whatever it is told to.
        .args([
            "--exclude-path",
            "/api/auth/login",
            "--exclude-path",
            "/api/actions/notifications/testWebhookAction",
        ])
        .args(["--request-timeout", "20", "--suppress-health-check", "all", "--no-color"])
        .current_dir(fleet.folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ran = command.output().await.context("run schemathesis")?;
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(text.contains(" passed"), "{text}");
    Ok(())
}
