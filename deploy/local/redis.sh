#!/usr/bin/env bash
# A private Redis (or Valkey) under .local/redis: counters and sessions only, nothing on disk. Sourced after process.sh.

REDIS_HOME=$LOCAL/redis

# One inline command over the shell's own TCP: needs no client program.
redis_answers() {
    local port=$1 answer=''
    {
        exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
        printf 'AUTH %s\r\nPING\r\n' "$REDIS_PASSWORD" >&3
        read -r -t 2 answer <&3 && read -r -t 2 answer <&3 || true
        exec 3>&-
    } 2>/dev/null
    [[ $answer == +PONG* ]]
}

redis_configure() {
    (
        umask 077
        {
            echo "bind 127.0.0.1"
            echo "port $1"
            echo "requirepass $REDIS_PASSWORD"
            echo "dir \"$REDIS_HOME\""
            echo 'save ""'
            echo "appendonly no"
            echo "maxmemory-policy noeviction" # a counter that is evicted would let a limited key through
        } >"$REDIS_HOME/redis.conf"
    )
}

start_redis() {
    if [[ -n ${REDIS_URL-} ]]; then
        note "Redis: the one that REDIS_URL names"
        return 0
    fi
    local port deadline=$((SECONDS + READY_SECONDS))
    mkdir -p "$REDIS_HOME"
    port=$(sed -n 's/^port //p' "$REDIS_HOME/redis.conf" 2>/dev/null || true)
    if pid_of redis >/dev/null && ! redis_answers "$port"; then
        warn "Redis runs but does not answer: restarting it"
        stop_all 5 redis
    fi
    if ! pid_of redis >/dev/null; then
        port=$(free_port "$port")
        redis_configure "$port"
        start redis "$(redis_server)" "$REDIS_HOME/redis.conf"
        until redis_answers "$port"; do
            pid_of redis >/dev/null || fail_with_log redis "Redis stopped right after its start"
            ((SECONDS < deadline)) || fail_with_log redis "Redis does not answer"
            sleep 0.05
        done
    fi
    REDIS_URL=redis://:$REDIS_PASSWORD@127.0.0.1:$port/0
    note "Redis on 127.0.0.1:$port"
}
