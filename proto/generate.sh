#!/bin/sh
# Generates the Go messages next to every .proto below this folder, with the plug-in and the
# gogo/protobuf version that go.mod pins. Needs protoc (Debian: protobuf-compiler).
set -eu
cd "$(dirname "$0")"
out=${1:-.}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
go build -o "$tools/protoc-gen-cleat" ./internal/protoc-gen-cleat
for f in $(find . -name '*.proto' | sort); do
    protoc --plugin="$tools/protoc-gen-cleat" -I . --cleat_out="paths=source_relative:$out" "${f#./}"
done
