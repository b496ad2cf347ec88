#!/usr/bin/env bash
# Build, migrate and start our own programs. Sourced after settings.sh and process.sh.

PROFILE=${SWITCHYARD_PROFILE:-release}
BIN='' # set by build

build() {
    local target
    local -a flags=(--workspace --bins --locked)
    case $PROFILE in
    release) flags+=(--release) ;;
    debug) ;;
    *) die "SWITCHYARD_PROFILE must be release or debug, not '$PROFILE'" ;;
    esac
    target=$(cd "$ROOT" && cargo metadata --no-deps --locked --format-version 1 2>"$LOG/metadata.log" | jq -r .target_directory) ||
        fail_with_log metadata "cargo cannot read the workspace"
    BIN=$target/$PROFILE
    if [[ -x $BIN/control-plane ]]; then
        say "Building ($PROFILE)"
    else
        say "Building ($PROFILE): the first time takes about ten minutes on two cores"
    fi
    (cd "$ROOT" && cargo build "${flags[@]}") || die "the build failed" "See the compiler's message above."
}

# Only in a subshell: these exports are the settings of one process.
control_settings() {
    export LOG_FORMAT=${LOG_FORMAT:-text}
    export DATABASE_URL ADMIN_TOKEN SECRETS_KEY CONTROL_TOKEN
    export LISTEN_ADDR=$BIND_HOST:$CONTROL_PORT GRPC_ADDR=$BIND_HOST:$CONTROL_GRPC_PORT OPS_ADDR=$BIND_HOST:$CONTROL_OPS_PORT
}

# A proxy never sees the database nor the admin's token.
proxy_settings() {
    local number=$1 port=$2 ops_port=$3
    unset DATABASE_URL DATABASE_DIRECT_URL ADMIN_TOKEN GRPC_ADDR KEY_REVEAL
    export SECRETS_KEY CONTROL_TOKEN REDIS_URL LOG_FORMAT=${LOG_FORMAT:-text}
    # A laptop does not wait ten minutes for a stream to end.
    export DRAIN_TIMEOUT=${DRAIN_TIMEOUT:-10s}
    export CONTROL_PLANE_GRPC=http://127.0.0.1:$CONTROL_GRPC_PORT PROXY_ID=proxy-$number DATA_DIR=$LOCAL/proxy-$number
    export LISTEN_ADDR=$BIND_HOST:$port OPS_ADDR=$BIND_HOST:$ops_port
    mkdir -p "$DATA_DIR" && chmod 700 "$DATA_DIR"
}

demo_settings() {
    unset DATABASE_URL DATABASE_DIRECT_URL REDIS_URL ADMIN_TOKEN SECRETS_KEY CONTROL_TOKEN GRPC_ADDR OPS_ADDR KEY_REVEAL
    export LISTEN_ADDR=127.0.0.1:$DEMO_PORT
}

check_ports() {
    need_port control-plane "$CONTROL_PORT" CONTROL_PORT
    need_port control-plane "$CONTROL_GRPC_PORT" CONTROL_GRPC_PORT
    need_port control-plane "$CONTROL_OPS_PORT" CONTROL_OPS_PORT
    need_port proxy-1 "$PROXY_PORT" PROXY_PORT
    need_port proxy-1 "$PROXY_OPS_PORT" PROXY_OPS_PORT
    need_port proxy-2 "$PROXY_2_PORT" PROXY_2_PORT
    need_port proxy-2 "$PROXY_2_OPS_PORT" PROXY_2_OPS_PORT
    need_port demo-upstream "$DEMO_PORT" DEMO_PORT
}

migrate() {
    say "Migrating the database"
    (control_settings && exec "$BIN/control-plane" migrate) >"$LOG/migrate.log" 2>&1 ||
        fail_with_log migrate "the database migration failed"
}

# keep_or_start NAME READY_URL PROGRAM [ARGS...]: a process that runs this binary with these settings and is well is
# left alone; anything else is replaced.
keep_or_start() {
    local name=$1 url=$2 STAMP
    shift 2
    STAMP=$(stamp_for "$1")
    if pid_of "$name" >/dev/null; then
        if [[ $(stamp_of "$name") != "$STAMP" ]]; then
            note "$name: new binary or settings, restarting"
        elif answers_soon "$url"; then
            note "$name runs already"
            return 0
        else
            warn "$name runs but is not ready: restarting it"
        fi
        stop_all "$STOP_SECONDS" "$name"
    fi
    start "$name" "$@"
}

answers_soon() {
    local try
    for ((try = 0; try < 25; try++)); do
        if http --fail --max-time 2 --output /dev/null "$1" 2>/dev/null; then return 0; fi
        sleep 0.2
    done
    return 1
}

start_products() {
    local demo=http://127.0.0.1:$DEMO_PORT/livez control=http://127.0.0.1:$CONTROL_OPS_PORT/readyz
    local proxy_1=http://127.0.0.1:$PROXY_OPS_PORT/readyz proxy_2=http://127.0.0.1:$PROXY_2_OPS_PORT/readyz
    say "Starting one control plane, two proxies and the demo upstream"
    (demo_settings && keep_or_start demo-upstream "$demo" "$BIN/demo-upstream")
    (control_settings && keep_or_start control-plane "$control" "$BIN/control-plane" serve)
    wait_ready demo-upstream "$demo"
    wait_ready control-plane "$control"
    (proxy_settings 1 "$PROXY_PORT" "$PROXY_OPS_PORT" && keep_or_start proxy-1 "$proxy_1" "$BIN/data-plane")
    (proxy_settings 2 "$PROXY_2_PORT" "$PROXY_2_OPS_PORT" && keep_or_start proxy-2 "$proxy_2" "$BIN/data-plane")
    wait_ready proxy-1 "$proxy_1"
    wait_ready proxy-2 "$proxy_2"
}
