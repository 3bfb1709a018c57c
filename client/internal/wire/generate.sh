#!/bin/sh
# Generates the .pb.go files, or the same below the directory given; as proto/generate.sh does.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
go build -o "$tools/protoc-gen-cleat" ../../../proto/internal/protoc-gen-cleat
protoc --plugin="$tools/protoc-gen-cleat" -I . -I ../../../proto --cleat_out="paths=source_relative:$out" services.proto events.proto
