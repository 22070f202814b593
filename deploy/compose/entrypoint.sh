#!/bin/sh
# Settings that come as files: a file /run/barnabas/<anything>/BARNABAS_X is the value of BARNABAS_X.
#
# That is how the logins that `setup` makes reach a service without being written down anywhere else. What the
# environment sets already is left alone, so a service with a Postgres of its own needs none of this.
set -eu

for file in "${SETTINGS_FILES:-/run/barnabas}"/*/BARNABAS_*; do
    [ -f "$file" ] || continue
    name=${file##*/}
    if [ -z "$(printenv "$name" || true)" ]; then
        export "$name=$(cat "$file")"
    fi
done

exec "$@"
