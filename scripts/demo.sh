#!/bin/bash
# The main job, step by step: `make run`. Everything it makes is in a directory of its own, which
# is removed at the end with whatever still runs in it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "cleat needs root: sudo make run" >&2; exit 1; }

base=$(mktemp -d /tmp/cleat-demo.XXXXXX)
export CLEAT_ADDRESS=$base/state/cleat.sock
bin=$PWD/bin
daemon=

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { echo "demo failed: $*" >&2; [ ! -s "$base/cleatd.log" ] || sed 's/^/  cleatd: /' "$base/cleatd.log" >&2; exit 1; }

start_daemon() {
    "$bin/cleatd" --root "$base/root" --state "$base/state" --address "$CLEAT_ADDRESS" >> "$base/cleatd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        "$bin/cleat" version > /dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || fail "cleatd ended"
        sleep 0.05
    done
    fail "cleatd does not answer"
}

finish() {
    status=$?
    set +e
    if [ -n "$daemon" ]; then
        kill -0 "$daemon" 2>/dev/null || start_daemon
        for id in $("$bin/cleat" ps --all --quiet 2>/dev/null); do "$bin/cleat" rm --force "$id" > /dev/null; done
        kill -TERM "$daemon" 2>/dev/null
        wait "$daemon" 2>/dev/null
    fi
    rm -rf "$base"
    exit $status
}
trap finish EXIT

say "Building a busybox image with umoci"
umoci init --layout "$base/oci" && umoci new --image "$base/oci:busybox" && umoci unpack --image "$base/oci:busybox" "$base/bundle" > /dev/null 2>&1
mkdir -p "$base"/bundle/rootfs/{bin,etc,proc,dev,sys,tmp}
install -m 0755 /bin/busybox "$base/bundle/rootfs/bin/busybox"
for applet in sh echo sleep cat ps; do ln -s busybox "$base/bundle/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/:/bin/sh' > "$base/bundle/rootfs/etc/passwd"
umoci repack --image "$base/oci:busybox" "$base/bundle" > /dev/null 2>&1
umoci config --image "$base/oci:busybox" --config.env PATH=/bin --config.cmd /bin/sh
tar -C "$base/oci" -cf "$base/busybox.tar" .

say "Starting cleatd in $base"
start_daemon

say "Importing the image: $("$bin/cleat" image import --name busybox "$base/busybox.tar")"

say "Running 'echo' in a container; it says:"
said=$("$bin/cleat" run --rm busybox echo "hello from a container")
[ "$said" = "hello from a container" ] || fail "the container said '$said'"
echo "    $said"

say "Starting a long-running container named 'web'"
"$bin/cleat" run --detach --name web busybox sh -c 'trap "exit 42" TERM; while :; do sleep 0.1; done' > /dev/null
pid=$("$bin/cleat" ps --format json | tr -d ' ",' | sed -n 's/^pid://p')
[ -n "$pid" ] && kill -0 "$pid" || fail "the container does not run"

say "Killing cleatd (pid $daemon) with SIGKILL"
{ kill -KILL "$daemon"; wait "$daemon" || true; } 2>/dev/null
kill -0 "$pid" 2>/dev/null || fail "the container died with the daemon"
say "The daemon is gone; the container still runs (pid $pid)"

start_daemon
say "Started cleatd again (pid $daemon); its containers:"
"$bin/cleat" ps | sed 's/^/    /'

say "Running a command in the same container; it says:"
said=$("$bin/cleat" exec web echo "still here")
[ "$said" = "still here" ] || fail "exec said '$said'"
echo "    $said"

say "Stopping it"
"$bin/cleat" stop web > /dev/null
code=$("$bin/cleat" wait web)
[ "$code" = 42 ] || fail "the exit code is $code, not the 42 that the container chose"
say "Its true exit code: $code"

say "Cleaning up"
"$bin/cleat" rm web > /dev/null
say "Done: the container outlived its daemon"
