//! Foreign rules in FORWARD that refuse packets, and that an apply puts behind nvactl's jump: a ban by
//! fail2ban, an operator's block. nvactl's chain accepts the forwards' packets before them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;

use crate::few::few;
use crate::line::Line;
use crate::net::{Family, PortRange, Protocol};
use crate::packet::{Packet, Tracked};
use crate::plan::Hook;
use crate::rule::{Match, Rule};
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::shadow::Situation;
use crate::spec::{Forward, ForwardSet, Name};
use crate::walk::{Decider, walk};

/// A rule that refuses packets of forwards, until nvactl's jump stands before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Overtaken<'r> {
    pub chain: &'r ChainName,
    pub rule: &'r Rule,
    /// The forwards it may concern, in the order of the spec.
    pub forwards: Arc<[&'r Name]>,
    /// Whether it refuses all their packets, whoever sends them.
    pub all: bool,
}

/// How many rules are shown one by one.
const MOST_SHOWN: usize = 20;
/// How many forwards are named for each.
const MOST_NAMES: usize = 3;
/// Evaluations of a condition for a packet; above, the forwards are not told apart.
const MOST_EVALUATIONS: usize = 1_000_000;

/// Returns the rules that stand before nvactl's jump in `live`, or stand there while it has none, that
/// stand behind it once `want` is loaded, and whose conditions can hold for the first packet of a
/// connection to a target of `set`. A condition that nvactl does not interpret is taken to hold.
/// `set` is of the family that the rulesets are of.
#[must_use]
pub fn overtaken<'r>(live: &'r Ruleset, want: &Ruleset, set: &'r ForwardSet) -> Vec<Overtaken<'r>> {
    let own = ChainName::from(Hook::Passing.own());
    let before = before(live, &own);
    let jumps = want
        .chain(TableName::Filter, &ChainName::Forward)
        .is_some_and(|chain| chain.rules.iter().any(|rule| rule.leads_to() == Some(&own)));
    let (Some(before), true) = (before, jumps) else {
        return Vec::new();
    };
    let classes = classes(set, &before);
    let mut found: Vec<(Decider<'r>, Vec<usize>)> = Vec::new();
    let mut places: BTreeMap<*const Rule, usize> = BTreeMap::new();
    for (n, class) in classes.iter().enumerate() {
        for decider in class.with_packet(|packet| refusing(live, packet, &own)) {
            let place = *places.entry(decider.rule).or_insert_with(|| {
                found.push((decider, Vec::new()));
                found.len() - 1
            });
            let (known, concerned) = &mut found[place];
            known.certain &= decider.certain;
            concerned.push(n);
        }
    }
    // Thousands of bans mostly concern the same thousands of forwards.
    let mut lists: BTreeMap<Vec<usize>, Arc<[&Name]>> = BTreeMap::new();
    let each = found.into_iter().map(|(decider, concerned)| Overtaken {
        chain: decider.chain,
        rule: decider.rule,
        all: decider.certain,
        forwards: Arc::clone(lists.entry(concerned).or_insert_with_key(|concerned| {
            let forwards = concerned.iter().flat_map(|class| &classes[*class].forwards);
            let forwards: BTreeSet<usize> = forwards.copied().collect();
            let names = forwards.into_iter().map(|n| &set.forwards[n].name);
            let mut names: Vec<&Name> = names.collect();
            // The two protocols of a forward stand side by side.
            names.dedup();
            names.into()
        })),
    });
    each.collect()
}

/// The rules before the jump that may refuse a packet.
fn refusing<'r>(live: &'r Ruleset, packet: &Packet<'_>, own: &ChainName) -> Vec<Decider<'r>> {
    let (table, chain) = (TableName::Filter, ChainName::Forward);
    let walked = walk(live, table, &chain, packet, Some(own));
    let mut deciders = walked.deciders;
    deciders.retain(|decider| refuses(decider.rule));
    deciders
}

fn refuses(rule: &Rule) -> bool {
    let target = rule.target.as_ref();
    target.is_some_and(|target| matches!(target.name(), "DROP" | "REJECT"))
}

/// The rules before the jump, chains that they lead to included.
struct Before<'r> {
    rules: usize,
    /// The conditions by which they can tell forwards apart.
    conditions: BTreeSet<&'r Match>,
}

