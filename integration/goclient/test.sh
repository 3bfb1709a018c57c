#!/bin/bash
# Tests cleatd with containerd's own Go client: that of containerd 2, and that of the 1.7 line, for
# which the files that do not begin with "two_" get its import paths (what begins with "one_" is its own). Arguments go to `go test`.
set -euo pipefail
cd "$(dirname "$0")"
find v1 -name '*_test.go' ! -name 'one_*' -delete
for f in v2/*_test.go; do
	case $(basename "$f") in two_*) continue ;; esac
	{
		echo "// Code generated from ../$f by test.sh; DO NOT EDIT."
		sed -e 's,"github.com/containerd/containerd/v2/client","github.com/containerd/containerd",' \
			-e 's,"github.com/containerd/containerd/v2/\(core\|pkg\)/,"github.com/containerd/containerd/,' "$f"
	} > "v1/$(basename "$f")"
done
gofmt -w v1
for line in v2 v1; do
	(cd $line && go vet ./... && go test -count=1 -timeout 10m "$@" ./...)
done
