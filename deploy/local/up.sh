#!/usr/bin/env bash
# `make up`: from a bare machine to a running system with a first answered request. Safe to run again at any time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib settings packages process postgres redis products demo instructions; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

# Before the long build, and before anything is started.
check_database_url() {
    [[ -z ${DATABASE_URL-} || $DATABASE_URL == postgres://* || $DATABASE_URL == postgresql://* ]] ||
        die "DATABASE_URL must begin with postgres://" "Or unset it, and make up starts a Postgres of its own."
}

interrupted() {
    trap - INT TERM
    die "interrupted" "What was started still runs; stop it with: make down"
}

main() {
    trap interrupted INT TERM
    check_database_url
    make_local_dirs
    take_lock
    need_toolchain
    need_up_packages
    load_secrets
    forget_own_urls
    check_ports
    say "Starting Postgres and Redis"
    start_postgres
    start_redis
    build
    migrate
    start_products
    ensure_client_key
    write_env_file
    ensure_demo_providers
    first_request
    print_instructions
}

main
