#!/bin/bash
# Every check that needs no run of the product. golangci-lint runs at a pinned version through `go run`; its
# configuration is .golangci.yml for every module.
set -uo pipefail
cd "$(dirname "$0")/.."
golangci=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
status=0

# lint DIR ARGS...: the linters and formatters in a directory.
lint() {
	local dir=$1
	shift
	(cd "$dir" && go run "$golangci" run "$@") || { echo "lint: golangci-lint in $dir" >&2; status=1; }
}

lint . ./...
lint cmd/cleat --build-tags docgen .
for dir in integration integration/harness integration/goclient/v2 bench; do
	lint "$dir" ./...
done
go run ./internal/lint || { echo "lint: rules of the repository" >&2; status=1; }
exit $status
