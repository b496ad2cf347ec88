//! The house rules that a machine can check: floors, what packages may depend on, sizes, heads of modules.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules of a package by floor, as ARCHITECTURE.md has them. Below them all: `config`, plain values that everybody
/// may read and that know nobody, `clock`, `map`, and `tasks`, which spawns and joins.
type Floors = &'static [(&'static str, u32)];

const DATA_PLANE: Floors = &[
    ("config", 1),
    ("clock", 1),
    ("tasks", 1),
    ("table", 2),
    ("memo", 1),
    ("map", 1),
    ("limit", 2),
    ("bill", 2),
    ("health", 2),
    ("live", 2),
    ("store", 3),
    ("upstream", 3),
    ("control", 3),
    ("spool", 3),
    ("telemetry", 3),
    ("probe", 4),
    ("proxy", 4),
    ("server", 5),
    ("admin", 5),
    ("app", 5),
];
const CONTROL_PLANE: Floors = &[
    ("config", 1),
    ("tasks", 1),
    ("telemetry", 2),
    ("db", 2),
    ("rules", 2),
    ("compile", 3),
    ("outbound", 3),
    ("publish", 4),
    ("ingest", 4),
    ("jobs", 4),
    ("api", 4),
    ("console", 4),
    ("ops", 5),
    ("app", 5),
];
/// Neighbours that never import each other: they meet only in `app`.
const APART: &[(&str, &[&str])] = &[("control-plane", &["publish", "ingest", "jobs", "api"])];
/// But for these arrows: a write wakes the reconciler and the fleet's view asks the subscribers, through handles.
const ARROWS: &[(&str, &str)] = &[("api", "publish")];
const FILE_CAP: usize = 500;
const TEST_FILE_CAP: usize = 800;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// All Rust sources below `folder` with their path relative to the root.
fn sources(folder: &str) -> Result<BTreeMap<String, String>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                walk(root, &path, found)?;
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                found.insert(name, std::fs::read_to_string(&path)?);
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(&root(), &root().join(folder), &mut found)?;
    Ok(found)
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("testing.rs")
}

/// The module that a file of a package's `src` belongs to.
fn module(path: &str) -> &str {
    let inner = path.split_once("/src/").map_or(path, |(_, inner)| inner);
    inner.split(['/', '.']).next().unwrap_or(inner)
}

