#!/bin/bash
# Tests the binaries of bin/ with real shims, OCI runtimes and peers. Packages and tests run in parallel, each with a
# daemon of its own. Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")/../integration"
# Containers' users of any id run the binaries, which the folder of the tree may not let them reach.
CLEAT_BINARIES=$(mktemp -d)
export CLEAT_BINARIES
trap 'rm -rf "$CLEAT_BINARIES"' EXIT
chmod 711 "$CLEAT_BINARIES"
cp ../bin/* "$CLEAT_BINARIES"
go test -count=1 -timeout 60m -p 2 -parallel 2 "$@" ./...
./goclient/test.sh "$@"
