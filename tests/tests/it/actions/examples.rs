//! Every request of the documentation that the seed is, word for word; only the host, the port and the cookie's value
//! are this fleet's.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::process::Command;
use testkit::fleet::{ADMIN_TOKEN, Fleet};

/// The `curl` commands.
const CURLS: &[&str] = &[
    r#"curl -X POST http://localhost:23000/api/actions/users/getUsers \
-H "Cookie: session=your-session-cookie""#,
    r#"curl -X POST http://localhost:23000/api/actions/users/addUser \
-H "Content-Type: application/json" \
-H "Cookie: session=your-session-cookie" \
-d '{
"name": "Alice",
"description": "测试用户",
"rpm": 60,
"dailyQuota": 10
}'"#,
    r#"curl -X POST http://localhost:23000/api/actions/keys/addKey \
-H "Content-Type: application/json" \
-H "Cookie: session=your-session-cookie" \
-d '{
"userId": 1,
"name": "Production Key",
"expiresAt": "2025-12-31T23:59:59Z"
}'"#,
    r#"curl -X POST http://localhost:23000/api/actions/providers/addProvider \
-H "Content-Type: application/json" \
-H "Cookie: session=your-session-cookie" \
-d '{
"name": "GLM Provider",
"baseUrl": "https://api.provider.com/v1",
"apiKey": "sk-xxx",
"type": "claude",
"weight": 10,
"priority": 1,
"isEnabled": true
}'"#,
    r#"curl -X POST http://localhost:23000/api/actions/model-prices/getModelPricesPaginated \
-H "Content-Type: application/json" \
-H "Cookie: session=your-session-cookie" \
-d '{
"page": 1,
"pageSize": 50,
"search": "claude"
}'"#,
    r#"curl -X POST http://localhost:23000/api/actions/usage-logs/getUsageLogs \
-H "Content-Type: application/json" \
-H "Cookie: session=your-session-cookie" \
-d '{
"startDate": "2025-01-01",
"endDate": "2025-01-31",
"limit": 100
}'"#,
];
/// The `.http` file.
const HTTP: &str = r#"### 获取用户列表
POST http://localhost:23000/api/actions/users/getUsers
Content-Type: application/json
Cookie: session=your-session-cookie
{}
### 创建用户
POST http://localhost:23000/api/actions/users/addUser
Content-Type: application/json
Cookie: session=your-session-cookie
{
"name": "Bob",
"rpm": 60,
"dailyQuota": 5
}
"#;

async fn data(request: RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    let mut body: Value = serde_json::from_str(&text).with_context(|| format!("{status} {text}"))?;
    ensure!(status == 200 && body["ok"] == true, "{status} {text}");
    Ok(body["data"].take())
}

/// What `node-fetch` with a cookie jar does: no Content-Type but the one of a text, the cookies sent back.
async fn logged_in(base: &str, http: &Client) -> Result<String> {
    let request =
        http.post(format!("{base}/api/auth/login")).header("content-type", "text/plain;charset=UTF-8");
    let answer = request.body(json!({"token": ADMIN_TOKEN}).to_string()).send().await?;
    ensure!(answer.status() == 200, "login: {}", answer.status());
    let cookies = answer.headers().get_all("set-cookie").iter();
    let pairs: Vec<String> = cookies
        .map(|cookie| cookie.to_str().unwrap_or_default().split(';').next().unwrap_or_default().to_owned())
        .collect();
    ensure!(!pairs.is_empty(), "no cookie");
    Ok(pairs.join("; "))
}

#[tokio::test]
async fn every_example_of_the_documentation_succeeds() -> Result<()> {
    let fleet = Fleet::plan().proxies(0).without_redis().start().await?;
    let (base, http) = (fleet.control_url(), testkit::client::http());
    let jar = logged_in(&base, &http).await?;
    let session = jar.split("; ").find_map(|pair| pair.strip_prefix("session=")).context("session")?;
    let ours =
        |text: &str| text.replace("http://localhost:23000", &base).replace("your-session-cookie", session);
    let mut answers = Vec::new();
    for curl in CURLS {
        let ran = Command::new("sh").arg("-c").arg(ours(curl)).output().context("run curl")?;
        let text = String::from_utf8(ran.stdout)?;
        let body: Value = serde_json::from_str(&text).with_context(|| format!("{curl}\n{text}"))?;
        ensure!(body["ok"] == true, "{curl}\n{text}");
        answers.push(body["data"].clone());
    }
    let alice = json!({"name": "Alice", "description": "测试用户", "rpm": 60, "dailyQuota": 10});
    for (name, value) in alice.as_object().context("an object")? {
        assert_eq!(answers[1][name], *value, "{name}");
    }
    for field in ["prices", "total", "page", "pageSize", "totalPages"] {
        assert!(!answers[4][field].is_null(), "{field}");
    }
    for request in ours(HTTP).split("### ").skip(1) {
        let mut lines = request.lines().skip(1);
        let url = lines.next().and_then(|line| line.strip_prefix("POST ")).context("a request line")?;
        let mut post = http.post(url);
        let mut body = String::new();
        for line in lines {
            match line.split_once(": ").filter(|_| body.is_empty() && !line.starts_with('{')) {
                Some((name, value)) => post = post.header(name, value),
                None => body.push_str(line),
            }
        }
        data(post.body(body)).await?;
    }
    // `fetch` and axios in a page of ours: neither body nor type, then `{}`, then `callAPI`.
    let page = |path: &str| {
        http.post(format!("{base}/api/actions/{path}")).header("cookie", &jar).header("origin", &base)
    };
    assert_eq!(data(page("users/getUsers")).await?.as_array().map(Vec::len), Some(2));
    data(page("users/getUsers").json(&json!({}))).await?;
    data(page("model-prices/getModelPrices").json(&json!({}))).await?;
    let paged = json!({"page": 1, "pageSize": 50, "search": "claude"});
    data(page("model-prices/getModelPricesPaginated").json(&paged)).await?;
    let foreign = http.post(format!("{base}/api/actions/users/getUsers")).header("cookie", &jar);
    let foreign = foreign.header("origin", "https://elsewhere.example");
    assert_eq!(foreign.send().await?.status(), 403, "another site's page");
    for path in ["scalar", "docs", "openapi.json"] {
        let answer = http.get(format!("{base}/api/actions/{path}")).send().await?;
        assert_eq!(answer.status(), 200, "{path}");
    }
    Ok(())
}
