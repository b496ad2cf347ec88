#!/usr/bin/env bash
# `make down`: stop what `make up` started, those who use before those who are used. Data stays.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib settings packages process postgres; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

main() {
    if [[ ! -d $RUN ]]; then
        say "Nothing runs"
        return 0
    fi
    make_local_dirs
    take_lock
    say "Stopping"
    stop_all "$STOP_SECONDS" proxy-1 proxy-2
    stop_all "$STOP_SECONDS" control-plane demo-upstream
    stop_all 5 redis
    stop_postgres
    say "Stopped; the data stays under .local/"
}

main
