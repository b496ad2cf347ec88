#!/usr/bin/env bash
# `make clean-data`: stop everything and forget it. Tools for the tests (.local/venv) and the build stay.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/down.sh"
# shellcheck source=/dev/null
. "$here/lib.sh"

main() {
    local outside
    if [[ -L $LOCAL/postgres ]]; then
        outside=$(readlink "$LOCAL/postgres")
        # Only what pg_make_home makes; a link that somebody else set is theirs.
        if [[ $outside == /var/lib/switchyard-local/* ]]; then rm -rf "$outside"; fi
    fi
    rm -rf "$LOCAL"/{postgres,redis,proxy-1,proxy-2,run,log,env,secrets,demo-providers-made}
    say "Data deleted"
}

main
