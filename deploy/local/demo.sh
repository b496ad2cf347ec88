#!/usr/bin/env bash
# The first user, key and providers, made through the public admin API, and the first request. Sourced.

DEMO_MODEL=claude-haiku-5-5
DEMO_PROVIDERS_MADE=$LOCAL/demo-providers-made

bearer() { printf 'header = "Authorization: Bearer %s"\n' "$1"; }

# api MODULE/ACTION JSON: calls the actions API as admin and prints `data`.
api() {
    local answer
    answer=$(http --config <(bearer "$ADMIN_TOKEN") -H 'Content-Type: application/json' --data-binary "$2" \
        "$CONTROL_PLANE_URL/api/actions/$1" 2>&1) || die "the admin API does not answer $1: $answer"
    jq -e '.ok == true' >/dev/null 2>&1 <<<"$answer" || die "the admin API refused $1" "It said: ${answer:0:400}"
    jq -c .data <<<"$answer"
}

key_status() {
    http --config <(bearer "$1") --output /dev/null --write-out '%{http_code}' "$PROXY_URL/v1/models" 2>/dev/null || true
}

# The key of the last time, if it still works; else a new key of the user `demo`.
ensure_client_key() {
    local users user key try
    CLIENT_KEY=$(saved "$ENV_FILE" CLIENT_KEY)
    if [[ -n $CLIENT_KEY && $(key_status "$CLIENT_KEY") == 200 ]]; then return 0; fi
    say "Creating a user and a key"
    users=$(api users/getUsers '{}')
    user=$(jq -r 'first(.[] | select(.name == "demo") | .id) // empty' <<<"$users")
    if [[ -z $user ]]; then
        user=$(api users/addUser '{"name":"demo","description":"made by make up"}')
        user=$(jq -r '.id // .user.id' <<<"$user")
    fi
    key=$(api keys/addKey "{\"userId\":$user,\"name\":\"make up $(date -u +%Y-%m-%d\ %H:%M:%S)\"}")
    CLIENT_KEY=$(jq -r '.generatedKey // .key' <<<"$key")
    # Few tries: a proxy blocks an address that presents many unknown keys.
    for try in 0.2 0.5 1 2 4; do
        sleep "$try"
        if [[ $(key_status "$CLIENT_KEY") == 200 ]]; then return 0; fi
    done
    die "the proxy at $PROXY_URL does not accept the new key (HTTP $(key_status "$CLIENT_KEY"))" \
        "Its log: .local/log/proxy-1.log; what the proxies hold: GET $CONTROL_PLANE_URL/api/fleet"
}

# One demo provider for each kind of client. Made once: who deletes them does not get them back.
ensure_demo_providers() {
    local providers
    providers=$(api providers/getProviders '{}')
    ensure_demo_provider "$providers" demo-claude claude "$DEMO_UPSTREAM_URL"
    ensure_demo_provider "$providers" demo-codex codex "$DEMO_UPSTREAM_URL/v1"
    ensure_demo_provider "$providers" demo-openai openai-compatible "$DEMO_UPSTREAM_URL/v1"
    touch "$DEMO_PROVIDERS_MADE"
}

ensure_demo_provider() {
    local id url
    id=$(jq -r --arg name "$2" 'first(.[] | select(.name == $name) | .id) // empty' <<<"$1")
    if [[ -z $id ]]; then
        [[ ! -e $DEMO_PROVIDERS_MADE ]] || return 0
        note "provider $2 ($3)"
        api providers/addProvider "$(jq -nc --arg name "$2" --arg type "$3" --arg url "$4" --arg key "$DEMO_CREDENTIAL" \
            '{name: $name, type: $type, baseUrl: $url, apiKey: $key, weight: 1, priority: 100, isEnabled: true}')" >/dev/null
        return 0
    fi
    url=$(jq -r --argjson id "$id" '.[] | select(.id == $id) | .url // .baseUrl' <<<"$1")
    if [[ ${url%/} != "$4" ]]; then
        note "provider $2 moves to $4"
        api providers/editProvider "{\"providerId\":$id,\"baseUrl\":\"$4\"}" >/dev/null
    fi
}

# The ids of the demo providers, for the instructions.
demo_provider_ids() {
    api providers/getProviders '{}' | jq -r '[.[] | select(.name | startswith("demo-")) | .id | tostring] | join(" ")'
}

# A real provider costs money: then no request is sent without being asked for.
only_demo_serves() {
    api providers/getProviders '{}' |
        jq -e '[.[] | select(.isEnabled) | .name] | index("demo-claude") != null and all(startswith("demo-"))' >/dev/null
}

usage_total() { api usage-logs/getUsageLogs '{"limit":1}' | jq -r .total; }

first_request() {
    if ! only_demo_serves; then
        note "Your own providers are in use: no request sent, since it might cost money"
        return 0
    fi
    say "Sending a streaming request through the first proxy"
    local before answer status
    before=$(usage_total)
    answer=$(ask_demo) || die "the proxy at $PROXY_URL cut the request" "Its log: .local/log/proxy-1.log"
    status=${answer##*$'\n'}
    [[ $status == 200 ]] || die "the proxy answered $status" "${answer:0:400}" "Its log: .local/log/proxy-1.log"
    note "answer: $(answer_text <<<"$answer")"
    show_usage "$before"
}

ask_demo() {
    local body
    body=$(jq -nc --arg model "$DEMO_MODEL" '{model: $model, max_tokens: 256, stream: true,
        messages: [{role: "user", content: "Say hello to the people at the switchyard."}]}')
    http --no-buffer --max-time 60 --config <(bearer "$CLIENT_KEY") -H 'Content-Type: application/json' \
        -H 'anthropic-version: 2023-06-01' --data-binary "$body" --write-out '\n%{http_code}' "$PROXY_URL/v1/messages"
}

answer_text() {
    sed -n 's/^data: *//p' | jq -Rrj 'fromjson? | select(.type == "content_block_delta") | .delta.text // empty'
}

# The usage record arrives by way of the proxy's spool: within a second or two.
show_usage() {
    local deadline=$((SECONDS + 20)) row
    until (($(usage_total) > $1)); do
        ((SECONDS < deadline)) || die "no usage record arrived within 20 s" "Logs: .local/log/proxy-1.log, .local/log/control-plane.log"
        sleep 0.2
    done
    row=$(api usage-logs/getUsageLogs '{"limit":1}' | jq -c '.logs[0]')
    note "usage:  $(jq -r '"\(.model) through \(.providerName): \(.inputTokens) input and \(.outputTokens) output tokens in \(.durationMs) ms" +
        if .costUsd == null then ", no price known" else " = $\(.costUsd)" end' <<<"$row")"
}
