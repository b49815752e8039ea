#!/usr/bin/env bash
# Boots Debian's own kernel in a virtual machine and runs guest.sh there: Open vSwitch's kernel
# datapath and the kernel's own IPv4-in-IPv6 tunnels, neither of which every machine's kernel has.
# The guest sees this machine's root file system, read-only, below a RAM disk: what it writes is
# gone at its end. The kernel is only unpacked, into build/kernel-rig.
#
# Arguments are the parts to run: demo, conformance; without any, both.
#
#   ACCEL=kvm  uses the machine's virtualisation; the default, tcg, works everywhere, 10 times slower
#   LIMIT=900  is how many seconds it may take
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PARTS=("$@")
ACCEL=${ACCEL:-tcg}
LIMIT=${LIMIT:-900}
# Of the features that a newer processor has, many are slow to emulate.
CPU=$([[ $ACCEL == tcg ]] && echo Nehalem || echo host)
RIG=$PWD/build/kernel-rig
LOG=$RIG/setup.log
PACKAGES=(qemu-system-x86 busybox-static kmod)
# What it takes to mount the root file system; everything else the guest loads itself.
MODULES=(virtio_pci 9pnet_virtio 9p overlay)

die() { printf 'kernel rig: %s\n' "$*" >&2; exit 1; }

quietly() {
    "$@" >>"$LOG" 2>&1 || { tail -n 20 "$LOG" >&2; die "this failed: $*"; }
}

install_packages() {
    local package missing=()
    for package in "${PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    printf '   system packages: %s\n' "${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q update
    quietly apt-get -qy -o DPkg::Lock::Timeout=600 --no-install-recommends install "${missing[@]}"
}

unpack_kernel() {
    local package
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
    [[ -n $package ]] || die "apt knows no linux-image-amd64"
    version=${package#linux-image-}
    [[ -e $RIG/kernel/boot/vmlinuz-$version ]] && return
    printf '   kernel %s\n' "$version"
    rm -rf "$RIG/kernel" "$RIG/deb"
    mkdir -p "$RIG/deb"
    (cd "$RIG/deb" && quietly apt-get -q download "$package")
    quietly dpkg -x "$RIG"/deb/*.deb "$RIG/kernel"
    rm -rf "$RIG/deb"
    quietly depmod -b "$RIG/kernel" "$version"
}

make_initrd() {
    local root=$RIG/initrd.d number=10 module
    rm -rf "$root"
    mkdir -p "$root"/{bin,modules,proc,sys,dev}
    cp /bin/busybox "$root/bin/busybox"
    cp tests/kernel_rig/init.sh "$root/init"
    chmod 755 "$root/init"
    # In the order in which they depend on each other.
    for module in $(for m in "${MODULES[@]}"; do
        modprobe -d "$RIG/kernel" -S "$version" --show-depends "$m"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}'); do
        cp "$module" "$root/modules/$((number++))-$(basename "$module")"
    done
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$RIG/initrd"
}

boot() {
    local share=$RIG/share
    rm -rf "$share"
    mkdir -p "$share"
    cat >"$share/run" <<END
export PATH=$PATH HOME=/root LC_ALL=C.UTF-8
mkdir -p /usr/lib/modules && ln -sfn '$RIG/kernel/lib/modules/$version' /usr/lib/modules/$version
cd '$PWD' && exec bash tests/kernel_rig/guest.sh ${PARTS[*]}
END
    timeout -k 5 "$LIMIT" qemu-system-x86_64 \
        -M pc -accel "$ACCEL" -cpu "$CPU" -m 2048 -smp 2 -nodefaults -display none -no-reboot \
        -kernel "$RIG/kernel/boot/vmlinuz-$version" -initrd "$RIG/initrd" \
        -append "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off" -serial stdio \
        -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=root,mount_tag=root \
        -fsdev "local,id=share,path=$share,security_model=none" \
        -device virtio-9p-pci,fsdev=share,mount_tag=share \
        </dev/null || die "the virtual machine did not end well (status $?)"
    [[ -f $share/status ]] || die "the guest ended without a result"
    return "$(<"$share/status")"
}

[[ $EUID -eq 0 ]] || die "root is needed, to install packages and to share the root file system"
command -v apt-get >/dev/null || die "this is made for Debian 12"
mkdir -p "$RIG"
: >"$LOG"
echo "== Preparing the virtual machine"
install_packages
unpack_kernel
make_initrd
echo "== Booting Linux $version ($ACCEL)"
if boot; then
    echo "PASS: the lwAFTR works on Open vSwitch's kernel datapath, with ipip6 lwB4s, on $version."
else
    echo "FAIL: see above."
    exit 1
fi
