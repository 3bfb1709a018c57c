#!/bin/bash
# Prepares the kernel in which tests run that need one of their own (internal/guest): user-mode Linux is
# installed as a package. On processors with AMX it does not work: the register state is larger than it
# can hold. There, Debian's cloud kernel is put into .guest/, without installing it, and boots in qemu.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -q -w amx_tile /proc/cpuinfo || exit 0
./scripts/deps.sh qemu-system-x86 kmod
[ -e .guest/vmlinuz ] && exit 0
package() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1; }
[ -n "$(package)" ] || apt-get update -qq
name=$(package)
[ -n "$name" ] || { echo "no kernel package found" >&2; exit 1; }
echo "unpacking $name into .guest/"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$name" && dpkg-deb -x ./*.deb root) || {
    apt-get update -qq
    (cd "$tmp" && rm -rf ./*.deb root && apt-get -o APT::Sandbox::User=root download -qq "$(package)" && dpkg-deb -x ./*.deb root)
}
release=$(ls "$tmp/root/lib/modules")
depmod -b "$tmp/root" "$release"
rm -rf .guest
mkdir -p .guest
cp -r "$tmp/root/lib" .guest/lib
echo "$release" > .guest/release
cp "$tmp"/root/boot/vmlinuz-* .guest/vmlinuz
