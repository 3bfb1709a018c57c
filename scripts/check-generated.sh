#!/bin/bash
# Generates the messages beside the committed ones and compares.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
./proto/generate.sh "$fresh"
status=0
while read -r f; do
    if ! cmp -s "proto/$f" "$fresh/$f"; then
        echo "proto/$f is not what proto/generate.sh makes: run 'make generate' and commit" >&2
        status=1
    fi
done < <( (cd "$fresh" && find . -name '*.pb.go'; cd "$OLDPWD/proto" && find . -name '*.pb.go') | sort -u)
exit $status
