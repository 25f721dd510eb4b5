//! Cures for a dead connection, tried in the twin before they are reported.

use std::time::Duration;

use serde_json::json;

use super::battery::{Ask, Subject};
use super::cause::{By, DecidingRule, Holder, KernelReason, Taken};
use super::repeat::is_through;
use super::rule_change::restore;
use super::search::CauseSearch;
use super::verdict::{Cure, SwitchValue};
use super::{Twin, TwinError, mss, switches};
use crate::forwards::{Outbound, OutboundProtocol};
use crate::host::child;
use crate::host::iptables::nft_family;
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::names::Policy;
use crate::netfilter::text::line::Line;

/// Rules are added and deleted in milliseconds, but a large table takes longer.
const LIMIT: Duration = Duration::from_mins(5);

/// Removes the cause of a dead connection, and returns the gentlest cure that lets the connection through. Only that
/// cure stays in the twin. Returns `None` if the cause has no cure.
///
/// # Errors
/// If a program is missing.
pub fn cure(
    search: &CauseSearch<'_>,
    ask: &Ask<'_>,
    taken: &Taken,
) -> Result<Option<Cure>, TwinError> {
    let twin = &*search.twin;
    twin.enter()?;
    match &taken.by {
        By::Rule(decided) | By::Policy(decided) => {
            if let Holder::Nft(chain) = &decided.holder {
                for rule in accepting(ask) {
                    let of = format!("{} {} {}", chain.family, chain.table, chain.name);
                    let Some(handle) = inserted(&format!("insert rule {of} {rule}\n"))? else {
                        continue;
                    };
                    if is_through(twin, ask)? {
                        return Ok(Some(Cure::AcceptInChain {
                            family: chain.family.to_owned(),
                            table: chain.table.clone(),
                            chain: chain.name.clone(),
                            rule,
                        }));
                    }
                    twin.enter()?;
                    nft(&format!("delete rule {of} handle {handle}\n"))?;
                }
            }
            let removed = remove(decided)?;
            Ok(removed.then(|| Cure::Without(taken.by.clone())))
        }
        By::Kernel(KernelReason::NeedsFragmentation) => {
            let limit = mss::limit(twin, ask, search.limit)?;
            Ok(limit.map(|limit| Cure::SegmentLimit(limit, ask.of.family())))
        }
        By::Kernel(reason) => Ok(switched(twin, ask, reason)?),
        By::NoRule => Ok(None),
    }
}

/// Repeats a cure that was tried before, in a twin that was made again. Returns whether that was done.
///
/// # Errors
/// As [`cure`].
pub fn again(search: &CauseSearch<'_>, by: &By, cure: &Cure) -> Result<bool, TwinError> {
    search.twin.enter()?;
    match cure {
        Cure::AcceptInChain {
            family,
            table,
            chain,
            rule,
        } => nft(&format!("insert rule {family} {table} {chain} {rule}\n")),
        _ => remove_cause(search, by, cure),
    }
}

/// Removes the cause of a death as its cure does, or more narrowly: a rule that accepts packets in front of a chain
/// also helps packets that another rule of the chain takes. The calling thread is in the twin's machine namespace.
/// Returns whether that was done.
///
/// # Errors
/// As [`cure`].
pub fn remove_cause(search: &CauseSearch<'_>, by: &By, cure: &Cure) -> Result<bool, TwinError> {
    match (cure, by) {
        (Cure::Apply, _) => {
            let load = |change| search.twin.load(change);
            search.change.map_or(Ok(false), load)
        }
        (Cure::Switches(switches), _) => {
            for SwitchValue { name, value } in switches {
                switches::set(name, value);
            }
            Ok(true)
        }
        (Cure::SegmentLimit(limit, family), _) => mss::set(*family, *limit),
        (Cure::AcceptInChain { .. }, By::Rule(decided) | By::Policy(decided))
        | (Cure::Without(By::Rule(decided) | By::Policy(decided)), _) => remove(decided),
        _ => Ok(false),
    }
}

/// The rule of nft that accepts every packet whose destination was translated.
pub const ACCEPT_REDIRECTED: &str = "ct status dnat accept";

