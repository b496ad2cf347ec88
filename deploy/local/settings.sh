#!/usr/bin/env bash
# What `make up` can be told by the environment, and the secrets that it makes once. Sourced after lib.sh.
# shellcheck disable=SC2034 # these names are read by the scripts that source this file

BIND_HOST=${BIND_HOST:-127.0.0.1}
CONTROL_PORT=${CONTROL_PORT:-23000}
CONTROL_GRPC_PORT=${CONTROL_GRPC_PORT:-23001}
CONTROL_OPS_PORT=${CONTROL_OPS_PORT:-23002}
PROXY_PORT=${PROXY_PORT:-8080}
PROXY_OPS_PORT=${PROXY_OPS_PORT:-8081}
PROXY_2_PORT=${PROXY_2_PORT:-8082}
PROXY_2_OPS_PORT=${PROXY_2_OPS_PORT:-8083}
DEMO_PORT=${DEMO_PORT:-8090}
READY_SECONDS=${READY_SECONDS:-60}
# Longer than the products give themselves (SHUTDOWN_SECONDS; DRAIN_TIMEOUT as products.sh sets it).
STOP_SECONDS=${STOP_SECONDS:-25}

# The addresses under which this machine reaches what it started.
CONTROL_PLANE_URL=http://127.0.0.1:$CONTROL_PORT
PROXY_URL=http://127.0.0.1:$PROXY_PORT
PROXY_URL_2=http://127.0.0.1:$PROXY_2_PORT
DEMO_UPSTREAM_URL=http://127.0.0.1:$DEMO_PORT

# Every environment variable passes through to the products. Those that they read, by their own sources, and those that
# we set: a changed value restarts the process at the next `make up`.
product_settings() {
    {
        printf '%s\n' LISTEN_ADDR 'OTEL_[A-Z_]*' RUST_LOG RUST_BACKTRACE
        grep -rhoE '"[A-Z][A-Z0-9_]{3,}"' "$ROOT"/control-plane/src/config* "$ROOT"/data-plane/src/config* | tr -d '"'
    } | sort -u | paste -s -d '|' -
}

# choose_secret NAME BYTES: the environment, else what an earlier run saved, else something new.
choose_secret() {
    local name=$1 bytes=$2 old
    old=$(saved "$SECRETS_FILE" "$name")
    if [[ -z ${!name-} ]]; then
        printf -v "$name" '%s' "${old:-$(random_hex "$bytes")}"
    fi
}

check_secrets() {
    local old
    [[ $SECRETS_KEY =~ ^[0-9a-fA-F]{64}$ ]] || die "SECRETS_KEY must be 64 hexadecimal digits (32 bytes)" \
        "Unset it and make up makes one, or use: openssl rand -hex 32"
    old=$(saved "$SECRETS_FILE" SECRETS_KEY)
    [[ -z $old || $old == "$SECRETS_KEY" ]] || die "SECRETS_KEY differs from the one that sealed the data under .local/" \
        "Unset it to go on with that data, or start afresh with: make clean-data"
}

load_secrets() {
    choose_secret ADMIN_TOKEN 24
    choose_secret SECRETS_KEY 32
    choose_secret CONTROL_TOKEN 24
    choose_secret POSTGRES_PASSWORD 16
    choose_secret REDIS_PASSWORD 16
    choose_secret DEMO_CREDENTIAL 16
    check_secrets
    write_assignments "$SECRETS_FILE" \
        ADMIN_TOKEN SECRETS_KEY CONTROL_TOKEN POSTGRES_PASSWORD REDIS_PASSWORD DEMO_CREDENTIAL
}

# A shell that has read .local/env hands us our own addresses back: they are not a wish for an outside server.
forget_own_urls() {
    if [[ -n ${DATABASE_URL-} && -d $LOCAL/postgres && $DATABASE_URL == *"$POSTGRES_PASSWORD"* ]]; then unset DATABASE_URL; fi
    if [[ -n ${REDIS_URL-} && -d $LOCAL/redis && $REDIS_URL == *"$REDIS_PASSWORD"* ]]; then unset REDIS_URL; fi
}

# write_assignments FILE NAME...: shell assignments that only the owner can read.
write_assignments() {
    local file=$1 name
    shift
    (
        umask 077
        for name in "$@"; do printf '%s=%q\n' "$name" "${!name-}"; done >"$file.new"
    )
    mv -f "$file.new" "$file"
}

write_env_file() {
    write_assignments "$ENV_FILE" CONTROL_PLANE_URL PROXY_URL PROXY_URL_2 ADMIN_TOKEN CLIENT_KEY \
        DATABASE_URL REDIS_URL DEMO_UPSTREAM_URL
}
