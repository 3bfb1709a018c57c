#!/bin/bash
# Generates the messages beside the committed ones and compares.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
status=0

# compare DIR FRESH: the .pb.go files below both must be the same, and the same ones.
compare() {
    local f
    while read -r f; do
        if ! cmp -s "$1/$f" "$2/$f"; then
            echo "$1/$f is not what its generator makes: run 'make generate' and commit" >&2
            status=1
        fi
    done < <( { (cd "$2" && find . -name '*.pb.go'); (cd "$1" && find . -name '*.pb.go'); } | sort -u)
}

mkdir "$fresh/proto" "$fresh/wire"
./proto/generate.sh "$fresh/proto"
compare proto "$fresh/proto"
./client/internal/wire/generate.sh "$fresh/wire"
compare client/internal/wire "$fresh/wire"
exit $status
