#!/usr/bin/env bash
# What the tests need besides packages: a Python environment with the official SDKs, and three tools (nextest, deny,
# the checker of shell scripts). Everything lands under .local/. Sourced after lib.sh.

VENV=$LOCAL/venv
TOOLS=$LOCAL/tools
# Last, so that a tool of this machine wins over ours.
PATH=$PATH:$TOOLS/bin:$VENV/bin

here_tools=$(dirname "${BASH_SOURCE[0]}")

ensure_tools() {
    ensure_venv
    ensure_cargo_tool cargo-nextest
    ensure_cargo_tool cargo-deny
}

ensure_venv() {
    local stamp
    stamp=$(cat "$here_tools"/requirements-*.txt | cksum)
    if [[ -x $VENV/bin/python && $(cat "$VENV/stamp" 2>/dev/null) == "$stamp" ]] && "$VENV/bin/python" -c 'import anthropic, openai' 2>/dev/null; then
        return 0
    fi
    say "Installing the Python SDKs and the test tools into .local/venv"
    rm -rf "$VENV"
    python3 -m venv "$VENV" >"$LOG/venv.log" 2>&1 || fail_venv
    pip_install -r "$here_tools/requirements-test.txt" || fail_venv
    pip_install --require-hashes --no-deps --only-binary :all: -r "$here_tools/requirements-tools.txt" ||
        note "no prebuilt test tools for this platform"
    pip_install --require-hashes --no-deps --only-binary :all: -r "$here_tools/requirements-shellcheck.txt" ||
        note "no prebuilt shellcheck for this platform"
    printf '%s' "$stamp" >"$VENV/stamp"
}

pip_install() { "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet "$@" >>"$LOG/venv.log" 2>&1; }

fail_venv() {
    tail -n 15 "$LOG/venv.log" >&2
    die "the Python environment under .local/venv could not be made" "The whole log: .local/log/venv.log"
}

ensure_cargo_tool() {
    if have "$1"; then return 0; fi
    say "Building $1 from source (some minutes, once)"
    cargo install --locked --root "$TOOLS" "$1" || die "$1 could not be installed" "See cargo's message above."
}
