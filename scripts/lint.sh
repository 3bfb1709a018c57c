#!/bin/bash
# Every check that needs no run of the product. Tools run at pinned versions through `go run`.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
fail() { echo "lint: $*" >&2; status=1; }

unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || fail "not gofmt-ed: $unformatted"
go vet ./... || fail "go vet"
go vet -tags docgen ./cmd/cleat || fail "go vet of the generator"
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./... || fail "staticcheck"
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags docgen ./cmd/cleat || fail "staticcheck of the generator"
go run ./internal/lint || fail "house rules"
for dir in integration integration/harness integration/goclient/v2; do
	(cd $dir && go vet ./... && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...) || fail "$dir"
done
(cd bench && go vet ./... && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...) || fail "bench"
exit $status
