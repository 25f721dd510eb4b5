//! A forward field by field, in words.

use std::fmt::Display;

use crate::limit::PerSecond;
use crate::spec::{Balance, Forward, ForwardSet, Limits, Log, Logged, Per, Rate};

/// What a forward says, by the key of a spec that says it.
pub fn fields(forward: &Forward) -> [(&'static str, String); 12] {
    let way = WAY.map(|field| (field.name(), field.of(forward)));
    let [ingress, egress, snat] = way;
    let sources = &forward.sources;
    [
        ("listen", forward.listen.to_string()),
        ("protocol", forward.protocol.to_string()),
        ("target", forward.reaches()),
        ("balance", balance(forward.target.balance).to_owned()),
        ingress,
        egress,
        snat,
        (
            "allow_from",
            sources
                .allow
                .as_ref()
                .map_or("all".to_owned(), ToString::to_string),
        ),
        ("deny_from", sources.deny.to_string()),
        ("limits", forward.limits.map_or("none".to_owned(), limits)),
        ("log", forward.log.as_ref().map_or("none".to_owned(), log)),
        ("hairpin", forward.hairpin.to_string()),
    ]
}

/// What the firewall says for forwards that do not.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Ingress,
    Egress,
    Snat,
}

pub const WAY: [Way; 3] = [Way::Ingress, Way::Egress, Way::Snat];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Ingress => "ingress",
            Way::Egress => "egress",
            Way::Snat => "snat",
        }
    }

    fn of(self, forward: &Forward) -> String {
        match self {
            Way::Ingress => list(&forward.ingress),
            Way::Egress => forward.egress.to_string(),
            Way::Snat => forward.snat.to_string(),
        }
    }

    /// Whether a forward has here what the firewall says for all.
    pub fn usual(self, forward: &Forward, set: &ForwardSet) -> bool {
        let firewall = &set.firewall;
        match self {
            Way::Ingress => forward.ingress == firewall.ingress,
            Way::Egress => forward.egress == firewall.egress,
            Way::Snat => firewall.snat.of(forward.family()) == Some(forward.snat),
        }
    }
}

fn list(items: &[impl Display]) -> String {
    let words: Vec<String> = items.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::Random => "random",
        Balance::Client => "client",
    }
}

/// The same for explanations: `50 new a second, 100 at once, 1000 at a time, of each client`.
pub fn limits(limits: Limits) -> String {
    let Limits {
        rate,
        max_connections,
        per,
        reject,
    } = limits;
    let mut words = Vec::new();
    if let Some(Rate {
        new_per_second,
        burst,
    }) = rate
    {
        words.push(format!("{} new a second", PerSecond::times(new_per_second)));
        words.push(format!("{burst} at once"));
    }
    words.extend(max_connections.map(|most| format!("{most} connections")));
    words.push(
        match per {
            Per::Total => "all together",
            Per::Client => "of each client",
        }
        .to_owned(),
    );
    if reject {
        words.push("rejected beyond".to_owned());
    }
    words.join(", ")
}

fn log(log: &Log) -> String {
    let which = match log.connections {
        Logged::Accepted => "accepted",
        Logged::Refused => "refused",
        Logged::All => "all",
    };
    let level = Log::LEVELS
        .get(usize::from(log.level))
        .unwrap_or(&"unknown");
    format!(
        "{which} as `{}`, {level}, {} a minute",
        log.prefix, log.per_minute
    )
}
