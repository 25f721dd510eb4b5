//! Sentences about packets: the rule that took them, and the client that sent them.

use crate::net::Family;
use crate::net::printable;
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::twin::battery::{Ask, Subject};
use crate::twin::cause::{By, DecidingRule, Direction, Fate, Holder, KernelReason, Taken};
use crate::twin::clients::{ClientKind, SampleClient};
use crate::twin::explain::KeptIn;

/// Names the rule that keeps the machine's own packets from a target, or says why that is not known.
#[must_use]
pub fn keeps(family: Family, found: &KeptIn) -> String {
    let taken = match found {
        KeptIn::By(taken) => taken.as_ref().map(|taken| &taken.by),
        KeptIn::Failed(why) => {
            return format!(
                "it is not known whether a rule stops this machine's own packets: {why}"
            );
        }
        KeptIn::NotAsked => {
            return "it is not known whether a rule stops this machine's own packets: the time limit was \
                    reached first"
                .to_owned();
        }
    };
    match taken {
        Some(By::Rule(decided) | By::Policy(decided)) => {
            format!("{} stops this machine's own packets", rule(family, decided))
        }
        _ => "this machine's own packets do not reach the target in a copy of the machine either, where \
              every target answers"
            .to_owned(),
    }
}

/// Says what stopped or changed a packet, and the packet's direction.
#[must_use]
pub fn took(family: Family, ask: &Ask<'_>, taken: &Taken) -> String {
    let whose = match taken.direction {
        Direction::Request => "packets",
        Direction::Reply => "replies",
    };
    let far_end = ask.of.far_end();
    let decided = match &taken.by {
        By::Kernel(KernelReason::NoRoute) => {
            let target = ask.question.listeners.first();
            return match (taken.direction, target) {
                (Direction::Request, Some(target)) => {
                    format!("a packet has no route to the {far_end} {}", target.ip())
                }
                (Direction::Request, None) => format!("a packet has no route to the {far_end}"),
                (Direction::Reply, _) => "a reply has no route to the client".to_owned(),
            };
        }
        By::Kernel(reason) => {
            let of = match taken.direction {
                Direction::Request => "a packet",
                Direction::Reply => "a reply",
            };
            return format!("{of} {}", reason.words());
        }
        By::NoRule if matches!(taken.fate, Fate::SourceTranslated { .. }) => {
            return format!(
                "no rule gives the {whose} the source of the spec, {}",
                ask.of.snat()
            );
        }
        By::NoRule => {
            let to = ask.question.to;
            return match (taken.direction, ask.of) {
                (Direction::Request, Subject::Forward(_)) => {
                    format!("no rule translates packets to {to}")
                }
                (Direction::Request, Subject::Outbound(_)) => {
                    format!("packets to {to} end at this machine itself")
                }
                (Direction::Reply, _) => {
                    format!("replies to connections to {to} are not translated back")
                }
            };
        }
        By::Rule(decided) | By::Policy(decided) => decided,
    };
    let rule = rule(family, decided);
    match taken.fate {
        Fate::Dropped => format!("{rule} drops the {whose}"),
        Fate::Rejected => format!("{rule} rejects the {whose}"),
        Fate::Diverted => format!("{rule} passes the {whose} to a program"),
        Fate::Unresolved => {
            format!("{rule} drops neighbour discovery (ICMPv6), and no {whose} pass without it")
        }
        Fate::Translated {
            to: (address, port),
        } => {
            format!(
                "{rule} sends the {whose} to {}:{port} instead of the {far_end}",
                crate::net::Host(address)
            )
        }
        Fate::Redirected { to: (_, port) } => {
            format!("{rule} redirects the {whose} to port {port} of this machine")
        }
        Fate::SourceTranslated { to } => format!("{rule} gives the {whose} the source {to}"),
        Fate::Untranslated => format!("{rule} makes the {whose} skip NAT"),
    }
}

/// Names a rule or a policy: its program, table, chain and text.
#[must_use]
pub fn rule(family: Family, decided: &DecidingRule) -> String {
    let owner = decided
        .owner
        .map(|owner| format!("{owner}'s "))
        .unwrap_or_default();
    let text = printable::line(&decided.text);
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let program = match backend {
                Backend::Auto => plain(family).to_owned(),
                named => named.program(family, "iptables"),
            };
            match decided.place {
                Some(_) => format!("{owner}{program} rule `{text}` in {table}"),
                None => format!("the {program} policy of {chain} in {table}"),
            }
        }
        Holder::Nft(chain) => {
            let named = format!("{} {} {}", chain.family, chain.table, chain.name);
            match decided.handle {
                Some(_) => format!("{owner}nft rule `{text}` in chain {named}"),
                None => format!("the policy of the nft chain {named}"),
            }
        }
    }
}

/// Returns the words for an example of a client.
#[must_use]
pub fn client(client: &SampleClient) -> String {
    let SampleClient { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("a client of the Internet, {address} for example"),
        ClientKind::Seen => format!("{address}, which is connected now"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net}, {address} for example")
        }
    }
}

/// Returns the words for the one client that was tried.
#[must_use]
pub fn tried_client(client: &SampleClient) -> String {
    match client.kind {
        ClientKind::Somebody => format!("the made-up client {}", client.address),
        _ => self::client(client),
    }
}

/// Returns the words for a client and all others of its kind.
pub fn subject(client: &SampleClient) -> String {
    let SampleClient { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("clients of the Internet, {address} for example,"),
        ClientKind::Seen => format!("clients such as {address}, which is connected now,"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net}")
        }
    }
}
