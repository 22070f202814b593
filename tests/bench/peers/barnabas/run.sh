#!/bin/sh
# Runs a module of this folder with the repository's own Python, wherever the repository is.
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
module=$1
shift
export PYTHONPATH="$root:$PYTHONPATH"
exec "${PEER_PYTHON:-$root/.venv/bin/python}" -m "tests.bench.peers.barnabas.$module" "$@"
