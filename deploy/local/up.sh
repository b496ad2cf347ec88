#!/usr/bin/env bash
# `make up`: from a bare machine to a running system with a first answered request. Safe to run again at any time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib settings packages process postgres redis products demo instructions; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

main() {
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
