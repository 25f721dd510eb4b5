#!/bin/sh
# Makes the fixture of a release: the rules that it loads and the state that it writes, as files that
# every later version must go on from (tests/lab/upgrade.rs).
#
#   sudo tests/lab/upgrade/make.sh target/release/nvactl 0.1.0
#
# Run it with the binary of the release, once, and commit the folder that it makes. Fixtures of older
# releases stay as they are: nobody can make them again, and machines still hold what they hold.
#
# RELEASE/BACKEND/SHAPE/
#   forward.yaml   the spec that was applied last
#   rules.v4, .v6  what iptables-save and ip6tables-save print then, comments apart
#   before.v4, .v6 the same before the last change
#   state/         the state folder, byte by byte
#
# A shape is a folder of specs/, whose files are applied in their order; the one called `waits` is
# applied last with --confirm, and nobody confirms it. The second change of each is confirmed, so that
# there is a decision. Rules of others stand beside them.
set -eu

if [ "${1:-}" = --inside ]; then
    shift
    nvactl=$1 multi=$2 specs=$3 out=$4 shape=$5
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=755 tmpfs /var/lib
    mkdir /run/bin /run/etc
    cp -a /etc/. /run/etc
    mount --bind /run/etc /etc
    mkdir -p /etc/nvactl
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -s "/usr/sbin/$multi" "/run/bin/$name"
    done
    PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin
    XTABLES_LOCKFILE=/run/xtables.lock
    export PATH XTABLES_LOCKFILE
    unset NVACTL_SPEC NVACTL_STATE_DIR SUDO_USER SSH_CONNECTION
    ip link set lo up
    for name in eth0 eth1 eth2; do
        ip link add "$name" type veth peer name "$name-peer"
        ip link set "$name" up
    done
    ip address add 10.3.0.4/24 dev eth0
    ip address add 10.4.0.4/24 dev eth1
    iptables -A INPUT -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT
    iptables -N OTHERS
    iptables -A FORWARD -j OTHERS
    iptables -A OTHERS -i br-1 -j ACCEPT
    iptables -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-1 -j MASQUERADE
    ip6tables -A INPUT -p ipv6-icmp -j ACCEPT
    keep() {
        iptables-save | grep -v '^#' > "$out/$1.v4"
        ip6tables-save | grep -v '^#' > "$out/$1.v6"
    }
    for spec in "$specs"/*.yaml; do
        keep before
        cp "$spec" /etc/nvactl/forward.yaml
        last=$spec
        case $shape/$(basename "$spec") in
            */2.yaml)
                "$nvactl" apply /etc/nvactl/forward.yaml --confirm 600
                "$nvactl" confirm
                ;;
            waits/3.yaml) "$nvactl" apply /etc/nvactl/forward.yaml --confirm 600 ;;
            *) "$nvactl" apply /etc/nvactl/forward.yaml ;;
        esac
    done
    cp "$last" "$out/forward.yaml"
    keep rules
    cp -a /var/lib/nvactl "$out/state"
    # Its watchdog ends with it.
    if [ "$shape" = waits ]; then
        "$nvactl" confirm --cancel
    fi
    exit
fi

if [ $# != 2 ]; then
    echo "usage: $0 NVACTL RELEASE" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
nvactl=$(readlink -f "$1")
mkdir "$here/$2"
for backend in nft legacy; do
    for specs in "$here"/specs/*; do
        shape=$(basename "$specs")
        out=$here/$2/$backend/$shape
        mkdir -p "$out"
        unshare --net --mount --propagation private \
            sh "$0" --inside "$nvactl" "xtables-$backend-multi" "$specs" "$out" "$shape"
    done
done
