//! The interfaces of other programs, known by their names.

/// The beginnings of the names of interfaces to containers and virtual machines. Their programs write the rules for them.
const GUESTS: [&str; 11] = [
    "docker", "virbr", "veth", "cni", "cali", "flannel", "cilium", "lxc", "lxd", "kube", "podman",
];
/// The bridge of a network of Docker is named by 12 digits of the network's identifier.
const DOCKER_BRIDGE: (&str, usize) = ("br-", 12);
/// The beginnings of the names of interfaces to private networks over others.
const OVERLAYS: [&str; 3] = ["wg", "tailscale", "zt"];
/// Programs number these tunnels: `tun0`.
const TUNNELS: [&str; 2] = ["tun", "tap"];

/// Returns whether a name is one that another program gives its interfaces. Neither clients nor targets of a firewall are
/// behind them.
pub(super) fn is_others(name: &str) -> bool {
    let mut numbers = TUNNELS.iter().filter_map(|begin| name.strip_prefix(begin));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
    is_of_guests(name)
        || numbers.any(is_number)
        || OVERLAYS.iter().any(|begin| name.starts_with(begin))
}

/// Returns whether a name is one of an interface to containers or virtual machines.
pub(super) fn is_of_guests(name: &str) -> bool {
    let (bridge, digits) = DOCKER_BRIDGE;
    let identifier = name.strip_prefix(bridge).unwrap_or_default();
    let is_bridge =
        identifier.len() == digits && identifier.bytes().all(|one| one.is_ascii_hexdigit());
    is_bridge || GUESTS.iter().any(|begin| name.starts_with(begin))
}