/// Returns rules that accept a connection's packets in a chain of nft: those of a forward after the translation of the
/// destination, and before it.
fn accepting(ask: &Ask<'_>) -> Vec<String> {
    let protocol = ask.question.protocol;
    match ask.of {
        Subject::Forward(forward) => vec![
            ACCEPT_REDIRECTED.to_owned(),
            format!("{protocol} dport {} accept", forward.listen.ports),
        ],
        Subject::Outbound(entry) => accepting_entry(entry, ask.by).into_iter().collect(),
    }
}

/// The most networks or ranges of ports in a rule that people can still read.
const READABLE: usize = 8;

/// Returns a rule that accepts all packets of an outbound entry that come in by an interface; `None` if the rule would be
/// too long to read.
fn accepting_entry(entry: &Outbound, by: &Interface) -> Option<String> {
    let nets = entry.allow_from.as_slice();
    if nets.len() > READABLE || entry.ports.len() > READABLE {
        return None;
    }
    let ip = match entry.family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let from = one_or_set(nets);
    let transports: Vec<Protocol> = {
        let protocols = entry.protocols.iter();
        protocols.filter_map(|one| one.transport()).collect()
    };
    let ports = one_or_set(&entry.ports);
    let is_any = entry.protocols.len() == OutboundProtocol::ALL.len();
    let what = match transports.as_slice() {
        _ if is_any => String::new(),
        [one] if !entry.ports.is_empty() => format!("{one} dport {ports} "),
        all if !entry.ports.is_empty() => {
            format!("meta l4proto {} th dport {ports} ", one_or_set(all))
        }
        all if all.len() == entry.protocols.len() => format!("meta l4proto {} ", one_or_set(all)),
        // Pings are among them.
        _ => String::new(),
    };
    Some(format!("iifname \"{by}\" {ip} saddr {from} {what}accept"))
}

/// Prints one value, or several as a set of nft.
fn one_or_set(all: &[impl ToString]) -> String {
    match all {
        [one] => one.to_string(),
        many => {
            let many: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("{{ {} }}", many.join(", "))
        }
    }
}

/// Removes a rule, or lets a policy accept. Returns whether that was done.
///
/// # Errors
/// As [`cure`].
pub fn remove(decided: &DecidingRule) -> Result<bool, TwinError> {
    // iptables cannot read a table that holds rules of nft. nft finds the rules of iptables as well.
    let chain = match &decided.holder {
        Holder::Iptables {
            backend: Backend::Nft,
            family,
            table,
            chain,
        } => Some((nft_family(*family), table.to_string(), chain.as_str())),
        Holder::Iptables { .. } => None,
        Holder::Nft(chain) => Some((chain.family, chain.table.clone(), &*chain.name)),
    };
    match (&decided.holder, chain, decided.handle, &decided.place) {
        (_, Some((family, table, chain)), Some(handle), _) => delete(family, &table, chain, handle),
        (_, Some((family, table, chain)), None, _) => nft(&format!(
            "chain {family} {table} {chain} {{ policy accept; }}\n"
        )),
        (
            Holder::Iptables {
                backend,
                family,
                table,
                chain,
            },
            None,
            _,
            place,
        ) => {
            let line = match place {
                Some(place) => Line::DeleteAt(chain, *place),
                None => Line::Chain(chain, Some(Policy::Accept)),
            };
            let script = format!("*{table}\n{line}\nCOMMIT\n");
            Ok(restore(*backend, *family, &script)?)
        }
        (Holder::Nft(_), None, ..) => Ok(false),
    }
}

/// Deletes a rule. JSON is used since nft reads the name of a chain, such as `log`, as its own keyword.
fn delete(family: &str, table: &str, chain: &str, handle: u64) -> Result<bool, TwinError> {
    let rule = json!({"family": family, "table": table, "chain": chain, "handle": handle});
    let script = json!({"nftables": [{"delete": {"rule": rule}}]}).to_string();
    let output = child::read("nft", &["-j", "-f", "-"], script.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(true);
    }
    // Some builds of nft lack JSON.
    nft(&format!(
        "delete rule {family} {table} {chain} handle {handle}\n"
    ))
}

