#!/usr/bin/env bash
# Background processes: start, recognise, wait for, stop. Sourced after lib.sh.
# A pid file holds "pid birth stamp": birth tells our process from a later one that was given the same pid, stamp
# tells whether it runs the present binary with the present settings.

# When the process was born: its start tick on Linux, a date elsewhere. Empty: no such process (or a zombie).
birth_of() {
    local stat state
    if [[ -d /proc/self ]]; then
        stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
        stat=${stat##*) } # the name may hold spaces and brackets
        read -r -a state <<<"$stat"
        [[ ${state[0]} == Z ]] || printf '%s' "${state[19]}"
    else
        ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' '_' || true
    fi
}

# pid_of NAME: the pid of our live process of that name. A stale pid file is removed.
pid_of() {
    local file=$RUN/$1.pid pid birth
    [[ -r $file ]] || return 1
    read -r pid birth _ <"$file" || true
    if [[ -n ${pid-} && -n ${birth-} && $(birth_of "$pid") == "$birth" ]]; then
        printf '%s' "$pid"
    else
        rm -f "$file"
        return 1
    fi
}

stamp_of() {
    local stamp=''
    read -r _ _ stamp <"$RUN/$1.pid" 2>/dev/null || true
    printf '%s' "$stamp"
}

# stamp_for PROGRAM: its binary and every product setting that it would see.
stamp_for() {
    {
        ls -lL --time-style=full-iso "$1" 2>/dev/null || ls -lLT "$1"
        env | grep -E "^($(product_settings))=" | LC_ALL=C sort
    } | cksum | tr ' ' '-'
}

# start NAME PROGRAM [ARGS...]: in the background, apart from this terminal, with its own log. Exported variables are
# its settings: nothing secret stands on a command line.
start() {
    local name=$1 stamp=${STAMP:--} pid
    shift
    if [[ -s $LOG/$name.log ]]; then mv -f "$LOG/$name.log" "$LOG/$name.log.1"; fi
    (
        close_inherited
        if have setsid; then exec setsid "$@"; else exec nohup "$@"; fi
    ) </dev/null >"$LOG/$name.log" 2>&1 &
    pid=$!
    echo "$pid $(birth_of "$pid") $stamp" >"$RUN/$name.pid"
}

# Handles of make and of our caller must not live on in a process that stays.
close_inherited() {
    local fd
    for fd in 3 4 5 6 7 8 9 10 11 12; do eval "exec $fd>&-"; done 2>/dev/null
}

# wait_ready NAME URL: until it answers 2xx; dies with the end of its log when it does not.
wait_ready() {
    local name=$1 url=$2 deadline=$((SECONDS + READY_SECONDS))
    until http --fail --max-time 2 --output /dev/null "$url" 2>/dev/null; do
        pid_of "$name" >/dev/null || fail_with_log "$name" "$name stopped right after its start"
        ((SECONDS < deadline)) || fail_with_log "$name" "$name is not ready after $READY_SECONDS s" \
            "$url says: $(http --max-time 2 "$url" 2>&1 | head -c 300)"
        sleep 0.1
    done
}

# fail_with_log NAME MESSAGE [HINT...]
fail_with_log() {
    local name=$1
    shift
    printf '\n--- the end of .local/log/%s.log\n' "$name" >&2
    tail -n 25 "$LOG/$name.log" >&2 || true
    printf -- '---\n' >&2
    die "$@"
}

# stop_all SECONDS NAME...: all are asked at once, then waited for, then killed.
stop_all() {
    local seconds=$1 name pid deadline asked=''
    shift
    for name in "$@"; do
        pid=$(pid_of "$name") || continue
        kill -TERM "$pid" 2>/dev/null || true
        asked+=" $name"
    done
    deadline=$((SECONDS + seconds))
    for name in $asked; do
        pid=$(pid_of "$name" || true)
        while ((SECONDS < deadline)) && pid_of "$name" >/dev/null; do sleep 0.1; done
        if pid_of "$name" >/dev/null; then
            warn "$name (pid $pid) did not stop within $seconds s: killed"
            kill -KILL "$pid" 2>/dev/null || true
            while pid_of "$name" >/dev/null; do sleep 0.1; done
        fi
        note "stopped $name"
    done
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Who listens there, as far as this user may see.
port_owner() {
    if have ss; then
        ss -H -l -t -n -p "sport = :$1" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (pid \2)/p' | head -n 1
    elif have lsof; then
        lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fpc 2>/dev/null | sed -n 's/^p/pid /p; s/^c//p' | head -n 2 | paste -s -d ' ' -
    fi
}

# need_port NAME PORT VARIABLE: free, or held by our own process of that name.
need_port() {
    local name=$1 port=$2 variable=$3 owner
    if [[ ! $port =~ ^[0-9]{1,5}$ ]] || ((port == 0 || port > 65535)); then
        die "$variable must be a port number, not '$port'"
    fi
    if pid_of "$name" >/dev/null || ! port_taken "$port"; then return 0; fi
    owner=$(port_owner "$port")
    die "port $port, which $name needs, is taken${owner:+ by $owner}" \
        "Stop that process, or choose another port: $variable=$((port + 1000)) make up"
}

# free_port LAST: the port of the last time if it is free, else a random one below the range of outgoing connections.
free_port() {
    local port=${1-} try
    for ((try = 0; try < 50; try++)); do
        if [[ $port =~ ^[0-9]+$ ]] && ! port_taken "$port"; then
            printf '%s' "$port"
            return 0
        fi
        port=$((25000 + RANDOM % 7000))
    done
    die "found no free port between 25000 and 32000"
}
