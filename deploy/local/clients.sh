#!/usr/bin/env bash
# `make clients`: client code from the running control plane's OpenAPI document, by the generator and for the languages
# that the documentation names. TypeScript and Python are compiled and used: log in, make a user, list it. What was made
# stays under .local/clients/. Needs `make up`, Java and Node.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in lib packages; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

OUT=$LOCAL/clients
# The generator says this two things of every document of version 3.1, whatever is in it.
INHERENT='OpenAPI 3.1 support is still in beta|Failed to get the schema name: null'

need_client_packages() {
    local -a missing=()
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    have java || missing+=(default-jre-headless)
    have node || missing+=(nodejs)
    have npm || missing+=(npm)
    install_packages ${missing[@]+"${missing[@]}"}
}

pip_quietly() {
    "$OUT/venv/bin/python" -m pip --disable-pip-version-check install --quiet "$@" >>"$LOG/clients-pip.log" 2>&1
}

ensure_generator() {
    local stamp
    stamp=$(cksum <"$here/clients/requirements.txt")
    if [[ $(cat "$OUT/venv/stamp" 2>/dev/null) != "$stamp" ]]; then
        say "Installing the generator into .local/clients/venv"
        rm -rf "$OUT/venv"
        python3 -m venv "$OUT/venv"
        pip_quietly -r "$here/clients/requirements.txt" ||
            die "the generator could not be installed" "See .local/log/clients-pip.log"
        printf '%s' "$stamp" >"$OUT/venv/stamp"
    fi
    JAR=$("$OUT/venv/bin/python" -c 'import openapi_generator_cli, pathlib; print(next(pathlib.Path(openapi_generator_cli.__file__).parent.glob("*.jar")))')
}

# generate LANGUAGE FOLDER: fails on any warning but those that every document gets.
generate() {
    local log=$LOG/clients-$1.log
    rm -rf "${OUT:?}/$2"
    java -jar "$JAR" generate -i "$OUT/openapi.json" -g "$1" -o "$OUT/$2" >"$log" 2>&1 ||
        die "the generator failed for $1" "See .local/log/clients-$1.log"
    if grep -E 'WARN|ERROR' "$log" | grep -vE "$INHERENT" >&2; then
        die "the generator warned about the document for $1" "The whole log: .local/log/clients-$1.log"
    fi
    note "$1: .local/clients/$2"
}

try_typescript() {
    cp "$here"/clients/{package.json,tsconfig.json,try.ts} "$OUT/typescript/"
    cd "$OUT/typescript"
    npm install --no-audit --no-fund --silent >"$LOG/clients-npm.log" 2>&1 ||
        die "TypeScript could not be installed" "See .local/log/clients-npm.log"
    npx tsc -p . || die "the TypeScript client does not compile"
    node built/try.js || die "the TypeScript client does not work"
}

try_python() {
    # Made anew each time under the same version: first the client itself, then what it needs.
    if ! { pip_quietly --force-reinstall --no-deps "$OUT/python" && pip_quietly "$OUT/python"; }; then
        die "the Python client could not be installed" "See .local/log/clients-pip.log"
    fi
    "$OUT/venv/bin/python" -m compileall -q "$OUT/python/openapi_client" || die "the Python client does not compile"
    "$OUT/venv/bin/python" "$here/clients/try.py" || die "the Python client does not work"
}

main() {
    make_local_dirs
    mkdir -p "$OUT"
    [[ -r $ENV_FILE ]] || die "nothing runs here yet" "Start it with: make up"
    # shellcheck source=/dev/null
    set -a && . "$ENV_FILE" && set +a
    http --fail --output "$OUT/openapi.json" "$CONTROL_PLANE_URL/api/actions/openapi.json" ||
        die "the control plane does not answer at $CONTROL_PLANE_URL" "Start it with: make up"
    need_client_packages
    ensure_generator
    say "Generating"
    generate typescript-fetch typescript/generated
    generate python python
    generate go go
    say "Using them"
    (try_typescript)
    try_python
}

main "$@"
