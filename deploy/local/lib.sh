#!/usr/bin/env bash
# Shared by the scripts behind `make up`, `make down` and `make test`: places, messages, small helpers. Sourced.
# shellcheck disable=SC2034 # these names are read by the scripts that source this file
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LOCAL=$ROOT/.local
RUN=$LOCAL/run
LOG=$LOCAL/log
ENV_FILE=$LOCAL/env
SECRETS_FILE=$LOCAL/secrets
# Homebrew and rustup put their programs where a non-login shell does not look.
PATH=$PATH:$HOME/.cargo/bin:/opt/homebrew/bin:/usr/local/bin:/usr/sbin:/sbin
export PATH
readonly ROOT LOCAL RUN LOG ENV_FILE SECRETS_FILE

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die MESSAGE [HINT...]: one sentence that says what is wrong, then what to do about it.
die() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    if (($# > 0)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

random_hex() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# HTTP to our own processes: never through a proxy, never for ever.
http() { curl --noproxy '*' --silent --show-error --max-time 10 "$@"; }

make_local_dirs() {
    mkdir -p "$LOCAL" 2>/dev/null || die "cannot create $LOCAL" "The checkout must be writable for $(id -un)."
    [[ -w $LOCAL && -O $LOCAL ]] || die "$LOCAL belongs to another user" \
        "Use that user, or remove the directory (its data goes with it)."
    chmod 755 "$LOCAL" # the database's user must be able to pass through
    mkdir -p "$RUN" "$LOG"
    chmod 700 "$RUN" "$LOG"
}

# One `make up` or `make down` at a time.
take_lock() {
    local lock=$RUN/lock holder
    if ! mkdir "$lock" 2>/dev/null; then
        holder=$(cat "$lock/pid" 2>/dev/null || true)
        if [[ -n $holder ]] && kill -0 "$holder" 2>/dev/null; then
            die "another make up or make down is at work here (pid $holder)" "Wait for it to end."
        fi
        rm -rf "$lock" && mkdir "$lock"
    fi
    echo $$ >"$lock/pid"
    trap 'rm -rf "$RUN/lock"' EXIT
}

# Keep a value of a file of shell assignments: saved FILE NAME prints it, or nothing.
saved() {
    [[ -r $1 ]] || return 0
    (
        unset "$2"
        # shellcheck source=/dev/null
        . "$1" && printf '%s' "${!2-}"
    )
}
