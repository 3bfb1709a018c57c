#!/bin/bash
# Runs every fuzz target of the module for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
git grep -l '^func Fuzz' -- '*_test.go' | while read -r f; do
    dir=./$(dirname "$f")
    sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$f" | while read -r target; do
        echo "== $dir $target"
        go test -run '^$' -fuzz "^$target\$" -fuzzminimizetime 10x -fuzztime "$1" "$dir"
    done
done
