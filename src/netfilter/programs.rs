//! Programs that write rules, by the names of their tables and chains.

use super::names::{ChainName, TableName};
use super::ruleset::Ruleset;

/// Programs that write their rules anew at each start, by the prefix of their chains' names.
const GENERATORS: [(&str, &str); 8] = [
    ("DOCKER", "Docker"),
    ("f2b-", "fail2ban"),
    ("KUBE-", "kube-proxy"),
    ("cali-", "Calico"),
    ("CNI-", "a container network plugin"),
    ("FLANNEL-", "Flannel"),
    ("LIBVIRT_", "libvirt"),
    ("ufw-", "ufw"),
];

/// Returns the program that writes a chain, by its name.
#[must_use]
pub fn program_of(chain: &ChainName) -> Option<&'static str> {
    let mut generators = GENERATORS.iter();
    let (_, program) = generators.find(|(prefix, _)| chain.as_str().starts_with(prefix))?;
    Some(program)
}

/// Programs by the names of their nft tables. They and those of [`CHAINS`] are not in [`GENERATORS`]: their
/// chains are no proof of a program that writes them anew at each start.
const TABLES: [(&str, &str); 9] = [
    ("firewalld", "firewalld"),
    ("kube-proxy", "kube-proxy"),
    ("libvirt_network", "libvirt"),
    ("netavark", "Podman"),
    ("docker-bridges", "Docker"),
    ("f2b-table", "fail2ban"),
    ("flannel-ipv4", "Flannel"),
    ("flannel-ipv6", "Flannel"),
    ("sing-box", "sing-box"),
];

/// Further programs by the prefix of their chains' names.
const CHAINS: [(&str, &str); 17] = [
    ("ufw6-", "ufw"),
    ("ts-", "Tailscale"),
    ("NETAVARK", "Podman"),
    ("AZURE-NPM", "Azure NPM"),
    ("CILIUM_", "Cilium"),
    ("OLD_CILIUM_", "Cilium"),
    ("CROWDSEC_CHAIN", "CrowdSec"),
    ("crowdsec", "CrowdSec"),
    ("IN_", "firewalld"),
    ("FWD_", "firewalld"),
    ("FWDI_", "firewalld"),
    ("FWDO_", "firewalld"),
    ("FORWARD_", "firewalld"),
    ("PRE_", "firewalld"),
    ("PREROUTING_", "firewalld"),
    ("POST_", "firewalld"),
    ("POSTROUTING_", "firewalld"),
];

/// Returns the program that writes a table or a chain, by their names.
#[must_use]
pub fn owner_of(table: &str, chain: &str) -> Option<&'static str> {
    let of_table = TABLES.iter().find(|(name, _)| *name == table);
    let of_chain = || {
        let mut chains = CHAINS.iter();
        let (_, program) = chains.find(|(prefix, _)| chain.starts_with(prefix))?;
        Some(*program)
    };
    match of_table {
        Some((_, program)) => Some(program),
        None if table.starts_with("crowdsec") => Some("CrowdSec"),
        None => program_of(&ChainName::from(chain)).or_else(of_chain),
    }
}

/// Returns whether Shorewall has loaded a ruleset. It loads whole tables, and makes this chain in each table `filter`, of
/// both families (`chain_exists shorewall` in its `Chains.pm`, version 5.2.8). Its other chains have the names of zones.
#[must_use]
pub fn is_of_shorewall(ruleset: &Ruleset) -> bool {
    let chain = ChainName::from("shorewall");
    ruleset.chain(TableName::Filter, &chain).is_some()
}

/// Returns the programs that have rules in a ruleset and write them anew at each start, each with one of its
/// chains.
#[must_use]
pub fn generated(ruleset: &Ruleset) -> Vec<(&'static str, &ChainName)> {
    GENERATORS
        .into_iter()
        .filter_map(|(prefix, program)| {
            let mut names = ruleset.chains().map(|(_, name, _)| name);
            let chain = names.find(|name| name.as_str().starts_with(prefix))?;
            Some((program, chain))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_or_a_table_tells_its_program() {
        for (table, chain, program) in [
            ("filter", "DOCKER-FORWARD", Some("Docker")),
            ("docker-bridges", "filter-FORWARD", Some("Docker")),
            ("firewalld", "filter_FORWARD", Some("firewalld")),
            ("filter", "FWDI_public", Some("firewalld")),
            ("filter", "ufw-before-forward", Some("ufw")),
            ("filter", "ufw6-before-forward", Some("ufw")),
            ("nat", "KUBE-SERVICES", Some("kube-proxy")),
            ("kube-proxy", "services", Some("kube-proxy")),
            ("filter", "ts-forward", Some("Tailscale")),
            ("filter", "cali-FORWARD", Some("Calico")),
            ("filter", "LIBVIRT_FWI", Some("libvirt")),
            ("netavark", "FORWARD", Some("Podman")),
            ("filter", "f2b-sshd", Some("fail2ban")),
            ("filter", "AZURE-NPM-FORWARD", Some("Azure NPM")),
            ("filter", "CILIUM_FORWARD", Some("Cilium")),
            ("crowdsec6", "crowdsec6-chain-forward", Some("CrowdSec")),
            ("filter", "FORWARD", None),
            ("own", "forward", None),
        ] {
            assert_eq!(owner_of(table, chain), program, "{table} {chain}");
        }
    }
}
