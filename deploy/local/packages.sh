#!/usr/bin/env bash
# Find programs; install Debian, Ubuntu or Homebrew packages for those that are missing. Sourced after lib.sh.

# Where Postgres may be, the newest last: it wins when no version is asked for.
pg_places() {
    if have initdb; then dirname "$(command -v initdb)"; fi
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin |
        sort -V
}

# The directory with initdb, postgres and pg_ctl; pg_bin_dir VERSION insists on a major version.
pg_bin_dir() {
    local want=${1-} dir found=''
    while read -r dir; do
        [[ -x $dir/initdb && -x $dir/postgres && -x $dir/pg_ctl ]] || continue
        if [[ -z $want || $("$dir/postgres" --version) == *" $want."* ]]; then found=$dir; fi
    done < <(pg_places)
    [[ -n $found ]] && printf '%s' "$found"
}

redis_server() { command -v redis-server || command -v valkey-server; }

need_toolchain() {
    have cargo || die "no Rust toolchain found" "Install one with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    # With rustup this also fetches the version that rust-toolchain.toml names.
    (cd "$ROOT" && cargo --version >/dev/null) || die "the Rust toolchain of rust-toolchain.toml cannot be had" \
        "See the message above."
}

need_up_packages() {
    local -a missing=()
    have cc || missing+=(build-essential)
    have jq || missing+=(jq)
    pg_bin_dir >/dev/null || missing+=(postgresql)
    redis_server >/dev/null || missing+=(redis-server)
    install_packages ${missing[@]+"${missing[@]}"}
}

need_test_packages() {
    local -a missing=()
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    need_up_packages
    install_packages ${missing[@]+"${missing[@]}"}
}

install_packages() {
    (($# > 0)) || return 0
    if have apt-get; then
        apt_install "$@"
    elif have brew; then
        brew_install "$@"
    else
        die "missing: $*" "Neither apt-get nor brew is here: install them with this system's package manager, then run again."
    fi
}

brew_install() {
    local name
    local -a names=()
    for name in "$@"; do
        case $name in
        build-essential) die "no C compiler found" "Install one with: xcode-select --install" ;;
        postgresql) names+=(postgresql@16) ;;
        redis-server) names+=(redis) ;;
        python3-venv) names+=(python3) ;;
        *) names+=("$name") ;;
        esac
    done
    say "Installing ${names[*]} with brew"
    brew install --quiet "${names[@]}" || die "brew install ${names[*]} failed" "See the message above."
}

apt_install() {
    ((EUID == 0)) || have sudo || die "missing packages: $*" "Run as root: apt-get install $*"
    say "Installing with apt: $* (about a minute)"
    local log=$LOG/apt.log
    keep_services_still "$@"
    if ! apt_quietly "$log" update || ! apt_quietly "$log" install -y --no-install-recommends "$@"; then
        let_services_start
        tail -n 15 "$log" >&2
        die "apt-get could not install: $*" "The whole log: $log"
    fi
    let_services_start
}

apt_quietly() {
    local log=$1
    shift
    as_root env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 LC_ALL=C apt-get -q "$@" >>"$log" 2>&1
}

# The packages' own services must not run: we start private servers. Nothing that exists is touched.
keep_services_still() {
    POLICY_WRITTEN=
    NEW_REDIS=
    # A policy that outlives an interrupted run would keep every later package's service from starting.
    trap 'let_services_start; exit 130' INT TERM
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
        POLICY_WRITTEN=yes
    fi
    if [[ " $* " == *' postgresql '* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    if [[ " $* " == *' redis-server '* ]]; then NEW_REDIS=yes; fi
}

let_services_start() {
    trap - INT TERM
    if [[ -n $POLICY_WRITTEN ]]; then as_root rm -f /usr/sbin/policy-rc.d; fi
    [[ -n $NEW_REDIS ]] || return 0
    if have systemctl; then
        as_root systemctl disable redis-server >/dev/null 2>&1 || true
    elif have update-rc.d; then
        as_root update-rc.d redis-server disable >/dev/null 2>&1 || true
    fi
}
