//! Sentences about packets: what took them, and whose they were.

use crate::net::Family;
use crate::net::printable;
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::twin::battery::Ask;
use crate::twin::cause::{By, Decided, Direction, Fate, Holder, Taken};
use crate::twin::clients::{ClientKind, SampleClient};
use crate::twin::explain::KeptIn;

/// Says what keeps the machine's own packets from a target, or why that is not known.
#[must_use]
pub fn keeps(family: Family, found: &KeptIn) -> String {
    let taken = match found {
        KeptIn::By(taken) => taken.as_ref().map(|taken| &taken.by),
        KeptIn::Failed(why) => {
            return format!(
                "whether the machine's own rules keep its packets in could not be tried: {why}"
            );
        }
        KeptIn::NotAsked => {
            return "whether the machine's own rules keep its packets in was not tried: the doctor's time \
                    limit was reached first"
                .to_owned();
        }
    };
    match taken {
        Some(By::Rule(decided) | By::Policy(decided)) => {
            format!("{} takes the machine's own packets", rule(family, decided))
        }
        _ => "the machine's own packets do not reach it in a copy of this machine either, where every \
              target answers"
            .to_owned(),
    }
}

/// Says what took a packet, with the packet's direction.
#[must_use]
pub fn took(family: Family, ask: &Ask<'_>, taken: &Taken) -> String {
    let whose = match taken.direction {
        Direction::Request => "packets",
        Direction::Reply => "replies",
    };
    let decided = match &taken.by {
        By::Kernel(reason) => {
            let of = match taken.direction {
                Direction::Request => "a packet",
                Direction::Reply => "a reply",
            };
            return format!("{of} {}", reason.words());
        }
        By::NoRule if matches!(taken.fate, Fate::SourceTranslated { .. }) => {
            return format!(
                "no rule gives the {whose} the source that the spec says, {}",
                ask.forward.snat
            );
        }
        By::NoRule => {
            return format!("{whose} to {} are not translated", ask.question.to);
        }
        By::Rule(decided) | By::Policy(decided) => decided,
    };
    let rule = rule(family, decided);
    match taken.fate {
        Fate::Dropped => format!("{rule} drops the {whose}"),
        Fate::Rejected => format!("{rule} rejects the {whose}"),
        Fate::Diverted => format!("{rule} hands the {whose} to a program"),
        Fate::Unresolved => format!(
            "{rule} drops neighbour discovery (ICMPv6), without which no {whose} come or go"
        ),
        Fate::Translated {
            to: (address, port),
        } => {
            format!(
                "{rule} sends the {whose} elsewhere, to {}:{port}",
                crate::net::Host(address)
            )
        }
        Fate::Redirected { to: (_, port) } => {
            format!("{rule} redirects the {whose} to port {port} of this machine")
        }
        Fate::SourceTranslated { to } => format!("{rule} gives the {whose} the source {to}"),
        Fate::Untranslated => format!("{rule} exempts the {whose} from translation"),
    }
}

/// Names a rule or a policy: its program, table, chain and text.
#[must_use]
pub fn rule(family: Family, decided: &Decided) -> String {
    let owner = decided
        .owner
        .map(|owner| format!("{owner}'s "))
        .unwrap_or_default();
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
                Some(_) => format!(
                    "{program}: {owner}rule in {table}, `{}`,",
                    printable::line(&decided.text)
                ),
                None => format!("{program}: the policy of {chain} in {table}"),
            }
        }
        Holder::Nft(chain) => {
            let named = format!("{} {} {}", chain.family, chain.table, chain.name);
            match decided.handle {
                Some(_) => format!(
                    "{owner}rule in the nft chain {named}, `{}`,",
                    printable::line(&decided.text)
                ),
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
        ClientKind::Somebody => format!("a client of the Internet ({address}, made up)"),
        ClientKind::Seen => format!("{address}, which is connected now"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net} ({address})")
        }
    }
}

/// Returns the words for a client and all others of its kind.
pub fn subject(client: &SampleClient) -> String {
    let SampleClient { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("clients of the Internet ({address}, made up)"),
        ClientKind::Seen => format!("clients such as {address}, which is connected now,"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net}")
        }
    }
}
