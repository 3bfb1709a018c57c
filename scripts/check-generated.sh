#!/bin/bash
# Generates the messages and the reference of the command line into a temporary directory, and compares them with the
# committed files.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
status=0

# compare DIR FRESH PATTERN: the files of that name below both directories must be the same.
compare() {
    local f
    while read -r f; do
        if ! cmp -s "$1/$f" "$2/$f"; then
            echo "$1/$f is not what its generator makes: run 'make generate' and commit" >&2
            status=1
        fi
    done < <( { (cd "$2" && find . -name "$3"); (cd "$1" && find . -name "$3"); } | sort -u)
}

mkdir "$fresh/proto" "$fresh/wire" "$fresh/records" "$fresh/cli" "$fresh/man"
./proto/generate.sh "$fresh/proto"
compare proto "$fresh/proto" '*.pb.go'
./client/internal/wire/generate.sh "$fresh/wire"
compare client/internal/wire "$fresh/wire" '*.pb.go'
./metadata/internal/records/generate.sh "$fresh/records"
compare metadata/internal/records "$fresh/records" '*.pb.go'
go run -tags docgen ./cmd/cleat markdown "$fresh/cli"
compare docs/cli "$fresh/cli" '*.md'
go run -tags docgen ./cmd/cleat man "$fresh/man" # is not committed, but must be generated
exit $status