/// Reads the rules before the jump; none if they refuse nothing.
fn before<'r>(live: &'r Ruleset, own: &ChainName) -> Option<Before<'r>> {
    let filter = live.tables.get(&TableName::Filter)?;
    let (mut rules, mut conditions, mut any) = (0, BTreeSet::new(), false);
    let mut seen = BTreeSet::from([&ChainName::Forward]);
    let mut ahead = vec![&ChainName::Forward];
    while let Some(name) = ahead.pop() {
        let Some(chain) = filter.get(name) else {
            continue;
        };
        let before = chain
            .rules
            .iter()
            .take_while(|rule| rule.leads_to() != Some(own));
        for rule in before {
            rules += 1;
            any |= refuses(rule);
            // Clients are not known, and a comment asks nothing.
            let asked = rule.matches.iter();
            conditions.extend(
                asked.filter(|asked| !matches!(asked, Match::Source(_) | Match::Comment(_))),
            );
            let next = rule.leads_to().filter(|next| seen.insert(next));
            ahead.extend(next);
        }
    }
    any.then_some(Before { rules, conditions })
}

/// Forwards whose first packets meet the same conditions.
struct Class<'s> {
    like: Like<'s>,
    /// By their places in the spec.
    forwards: Vec<usize>,
}

/// The packets of a class.
enum Like<'s> {
    Those(Situation<'s>),
    /// The forwards are not told apart.
    AllOf(Protocol),
}

impl Class<'_> {
    fn with_packet<T>(&self, work: impl FnOnce(&Packet<'_>) -> T) -> T {
        match &self.like {
            Like::Those(situation) => situation.with_packet(work),
            Like::AllOf(protocol) => work(&Packet {
                protocol: *protocol,
                source: None,
                destinations: &[],
                ports: PortRange::ALL,
                source_ports: None,
                ingress: None,
                egress: None,
                local: Some(false),
                translated_from: Some((&[], PortRange::ALL)),
                tracked: Tracked::New,
            }),
        }
    }
}

fn classes<'s>(set: &'s ForwardSet, before: &Before<'_>) -> Vec<Class<'s>> {
    let forwards = || set.forwards.iter().enumerate();
    let situations: Vec<(usize, Situation<'s>)> = forwards()
        .flat_map(|(n, forward)| situations(forward).map(move |one| (n, one)))
        .collect();
    let conditions = &before.conditions;
    if situations.len().saturating_mul(conditions.len()) > MOST_EVALUATIONS {
        return by_protocol(set);
    }
    let mut classes: BTreeMap<Vec<Option<bool>>, Class<'s>> = BTreeMap::new();
    for (n, situation) in situations {
        let answers = situation.with_packet(|packet| {
            let each = conditions.iter();
            each.map(|asked| packet.holds(asked)).collect()
        });
        let class = classes.entry(answers).or_insert(Class {
            like: Like::Those(situation),
            forwards: Vec::new(),
        });
        class.forwards.push(n);
    }
    if classes.len().saturating_mul(before.rules) > MOST_EVALUATIONS {
        return by_protocol(set);
    }
    classes.into_values().collect()
}

/// One class of each protocol.
fn by_protocol(set: &ForwardSet) -> Vec<Class<'_>> {
    let each = Protocol::ALL.into_iter().map(|protocol| {
        let forwards = set.forwards.iter().enumerate();
        let mine = forwards.filter(|(_, forward)| forward.protocol == protocol);
        Class {
            like: Like::AllOf(protocol),
            forwards: mine.map(|(n, _)| n).collect(),
        }
    });
    each.filter(|class| !class.forwards.is_empty()).collect()
}

/// Every way of a forward's packets, those of a hairpin included. Which of the machine's addresses
/// they are sent to is left open.
fn situations(forward: &Forward) -> impl Iterator<Item = Situation<'_>> {
    forward.entrances().flat_map(move |ingress| {
        let destinations = forward.target.destinations.iter();
        destinations.map(move |to| Situation {
            forward,
            ingress,
            to,
        })
    })
}

