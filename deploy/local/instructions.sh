#!/usr/bin/env bash
# What `make up` prints at the end: addresses and settings to paste. Sourced.

print_instructions() {
    print_addresses
    print_clients
    print_real_provider
}

print_addresses() {
    cat <<END

Switchyard is up.

  Control plane   $CONTROL_PLANE_URL   (API reference: $CONTROL_PLANE_URL/api/actions/openapi.json)
  Proxies         $PROXY_URL   $PROXY_URL_2
  Demo upstream   $DEMO_UPSTREAM_URL
  Admin token     $ADMIN_TOKEN
  Client key      $CLIENT_KEY

  Logs in .local/log, shell variables in .local/env; stop with: make down
END
}

print_clients() {
    cat <<END

Claude Code
  export ANTHROPIC_BASE_URL=$PROXY_URL
  export ANTHROPIC_AUTH_TOKEN=$CLIENT_KEY

Codex: export SWITCHYARD_KEY=$CLIENT_KEY and in ~/.codex/config.toml
  model_provider = "switchyard"
  [model_providers.switchyard]
  name = "Switchyard"
  base_url = "$PROXY_URL/v1"
  wire_api = "responses"
  env_key = "SWITCHYARD_KEY"

OpenAI SDK
  OpenAI(base_url="$PROXY_URL/v1", api_key="$CLIENT_KEY")

Anthropic SDK
  Anthropic(base_url="$PROXY_URL", api_key="$CLIENT_KEY")

curl
  curl -N $PROXY_URL/v1/messages -H 'Authorization: Bearer $CLIENT_KEY' \\
    -H 'Content-Type: application/json' -H 'anthropic-version: 2023-06-01' \\
    -d '{"model":"$DEMO_MODEL","max_tokens":200,"stream":true,"messages":[{"role":"user","content":"Hello"}]}'
END
}

print_real_provider() {
    local ids
    cat <<END

Add a real provider (types: claude, codex, openai-compatible)
  curl $CONTROL_PLANE_URL/api/actions/providers/addProvider -H 'Authorization: Bearer $ADMIN_TOKEN' \\
    -H 'Content-Type: application/json' -d '{"name":"anthropic","type":"claude","baseUrl":"https://api.anthropic.com","apiKey":"YOUR-UPSTREAM-KEY","weight":1,"priority":0,"isEnabled":true}'
END
    ids=$(demo_provider_ids)
    [[ -n $ids ]] || return 0
    cat <<END
and switch the demo providers off, so that nobody ever gets a made-up answer
  for id in $ids; do
    curl $CONTROL_PLANE_URL/api/actions/providers/editProvider -H 'Authorization: Bearer $ADMIN_TOKEN' \\
      -H 'Content-Type: application/json' -d '{"providerId":'\$id',"isEnabled":false}'
  done
END
}
