#!/usr/bin/env bash
# `make status`: what runs, and whether it is ready. Fails unless everything is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib settings process postgres; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

whole=0

# line NAME PID URL: an empty pid means not running, an empty URL that running is all there is to know.
line() {
    local state='not running'
    if [[ -n $2 ]]; then
        state="pid $2"
        if [[ -n $3 ]] && ! http --fail --max-time 2 --output /dev/null "$3" 2>/dev/null; then state+=', NOT READY'; fi
    fi
    [[ $state != *'not running' && $state != *'NOT READY' ]] || whole=1
    printf '%-15s %s\n' "$1" "$state"
}

line postgres "$(pg_pid || true)" ''
line redis "$(pid_of redis || true)" ''
line control-plane "$(pid_of control-plane || true)" "http://127.0.0.1:$CONTROL_OPS_PORT/readyz"
line proxy-1 "$(pid_of proxy-1 || true)" "http://127.0.0.1:$PROXY_OPS_PORT/readyz"
line proxy-2 "$(pid_of proxy-2 || true)" "http://127.0.0.1:$PROXY_2_OPS_PORT/readyz"
line demo-upstream "$(pid_of demo-upstream || true)" "http://127.0.0.1:$DEMO_PORT/livez"
exit $whole