/// Describes the rules in one warning, bounded, with the fix on its last line. `None` if there are
/// none.
#[must_use]
pub fn told(found: &[Overtaken<'_>], family: Family) -> Option<String> {
    let (count, kind) = match (found.len(), family) {
        (0, _) => return None,
        (1, Family::V4) => ("1 rule that refuses".to_owned(), "comes"),
        (1, Family::V6) => ("1 ip6tables rule that refuses".to_owned(), "comes"),
        (many, Family::V4) => (format!("{many} rules that refuse"), "come"),
        (many, Family::V6) => (format!("{many} ip6tables rules that refuse"), "come"),
    };
    let mut text = format!(
        "{count} packets of forwards {kind} to stand behind nvactl's jump, which accepts them:"
    );
    for one in found.iter().take(MOST_SHOWN) {
        let names = few(
            one.forwards.iter().map(|name| format!("`{name}`")),
            MOST_NAMES,
        );
        let line = Line::Append(one.chain, one.rule);
        let _ = write!(text, "\n  {line} ({names})");
    }
    match found.len().saturating_sub(MOST_SHOWN) {
        0 => {}
        more => {
            let _ = write!(text, "\n  and {more} more such rules");
        }
    }
    let _ = write!(text, "\nhint: {}", fix(found));
    Some(text)
}

/// The edit of the spec that refuses the same packets.
fn fix(found: &[Overtaken<'_>]) -> String {
    if found.iter().all(|one| one.all) {
        return "to refuse all packets of a forward, write in the spec: enabled: false".to_owned();
    }
    let mut nets: BTreeSet<IpNet> = BTreeSet::new();
    let by_source = found.iter().all(|one| {
        let mut sources = one
            .rule
            .matches
            .iter()
            .filter_map(|condition| match condition {
                Match::Source(net) => Some(*net),
                _ => None,
            });
        sources.next().is_some_and(|net| {
            nets.insert(net);
            true
        })
    });
    let place = "to refuse these clients, write in the spec, for a forward or in `defaults`:";
    if by_source && nets.len() <= MOST_SHOWN {
        let nets = nets.iter().map(|net| match net {
            IpNet::V4(net) => net.to_string(),
            // YAML takes a colon for the end of a key.
            IpNet::V6(net) => format!("\"{net}\""),
        });
        let nets = nets.collect::<Vec<_>>().join(", ");
        format!("{place} deny_from: [{nets}]")
    } else {
        format!("{place} deny_from: [NETWORK, NETWORK]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::plan::plan;
    use crate::spec;

    const SPEC: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.99:5353}}
";

    fn set(text: &str) -> ForwardSet {
        spec::read(text.as_bytes()).expect("it is sound")
    }

    fn live(lines: &str) -> Ruleset {
        parse(&format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n{lines}\nCOMMIT\n"
        ))
        .expect("it is readable")
    }

    /// Each rule found, by its source or target and the forwards.
    fn found(lines: &str) -> Vec<(String, String, bool)> {
        let set = set(SPEC);
        let (live, want) = (live(lines), plan(&set, Family::V4));
        let found = overtaken(&live, &want, &set);
        let each = found.iter().map(|one| {
            let names = few(one.forwards.iter(), 9);
            (
                Line::Append(one.chain, one.rule).to_string(),
                names,
                one.all,
            )
        });
        each.collect()
    }

    #[test]
    fn a_rule_is_named_if_it_can_refuse_a_forward_s_first_packet() {
        // The rule, the forwards that it concerns, and whether it refuses them whole.
        for (rule, names, all) in [
            ("-s 198.51.100.10/32 -j DROP", "web, dns", false),
            ("! -s 198.51.100.0/24 -j DROP", "web, dns", false),
            (
                "-m set --match-set crowdsec-blacklists src -j DROP",
                "web, dns",
                false,
            ),
            (
                "-j REJECT --reject-with icmp-host-prohibited",
                "web, dns",
                true,
            ),
            ("-i eth0 -j DROP", "web, dns", true),
            ("-i eth+ -j DROP", "web, dns", false),
            ("-p tcp -j DROP", "web", true),
            ("-p tcp -m tcp --dport 80 -j DROP", "web", true),
            ("-p tcp -m multiport --dports 22,80 -j DROP", "web", true),
            ("-p udp -m udp --dport 5353 -j DROP", "dns", true),
            ("-d 10.224.0.99/32 -j DROP", "dns", true),
            (
                "-s 198.51.100.10/32 -d 10.224.0.99/32 -o eth1 -j DROP",
                "dns",
                false,
            ),
            (
                "-m conntrack --ctstate NEW -m conntrack --ctorigdstport 53 -j DROP",
                "dns",
                true,
            ),
            (
                "-m conntrack --ctorigdst 10.3.0.4 -j DROP",
                "web, dns",
                false,
            ),
            (
                "-p tcp -m hashlimit --hashlimit-above 9/sec --hashlimit-burst 5 --hashlimit-name n -j DROP",
                "web",
                false,
            ),
            // The ports before DNAT, other ways, other protocols, other packets of a connection.
            ("-p tcp -m tcp --dport 49182 -j DROP", "", false),
            ("-p tcp -m tcp --dport 443 -j DROP", "", false),
            ("-i eth1 -j DROP", "", false),
            ("-o docker0 -j DROP", "", false),
            ("-d 172.17.0.0/16 -j DROP", "", false),
            ("-p icmp -j DROP", "", false),
            ("-m conntrack --ctstate INVALID -j DROP", "", false),
            (
                "-m conntrack --ctstate RELATED,ESTABLISHED -j DROP",
                "",
                false,
            ),
            (
                "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP",
                "",
                false,
            ),
            ("-s 198.51.100.10/32 -j ACCEPT", "", false),
            ("-s 198.51.100.10/32 -j LOG --log-prefix \"x \"", "", false),
        ] {
            let line = format!("-A FORWARD {rule}");
            let expected = (!names.is_empty()).then(|| (line.clone(), names.to_owned(), all));
            assert_eq!(found(&line), Vec::from_iter(expected), "{rule}");
        }
    }

    #[test]
    fn only_rules_that_are_met_before_the_jump_now_are_named() {
        let ban = "-A FORWARD -s 198.51.100.10/32 -j DROP";
        let jump = "-A FORWARD -j NVACTL-FORWARD";
        for (lines, count) in [
            (format!(":NVACTL-FORWARD - [0:0]\n{ban}\n{jump}"), 1),
            (format!(":NVACTL-FORWARD - [0:0]\n{jump}\n{ban}"), 0),
            (format!(":NVACTL-FORWARD - [0:0]\n{ban}\n{jump}\n{ban}"), 1),
            // Accepted before it, it was never met.
            (format!("-A FORWARD -j ACCEPT\n{ban}"), 0),
            (format!("-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n{ban}"), 1),
            (ban.replace("FORWARD", "INPUT"), 0),
        ] {
            assert_eq!(found(&lines).len(), count, "{lines}");
        }
        let set = set(SPEC);
        let without = Ruleset::default();
        assert_eq!(
            overtaken(&live(ban), &without, &set),
            [],
            "nothing comes before it"
        );
    }

    #[test]
    fn chains_are_followed_that_forward_leads_to() {
        let chains = ":f2b-web - [0:0]\n:f2b-ssh - [0:0]\n:idle - [0:0]\n";
        let lines = "-A FORWARD -p tcp -m multiport --dports 80,443 -j f2b-web
-A FORWARD -p tcp -m tcp --dport 22 -j f2b-ssh
-A f2b-web -s 198.51.100.10/32 -j REJECT --reject-with icmp-port-unreachable
-A f2b-web -j RETURN
-A f2b-ssh -s 198.51.100.11/32 -j DROP
-A idle -j DROP";
        let ban = "-A f2b-web -s 198.51.100.10/32 -j REJECT --reject-with icmp-port-unreachable";
        let web = vec![(ban.to_owned(), "web".to_owned(), false)];
        assert_eq!(found(&format!("{chains}{lines}")), web);
        let by_goto = lines.replace("-j f2b-web", "-g f2b-web");
        assert_eq!(found(&format!("{chains}{by_goto}")), web);
    }

    #[test]
    fn a_hairpin_is_reached_from_behind_as_well() {
        let hairpin = set(&SPEC.replace(":80}", ":80}, hairpin: true"));
        let live = live("-A FORWARD -i eth1 -s 10.224.0.7/32 -j DROP");
        let want = plan(&hairpin, Family::V4);
        let found = overtaken(&live, &want, &hairpin);
        assert_eq!(found.len(), 1);
        assert_eq!(*found[0].forwards, [&hairpin.forwards[0].name]);
    }

    #[test]
    fn the_warning_shows_the_rules_and_the_edit_that_refuses_the_same_clients() {
        let set = set(SPEC);
        let want = plan(&set, Family::V4);
        let told = |lines: &str| told(&overtaken(&live(lines), &want, &set), Family::V4);
        assert_eq!(told("-A FORWARD -j ACCEPT"), None);
        assert_eq!(
            told("-A FORWARD -s 198.51.100.10/32 -j DROP\n-A FORWARD -s 203.0.113.0/24 -p udp -j DROP")
                .as_deref(),
            Some(
                "2 rules that refuse packets of forwards come to stand behind nvactl's jump, which accepts them:
  -A FORWARD -s 198.51.100.10/32 -j DROP (`web`, `dns`)
  -A FORWARD -s 203.0.113.0/24 -p udp -j DROP (`dns`)
hint: to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [198.51.100.10/32, 203.0.113.0/24]"
            )
        );
        for (lines, hint) in [
            ("-A FORWARD -p tcp -j DROP", "enabled: false"),
            (
                "-A FORWARD -m set --match-set bad src -j DROP",
                "deny_from: [NETWORK, NETWORK]",
            ),
        ] {
            let text = told(lines).expect("it is named");
            assert!(text.ends_with(hint), "{text}");
        }
        let bans = (0..30).map(|n| format!("-A FORWARD -s 198.51.100.{n}/32 -j DROP\n"));
        let text = told(&bans.collect::<String>()).expect("they are named");
        assert!(text.contains("\n  and 10 more such rules\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + MOST_SHOWN + 2);
    }

    #[test]
    fn of_ipv6_the_networks_are_quoted() {
        let set = set("firewall: {interface: eth0, snat: \"fd00::4\"}
forwards: [{name: web, listen: 80, target: {pod: \"[fd00::10]:80\"}}]");
        let (live, want) = (
            live("-A FORWARD -s 2001:db8::/32 -j DROP"),
            plan(&set, Family::V6),
        );
        let text = told(&overtaken(&live, &want, &set), Family::V6).expect("it is named");
        assert!(text.starts_with("1 ip6tables rule"), "{text}");
        assert!(text.ends_with("deny_from: [\"2001:db8::/32\"]"), "{text}");
    }

    /// Too many to be told apart: all forwards of the protocol are named, in bounded time.
    #[test]
    fn many_forwards_and_many_conditions_are_compared_in_bounded_work() {
        let forwards = (1..=2000).map(|n| {
            format!("  - {{name: f{n}, listen: {n}, target: {{pod: 10.224.0.118:{n}}}, silence: [takes-ssh]}}\n")
        });
        let head = SPEC
            .split_inclusive("forwards:\n")
            .next()
            .expect("it has a head");
        let set = set(&format!("{head}{}", forwards.collect::<String>()));
        let rules = (1..=2000).map(|n| format!("-A FORWARD -p tcp -m tcp --dport {n} -j DROP\n"));
        let (live, want) = (live(&rules.collect::<String>()), plan(&set, Family::V4));
        let found = overtaken(&live, &want, &set);
        assert_eq!(found.len(), 2000);
        assert!(
            found
                .iter()
                .all(|one| one.forwards.len() == 2000 && !one.all)
        );
    }
}
