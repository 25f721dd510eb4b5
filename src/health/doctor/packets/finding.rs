//! A finding about one forward, and the clients for whom it was found.

use ipnet::IpNet;

use super::words::{client, subject};
use crate::health::doctor::{Check, Hop, Status};
use crate::net::words::counted;
use crate::twin::battery::{Ask, NamedEnd};
use crate::twin::cause::{By, Direction, KernelReason};
use crate::twin::clients::{ClientKind, SampleClient};
use crate::twin::verdict::Verdict;

/// A finding, and the clients for whom it was found.
pub struct Finding<'a> {
    pub check: Check,
    pub clients: Vec<&'a SampleClient>,
    /// The ends that rules of others name, if all connections were chosen for such an end.
    named: Option<Vec<NamedEnd>>,
    /// Whether the sentence begins with the clients.
    pub is_of_clients: bool,
    /// Whether a route or a policy rule forbids the way, as a blackhole.
    pub is_forbidden: bool,
    /// Whether the machine has no route to a client.
    is_of_route_to_clients: bool,
}

impl<'a> Finding<'a> {
    /// Returns the finding that a verdict leads to, without its clients.
    pub fn new(check: Check, verdict: &Verdict) -> Self {
        Self {
            check,
            clients: Vec::new(),
            named: Some(Vec::new()),
            is_of_clients: matches!(verdict, Verdict::LetIn(_)),
            is_forbidden: is_forbidden(verdict),
            is_of_route_to_clients: has_no_route_to_client(verdict),
        }
    }

    /// Whether a check is this finding about another client.
    pub fn takes(&self, check: &Check) -> bool {
        self.check.code == check.code && self.check.reason == check.reason
    }

    /// Adds a connection, and keeps the worst status and the first fix.
    pub fn add(&mut self, check: Check, ask: &'a Ask<'_>) {
        let client = &ask.client;
        match (&mut self.named, ask.named) {
            (Some(known), Some(named)) if known.contains(&named) => {}
            (Some(known), Some(named)) => known.push(named),
            _ => self.named = None,
        }
        if self.check.fix.is_none() {
            self.check.fix = check.fix;
            self.check.tried = check.tried;
        }
        let is_known = self.clients.iter().any(|one| one.address == client.address);
        let is_worse = severity(check.status) > severity(self.check.status);
        if is_worse {
            self.check.status = check.status;
        }
        if !is_known {
            self.clients.push(client);
        }
    }

    /// Turns a failure into a warning if a rule of others bans only the networks that it names, even if a client of
    /// such a network is connected now, or if a route forbids a network of which nobody is connected. A ban of a
    /// destination or a port that the spec does not name is such a ban as well. `named` holds
    /// the networks that rules name, each with its finding; `at` is this finding.
    pub fn moderate(&mut self, named: &[(IpNet, usize)], at: usize) {
        let is_named = |client: &SampleClient| {
            let mut nets = named.iter().filter(|(_, of)| *of == at);
            match client.kind {
                ClientKind::Named(_) => true,
                ClientKind::Seen => nets.any(|(net, _)| net.contains(&client.address)),
                _ => false,
            }
        };
        let is_rule = [
            Hop::ForeignRule,
            Hop::OtherBackend,
            Hop::NativeNft,
            Hop::ForwardRule,
        ];
        let are_named = self.named.is_some() || self.clients.iter().all(|one| is_named(one));
        let is_ban = is_rule.contains(&self.check.code) && are_named;
        let of_nobody = |one: &&SampleClient| matches!(one.kind, ClientKind::Named(_));
        let are_nobody = self.named.is_some() || self.clients.iter().all(of_nobody);
        let is_closed = self.is_forbidden && are_nobody;
        let is_fail = self.check.status == Status::Fail && !self.is_of_clients;
        if is_fail && (is_ban || is_closed) {
            self.check.status = Status::Warn;
        }
    }

    /// Returns the check. It names the clients if it concerns some of them, or the route to them.
    pub fn into_check(mut self, somebody_passes: bool) -> Check {
        let are_some = somebody_passes || self.is_of_route_to_clients;
        let reason = &self.check.reason;
        if let Some([first, more @ ..]) = self.named.as_deref() {
            let more = match more.len() {
                0 => String::new(),
                many => format!(", and {} of connections", counted(many, "more group")),
            };
            self.check.reason = format!("{reason}; affected: {first}{more}");
            return self.check;
        }
        self.check.reason = match (self.clients.as_slice(), self.is_of_clients) {
            ([first], true) => format!("{} {reason}", subject(first)),
            ([first, more @ ..], true) => {
                let more = counted(more.len(), "more group");
                format!("{} and {more} of clients {reason}", subject(first))
            }
            ([first], false) if are_some => format!("{reason}; affected: {}", client(first)),
            ([first, more @ ..], false) if are_some => {
                let more = counted(more.len(), "more group");
                format!(
                    "{reason}; affected: {}, and {more} of clients",
                    client(first)
                )
            }
            _ => return self.check,
        };
        self.check
    }
}

fn has_no_route_to_client(verdict: &Verdict) -> bool {
    let Verdict::Dead(death) = verdict else {
        return false;
    };
    let mut causes = death.causes.iter();
    causes.any(|taken| {
        taken.direction == Direction::Reply && matches!(taken.by, By::Kernel(KernelReason::NoRoute))
    })
}

fn is_forbidden(verdict: &Verdict) -> bool {
    let Verdict::Dead(death) = verdict else {
        return false;
    };
    let mut causes = death.causes.iter();
    let forbids = |by: &By| {
        let By::Kernel(reason) = by else {
            return false;
        };
        let routes = [
            KernelReason::Blackhole,
            KernelReason::Prohibited,
            KernelReason::Unreachable,
        ];
        routes.contains(reason)
    };
    !death.causes.is_empty() && causes.all(|taken| forbids(&taken.by))
}

fn severity(status: Status) -> u8 {
    match status {
        Status::Ok => 0,
        Status::Warn => 1,
        Status::Unknown => 2,
        Status::Fail => 3,
    }
}
