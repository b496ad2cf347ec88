#!/usr/bin/env bash
# `make bench`: our proxy beside plain nginx on pinned cores, as a table. ARGS: full (default), quick, method, profile, instructions (needs valgrind), api.
# It needs two cores that nobody else uses for a few minutes, and Linux.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib packages; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

main() {
    local -a missing=()
    local target
    [[ $(uname -s) == Linux ]] || die "make bench reads /proc and pins processes to cores: it needs Linux"
    (($(nproc) >= 2)) || die "make bench needs two cores: one for the proxy, one for the load"
    need_toolchain
    need_up_packages
    have nginx || missing+=(nginx)
    install_packages ${missing[@]+"${missing[@]}"}
    # 5,000 open streams are 10,000 connections in the load generator and as many in the proxy.
    ulimit -n 20000 2>/dev/null || die "make bench needs 20,000 open files" "Raise the limit: ulimit -n 20000"
    cd "$ROOT"
    say "Building (release)"
    cargo build --release --workspace --bins --locked
    target=$(cargo metadata --no-deps --locked --format-version 1 | jq -r .target_directory)
    say "Measuring; leave the machine alone meanwhile"
    exec "$target/release/bench" "$@"
}

main "$@"
