#!/usr/bin/env bash
# A private Postgres under .local/postgres. Sourced after lib.sh, packages.sh and process.sh.
# Postgres refuses to run as root: root's cluster belongs to `nobody` and runs as that user.

PG_HOME=$LOCAL/postgres # holds data/, server.conf, server.log; a link when `nobody` cannot enter the checkout
PG_NAME=switchyard      # role and database

pg_run() {
    if ((EUID != 0)); then
        "$@"
    elif have setpriv; then
        (cd / && setpriv --reuid=nobody --regid="$(id -gn nobody)" --clear-groups "$@")
    else
        (cd / && runuser -u nobody -- "$@")
    fi
}

# Where the cluster lives: in the checkout, or, when its user cannot pass through the checkout's parents (a root
# checkout under /root), in /var/lib with a link from .local/postgres.
pg_make_home() {
    [[ ! -e $PG_HOME ]] || return 0
    rm -f "$PG_HOME" # a dangling link
    if pg_run test -x "$LOCAL"; then
        mkdir "$PG_HOME"
        pg_own "$PG_HOME"
        return 0
    fi
    local outside
    outside=/var/lib/switchyard-local/$(basename "$ROOT")-$(printf '%s' "$ROOT" | cksum | cut -d ' ' -f 1)
    note "user nobody, who runs Postgres for root, cannot enter $ROOT:"
    note "the database lives in $outside (.local/postgres links there)"
    mkdir -p "$outside"
    chmod 755 "$(dirname "$outside")"
    pg_own "$outside"
    ln -s "$outside" "$PG_HOME"
}

pg_own() {
    chmod 700 "$1"
    if ((EUID == 0)); then chown nobody:"$(id -gn nobody)" "$1"; fi
}

# Made beside and renamed when complete: an interrupted initdb leaves nothing that looks like a cluster.
pg_init() {
    local home bin=$1
    home=$(cd "$PG_HOME" && pwd -P)
    [[ ! -f $home/data/PG_VERSION ]] || return 0
    say "Making a private Postgres cluster"
    rm -rf "$home/data.new"
    printf '%s' "$POSTGRES_PASSWORD" >"$home/password"
    chmod 600 "$home/password"
    if ((EUID == 0)); then chown nobody "$home/password"; fi
    pg_run "$bin/initdb" -D "$home/data.new" -U "$PG_NAME" -A scram-sha-256 --pwfile="$home/password" -E UTF8 \
        --locale=C --no-instructions >"$LOG/initdb.log" 2>&1 || fail_with_log initdb "initdb failed"
    rm -f "$home/password"
    echo "include_if_exists = '$home/server.conf'" >>"$home/data.new/postgresql.conf"
    # shellcheck disable=SC2016 # the inner shell expands its own arguments
    pg_run sh -c 'echo "create database $1" | "$2/postgres" --single -D "$3" postgres' - "$PG_NAME" "$bin" "$home/data.new" \
        >>"$LOG/initdb.log" 2>&1 || fail_with_log initdb "the database could not be created"
    mv "$home/data.new" "$home/data"
}

pg_configure() {
    local home=$1 port=$2 socket_dir=$1
    # A socket's path must fit in 107 bytes.
    if ((${#home} > 80)); then socket_dir=''; fi
    {
        echo "listen_addresses = '127.0.0.1'"
        echo "port = $port"
        echo "unix_socket_directories = '$socket_dir'"
        echo "max_connections = 200"
        echo "log_line_prefix = '%m [%p] '"
    } >"$home/server.conf"
    chmod 644 "$home/server.conf"
}

# pg_pid: the live postmaster of our cluster.
pg_pid() {
    local file=$PG_HOME/data/postmaster.pid pid name
    [[ -r $file ]] || return 1
    pid=$(head -n 1 "$file")
    if [[ $pid =~ ^[0-9]+$ && -n $(birth_of "$pid") ]]; then
        name=$(cat "/proc/$pid/comm" 2>/dev/null || ps -o comm= -p "$pid" 2>/dev/null || true)
        if [[ ${name##*/} == postgres ]]; then
            printf '%s' "$pid"
            return 0
        fi
    fi
    return 1
}

# After a crash Postgres recovers by itself, unless the old pid belongs to something else by now (or to a zombie): then
# it refuses to start. The pid is replaced by one that cannot exist; the rest of the file stays, because by it Postgres
# sees whether children of the dead server still use its memory.
pg_after_crash() {
    local file=$1/data/postmaster.pid
    [[ -e $file ]] || return 0
    note "Postgres was not stopped properly the last time: it recovers its data"
    { echo 2147483647 && tail -n +2 "$file"; } >"$file.new"
    cat "$file.new" >"$file"
    rm -f "$file.new" "$1"/.s.PGSQL.*
}

pg_port() { sed -n 4p "$PG_HOME/data/postmaster.pid" 2>/dev/null; }

pg_answers() { "$1/pg_isready" -q -h 127.0.0.1 -p "$(pg_port)" -t 3; }

start_postgres() {
    if [[ -n ${DATABASE_URL-} ]]; then
        note "Postgres: the one that DATABASE_URL names"
        return 0
    fi
    local bin home port
    pg_make_home
    home=$(cd "$PG_HOME" && pwd -P)
    bin=$(pg_find_bin)
    pg_init "$bin"
    ln -sf "$home/server.log" "$LOG/postgres.log"
    if pg_pid >/dev/null && ! pg_answers "$bin"; then
        warn "Postgres runs but does not answer: restarting it"
        pg_run "$bin/pg_ctl" -D "$home/data" -m immediate -w -t 30 stop >/dev/null 2>&1 || true
    fi
    if ! pg_pid >/dev/null; then pg_launch "$bin" "$home"; fi
    port=$(pg_port)
    DATABASE_URL=postgres://$PG_NAME:$POSTGRES_PASSWORD@127.0.0.1:$port/$PG_NAME
    note "Postgres on 127.0.0.1:$port"
}

pg_find_bin() {
    local version
    version=$(cat "$PG_HOME/data/PG_VERSION" 2>/dev/null || true)
    pg_bin_dir "$version" || die "the data under .local/postgres is of Postgres $version, which is not installed" \
        "Install Postgres $version, or start afresh with: make clean-data"
}

pg_launch() {
    local bin=$1 home=$2 port try
    port=$(free_port "$(sed -n 's/^port = //p' "$home/server.conf" 2>/dev/null)")
    pg_configure "$home" "$port"
    pg_after_crash "$home"
    # A child of a dead server needs a moment to notice.
    for try in 1 2 3 4 5; do
        if pg_ctl_start "$bin" "$home"; then return 0; fi
        tail -n 5 "$home/server.log" | grep -q 'shared memory block' || break
        sleep "$try"
    done
    fail_with_log postgres "Postgres does not start"
}

pg_ctl_start() {
    (
        close_inherited
        pg_run "$1/pg_ctl" -D "$2/data" -l "$2/server.log" -w -t 60 start </dev/null >"$LOG/pg_ctl.log" 2>&1
    )
}

stop_postgres() {
    local bin home
    pg_pid >/dev/null || return 0
    home=$(cd "$PG_HOME" && pwd -P)
    bin=$(pg_find_bin)
    pg_run "$bin/pg_ctl" -D "$home/data" -m fast -w -t 30 stop >/dev/null 2>&1 ||
        pg_run "$bin/pg_ctl" -D "$home/data" -m immediate -w -t 30 stop >/dev/null 2>&1 || true
    if pg_pid >/dev/null; then warn "Postgres (pid $(pg_pid)) does not stop"; else note "stopped postgres"; fi
}