fn switched(twin: &Twin, ask: &Ask<'_>, reason: &KernelReason) -> Result<Option<Cure>, TwinError> {
    let family = ask.of.family();
    let switches: Vec<(String, &'static str)> = match (reason, family) {
        (KernelReason::ReversePath, Family::V4) => {
            let sides = [ask.by, ask.of.egress()];
            let each = sides.into_iter();
            each.map(|side| (format!("ipv4/conf/{side}/rp_filter"), "2"))
                .collect()
        }
        (KernelReason::NotForwarded, Family::V4) => vec![
            ("ipv4/ip_forward".to_owned(), "1"),
            (format!("ipv4/conf/{}/forwarding", ask.by), "1"),
            (format!("ipv4/conf/{}/forwarding", ask.of.egress()), "1"),
        ],
        (KernelReason::NotForwarded, Family::V6) => {
            vec![("ipv6/conf/all/forwarding".to_owned(), "1")]
        }
        _ => Vec::new(),
    };
    let mut before: Vec<(SwitchValue, String)> = Vec::new();
    let mut is_cured = false;
    twin.enter()?;
    for (name, value) in switches {
        // The kernel may lack a switch.
        let Some(old) = switches::one(&name).filter(|old| old.trim() != value) else {
            continue;
        };
        switches::set(&name, value);
        before.push((SwitchValue { name, value }, old));
        is_cured = is_through(twin, ask)?;
        twin.enter()?;
        if is_cured {
            break;
        }
    }
    if is_cured {
        // A switch that is not needed is set back, so that it helps no other connection.
        let mut at = before.len() - 1;
        while at > 0 {
            at -= 1;
            let (SwitchValue { name, value }, old) = &before[at];
            switches::set(name, old);
            let is_superfluous = is_through(twin, ask)?;
            twin.enter()?;
            if is_superfluous {
                before.remove(at);
            } else {
                switches::set(name, value);
            }
        }
        let needed = before.into_iter().map(|(switch, _)| switch);
        return Ok(Some(Cure::Switches(needed.collect())));
    }
    // The next connection has to meet the same reason again.
    for (switch, old) in before.into_iter().rev() {
        switches::set(&switch.name, &old);
    }
    Ok(None)
}

fn nft(script: &str) -> Result<bool, TwinError> {
    let output = child::read("nft", &["-f", "-"], script.as_bytes(), LIMIT)?;
    Ok(output.status.success())
}

/// Runs a command that adds one rule, and returns the rule's handle.
fn inserted(command: &str) -> Result<Option<u64>, TwinError> {
    let output = child::read("nft", &["-e", "-a", "-f", "-"], command.as_bytes(), LIMIT)?;
    if !output.status.success() {
        return Ok(None);
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let (_, handle) = printed.rsplit_once("# handle ").unwrap_or_default();
    let handle = handle.split_ascii_whitespace().next();
    Ok(handle.and_then(|handle| handle.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::accepting_entry;
    use crate::yaml;

    #[test]
    fn a_rule_that_accepts_an_entry_names_all_its_sources_and_ports() {
        let many = (0..9).map(|n| format!("10.{}.0.0/16", 2 * n));
        let many = format!("allow_from: [{}]", many.collect::<Vec<_>>().join(", "));
        for (options, rule) in [
            (
                "allow_from: [10.1.0.0/16]",
                Some("ip saddr 10.1.0.0/16 accept"),
            ),
            (
                "allow_from: ['fd00::/64']",
                Some("ip6 saddr fd00::/64 accept"),
            ),
            (
                "allow_from: [10.1.0.0/16, 10.3.0.0/16], protocol: tcp, ports: [443, 8000-8010]",
                Some("ip saddr { 10.1.0.0/16, 10.3.0.0/16 } tcp dport { 443, 8000-8010 } accept"),
            ),
            (
                "allow_from: [10.1.0.0/16], protocol: [tcp, udp], ports: [53]",
                Some("ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } th dport 53 accept"),
            ),
            (
                "allow_from: [10.1.0.0/16], protocol: udp",
                Some("ip saddr 10.1.0.0/16 meta l4proto udp accept"),
            ),
            (
                "allow_from: [10.1.0.0/16], protocol: [tcp, ping]",
                Some("ip saddr 10.1.0.0/16 accept"),
            ),
            (&many, None),
        ] {
            let text = format!("firewall: {{interface: eth0}}\noutbound: [{{name: a, {options}}}]");
            let set = yaml::read(text.as_bytes()).expect("the spec is valid");
            let entry = &set.outbound[0];
            let meant = rule.map(|rule| format!("iifname \"eth0\" {rule}"));
            assert_eq!(
                accepting_entry(entry, &entry.ingress[0]),
                meant,
                "{options}"
            );
        }
    }
}