/// Modules that a source names after `crate::`, with groups in braces; comments and inline tests are left out.
fn imports(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let is_ours = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let rest = &code[at + "crate::".len()..];
        if !is_ours {
            continue;
        }
        match rest.strip_prefix('{') {
            None => found.push(first_name(rest)),
            Some(group) => found.extend(members(group).into_iter().map(first_name)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The members of a group, up to its closing brace.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn upward(package: &str, floors: Floors) -> Result<Vec<String>> {
    let floor = |name: &str| floors.iter().find(|(module, _)| *module == name).map(|(_, floor)| *floor);
    let apart = APART.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, apart)| apart);
    let mut wrong = Vec::new();
    for (path, source) in sources(&format!("{package}/src"))? {
        let from = module(&path);
        if ["lib", "main"].contains(&from) || is_test(&path) {
            continue;
        }
        let Some(own) = floor(from) else {
            wrong.push(format!("{path}: the module `{from}` is on no floor"));
            continue;
        };
        for to in imports(&source) {
            let is_above = floor(&to).is_some_and(|floor| floor > own);
            let is_drawn = to == from || ARROWS.contains(&(from, to.as_str()));
            let is_neighbour = !is_drawn && apart.contains(&from) && apart.contains(&to.as_str());
            if is_above || is_neighbour {
                wrong.push(format!("{path}: `{from}` imports `{to}`"));
            }
        }
    }
    Ok(wrong)
}

#[test]
fn no_module_imports_from_above() -> Result<()> {
    assert_eq!(upward("data-plane", DATA_PLANE)?, [""; 0]);
    assert_eq!(upward("control-plane", CONTROL_PLANE)?, [""; 0]);
    Ok(())
}

/// What may never stand among a package's dependencies.
#[test]
fn packages_depend_on_what_their_floor_allows() -> Result<()> {
    let rules: [(&str, &[&str]); 4] = [
        (
            "proto",
            &["tokio", "hyper", "http", "actix-web", "diesel", "fred", "data-plane", "control-plane", "llm"],
        ),
        ("data-plane/llm", &["tokio", "hyper", "reqwest", "fred", "diesel", "data-plane", "control-plane"]),
        ("data-plane", &["diesel", "diesel-async", "actix-web", "control-plane"]),
        ("control-plane", &["data-plane", "llm", "fred"]),
    ];
    for (package, banned) in rules {
        let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml"))?;
        let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let names = section.lines().map(|line| line.split(['.', '=', ' ']).next().unwrap_or_default());
        let found: Vec<&str> = names.filter(|name| banned.contains(name)).collect();
        assert_eq!(found, [""; 0], "{package}");
    }
    Ok(())
}

/// Files of the proxy that read a clock by themselves, each with its reason. All others read it in `clock`, so that
/// tests can pause and step it.
const OWN_CLOCK: &[(&str, &str)] = &[
    ("data-plane/src/clock.rs", "it is the clock"),
    ("data-plane/src/app/parts.rs", "measures how long a disk takes, on a thread that blocks"),
    ("data-plane/src/spool/disk.rs", "waits for a file's lock by blocking"),
    ("data-plane/src/telemetry/lines.rs", "waits for a reader of lines by blocking"),
];

/// Whether it reads the time, or names a clock to read, otherwise than by `crate::clock`.
fn reads_time(source: &str) -> bool {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let calls =
        ["SystemTime::now", "Utc::now", "Local::now", "window::now_ms", "Uuid::now_v", "time::Instant"];
    let named = code.split(';').any(|statement| {
        let mut words = statement.split(|c: char| !c.is_alphanumeric());
        (statement.contains("std::time::{") || statement.contains("tokio::time::{"))
            && words.any(|word| word == "Instant")
    });
    named || calls.iter().any(|call| code.contains(call))
}

#[test]
fn only_the_clock_reads_the_time() -> Result<()> {
    let mut wrong = Vec::new();
    for folder in ["data-plane/src", "data-plane/llm/src"] {
        for (path, source) in sources(folder)? {
            let excused = OWN_CLOCK.iter().any(|(file, _)| *file == path);
            if !is_test(&path) && reads_time(&source) != excused {
                wrong.push(format!("{path}: reads the time: {}, excused: {excused}", !excused));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    for source in [
        "use std::time::{Duration, Instant};",
        "use tokio::time::{\n    Instant, sleep};",
        "use tokio::time::Instant;",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() -> i64 { contract::window::now_ms() }",
        "fn f() { chrono::Utc::now() }",
    ] {
        assert!(reads_time(source), "{source}");
    }
    for source in [
        "use crate::clock::Instant;\nuse std::time::Duration;",
        "// SystemTime::now()",
        "let a = Instant::now();",
    ] {
        assert!(!reads_time(source), "{source}");
    }
    Ok(())
}

#[test]
fn files_are_short_have_a_head_and_no_mod_rs() -> Result<()> {
    let mut wrong = Vec::new();
    for folder in ["proto/src", "data-plane", "control-plane", "tests"] {
        for (path, source) in sources(folder)? {
            let lines = source.lines().count();
            let cap = if is_test(&path) { TEST_FILE_CAP } else { FILE_CAP };
            let is_generated = source.starts_with("// @generated");
            if lines > cap && !is_generated {
                wrong.push(format!("{path}: {lines} lines"));
            }
            if !source.starts_with("//!") && !is_generated && !path.ends_with("/tests.rs") {
                wrong.push(format!("{path}: no `//!` head"));
            }
            if path.ends_with("/mod.rs") {
                wrong.push(format!("{path}: `foo.rs` and `foo/`, never `mod.rs`"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    Ok(())
}

#[test]
fn imports_are_read_from_any_form() {
    let source = "//! crate::nothing\nuse crate::{table::{self, Key}, limit,\n  store::redis};\nuse crate::health;\n\
        // crate::nor_this\nfn f() { crate::proxy::run(); $crate::macros::x!(); }\n\
        #[cfg(test)]\nmod tests {\n use crate::app; }";
    assert_eq!(imports(source), ["table", "limit", "store", "health", "proxy"]);
    assert_eq!(module("data-plane/src/proxy/serve.rs"), "proxy");
    assert_eq!(module("data-plane/src/proxy.rs"), "proxy");
}
