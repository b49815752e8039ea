#!/usr/bin/env bash
# Installs what ryu-lw4o6 needs: Debian packages that are missing, and a virtual environment in
# .venv. Run again, it does nothing when nothing has changed. Called by make.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp "${TMPDIR:-/tmp}/lw4o6-setup.XXXXXX")
trap 'rm -f "$log"' EXIT

say() { printf '%s\n' "$*"; }
fail() { say "setup: $1" >&2; [ ! -s "$log" ] || tail -n 25 "$log" >&2; say "setup: $2" >&2; exit 1; }
quietly() { "$@" >>"$log" 2>&1; }

[ "$(id -u)" = 0 ] || fail "this needs root: it installs packages and makes network namespaces." \
    "Run it as root, for instance: sudo make"

packages="openvswitch-switch clang libbpf-dev linux-libc-dev bpftool nftables iproute2 ethtool
    iperf3 iputils-ping curl procps"
python=""
for candidate in python3.11 python3; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || packages="$packages python3.11 python3.11-venv"

missing=""
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    say "[1/2] system packages:$missing"
    # The lab runs switches of its own: a system-wide one that is not there yet need not start.
    policy=""
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f "$log" /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -o DPkg::Lock::Timeout=300 update || fail "apt-get update failed." "Check the network and /etc/apt."
    # shellcheck disable=SC2086
    quietly apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing ||
        fail "apt-get could not install:$missing" "Install them by hand, then run make again."
    [ -z "$policy" ] || rm -f $policy
else
    say "[1/2] system packages: all there"
fi
: "${python:=python3.11}"

stamp=.venv/.setup-stamp
wanted=$(cat pyproject.toml constraints.txt site_hook/* scripts/hatch_build.py scripts/setup.sh | sha256sum; pwd)
if [ ! -x .venv/bin/ryu-manager ] || [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
    say "[2/2] Python environment in .venv (about a minute)"
    rm -rf .venv
    quietly "$python" -m venv .venv || fail "no virtual environment could be made." "Install python3.11-venv."
    # pip up to 25.2 takes build constraints from the first variable, newer ones from the second.
    export PIP_CONSTRAINT=$PWD/constraints.txt PIP_BUILD_CONSTRAINT=$PWD/constraints.txt
    quietly .venv/bin/pip install --disable-pip-version-check -e '.[dev,postgresql]' ||
        fail "pip could not install the Python packages." "See the lines above."
    printf '%s' "$wanted" >$stamp
else
    say "[2/2] Python environment: up to date"
fi
