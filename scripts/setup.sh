#!/usr/bin/env bash
# Makes this checkout ready to run, test and demonstrate: Debian packages, and a Python environment
# in .venv. Does only what is still to be done, so that a second run takes no time and no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PACKAGES=(
    openvswitch-switch                                  # the data plane
    clang libbpf-dev linux-libc-dev bpftool             # the softwire shim
    iproute2 ethtool procps util-linux                  # switch and lab
    nftables conntrack iperf3 iputils-ping tcpdump curl # lab
    postgresql-15                                       # a store that controllers share
    bird2                                               # the lab's router
    kea-dhcp4-server kea-dhcp6-server kea-ctrl-agent kea-admin  # the lab's provisioning server
    isc-dhcp-relay python3-libtorrent tshark            # tests: other programs of the same protocols
)
# What Debian would start when it installs them, by package.
declare -A SERVICES=(
    [openvswitch-switch]=openvswitch-switch
    [postgresql-15]=postgresql
    [bird2]=bird
    [kea-dhcp4-server]=kea-dhcp4-server
    [kea-dhcp6-server]=kea-dhcp6-server
    [kea-ctrl-agent]=kea-ctrl-agent
    [isc-dhcp-relay]=isc-dhcp-relay
)
VENV=.venv
STAMP=$VENV/.lw4o6-setup
LOG=build/setup.log

say() { printf '%s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Everything a command has to say goes to the log, which is shown when the command fails.
quietly() {
    if ! "$@" >>"$LOG" 2>&1; then
        tail -n 30 "$LOG" >&2
        die "this failed: $* (its output is above, and in $PWD/$LOG)"
    fi
}

is_python() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in python3.11 python3 /usr/bin/python3.11; do
        if is_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

missing_packages() {
    local package
    [[ -n $python ]] || printf 'python3.11\npython3.11-venv\n'
    for package in "${PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$package"
    done
}

# Debian starts a service when it installs it. Lab and tests bring their own servers; one that was
# there before, and is somebody's, is not touched.
install_packages() {
    local policy=/usr/sbin/policy-rc.d package service services=()
    for package in "$@"; do
        service=${SERVICES[$package]:-}
        [[ -z $service ]] || services+=("$service")
    done
    if ((${#services[@]})) && [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\ncase "$1" in openvswitch*|ovs*|%s*) exit 101 ;; esac\n' \
            "$(IFS='|'; sed 's/|/*|/g' <<<"${services[*]}")" >"$policy"
        chmod 755 "$policy"
    else
        policy=
    fi
    export DEBIAN_FRONTEND=noninteractive
    local wait=(-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    quietly apt-get "${wait[@]}" -q update
    quietly apt-get "${wait[@]}" -qy --no-install-recommends install "$@"
    if [[ -n $policy ]]; then
        rm -f "$policy"
        trap - EXIT
    fi
    [[ -d /run/systemd/system ]] || return 0
    for service in ${services[@]+"${services[@]}"}; do
        quietly systemctl disable "$service"
        say "      $service is installed, not started. To use it: systemctl enable --now $service"
    done
}

# Changes whenever the environment has to be made anew.
fingerprint() {
    { pwd; readlink -f "$1"; cat pyproject.toml constraints.txt site_hook/*; } | sha256sum
}

is_current() {
    [[ -f $STAMP && $(<"$STAMP") == "$(fingerprint "$1")" && -x $VENV/bin/lw4o6 ]]
}

install_environment() {
    rm -f "$STAMP"
    if ! is_python "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version &>/dev/null; then
        rm -rf "$VENV"
        quietly "$1" -m venv "$VENV"
    fi
    # pip splits these variables at spaces: a relative path has none.
    export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
    quietly "$VENV/bin/python" -m pip install --use-pep517 --progress-bar off -e '.[postgresql,bgp,lab,test,dev]'
    fingerprint "$1" >"$STAMP"
}

command -v apt-get >/dev/null || die "this is made for Debian 12, and there is no apt-get here"

# One at a time: two would write the same .venv.
exec 9<scripts/setup.sh
flock 9

python=$(find_python) || python=
missing=$(missing_packages)
if [[ -z $missing ]] && is_current "$python"; then
    exit 0
fi

if [[ $EUID -ne 0 ]]; then
    die "to install packages, and to build networks later on, root is needed. Try: sudo make setup"
fi
mkdir -p build
: >"$LOG"
SECONDS=0

if [[ -n $missing ]]; then
    say "[1/3] system packages: $(tr '\n' ' ' <<<"$missing")..."
    # shellcheck disable=SC2086 # one word for each package
    install_packages $missing
else
    say "[1/3] system packages: all there"
fi

[[ -n $python ]] || python=$(find_python) || die "no Python 3.11 with venv, even after installing Debian's"
say "[2/3] Python environment: .venv, by $python ..."
is_current "$python" || install_environment "$python"

say "[3/3] trying it out ..."
quietly "$VENV/bin/python" -m pip check
quietly "$VENV/bin/ryu-manager" --version
quietly "$VENV/bin/lw4o6" --version
say "Set up in $SECONDS s."
