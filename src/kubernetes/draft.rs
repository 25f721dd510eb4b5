//! Services become forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::names::KubeName;
use super::protocol::KubeProtocol;
use super::service::{KubePort, KubeService, ServiceType, no_rule_annotation};
use crate::forwards::{
    Balance, Destination, Firewall, Forward, ForwardSet, ForwardTarget, Listen, Name, Snat,
    Sources, TargetKind, TargetPorts,
};
use crate::net::{Family, Port, PortRange, Protocol};

/// The networks that no router of the Internet knows (RFC 1918, RFC 6598, RFC 4193).
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];

/// The forwards to internal load balancers, and the account of each Service.
#[derive(Debug, Clone)]
pub struct ServiceDraft {
    /// A spec may still refuse the address of a target.
    pub set: ForwardSet,
    /// The forwards that a user must decide about.
    pub sketched: Vec<SketchedForward>,
    /// In the order of the Services and their ports.
    pub accounts: Vec<ServiceAccount>,
}

/// A forward that cannot stand beside the others, or beside the machine's own ssh, as long as it listens on this port.
#[derive(Debug, Clone)]
pub struct SketchedForward {
    /// One for each protocol.
    pub pieces: Vec<Forward>,
    pub reason: LeftOutReason,
}

/// The fate of a Service, or of one of its ports at one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    pub service: KubeName,
    pub kind: ServiceType,
    /// `None` if the account is about the whole Service.
    pub endpoint: Option<ServiceEndpoint>,
    pub fate: ServiceFate,
}

/// A port of a Service at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpoint {
    pub address: IpAddr,
    pub port: Port,
    pub protocols: Vec<KubeProtocol>,
    /// The names of the port.
    pub names: Vec<String>,
}

impl ServiceEndpoint {
    /// Returns the endpoint with these of its protocols alone.
    fn with(&self, protocols: &[Protocol]) -> Self {
        Self {
            protocols: protocols.iter().copied().map(KubeProtocol::from).collect(),
            ..self.clone()
        }
    }

    /// Returns whether routers of the Internet know its address.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !is_private(self.address)
    }
}

/// The fate of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFate {
    Forward(Name),
    /// The spec has the forward as a comment.
    Sketched(Name, LeftOutReason),
    LeftOut(LeftOutReason),
}

/// The reason why a Service is no forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOutReason {
    /// It has no load balancer.
    OtherType,
    Pending,
    HostnameOnly(String),
    Public(IpAddr),
    NoPorts,
    Protocol,
    /// The load balancer has no rule for this port.
    NoRule(Port),
    /// Another forward has its listener.
    Taken(Name),
    Ssh,
    /// A spec refuses it.
    Refused(String),
}

impl ServiceFate {
    /// Returns the word of reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            ServiceFate::Forward(_) => "forward",
            ServiceFate::Sketched(..) => "commented out",
            ServiceFate::LeftOut(_) => "left out",
        }
    }

    /// Returns the name of the forward that the spec has, or has as a comment.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            ServiceFate::Forward(name) | ServiceFate::Sketched(name, _) => Some(name),
            ServiceFate::LeftOut(_) => None,
        }
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftOutReason::OtherType => f.write_str("it has no load balancer"),
            LeftOutReason::Pending => f.write_str(
                "its load balancer has no address yet; `kubectl describe service` says what it waits for",
            ),
            LeftOutReason::HostnameOnly(name) => write!(
                f,
                "its load balancer has the name `{name}` and no address, and a target is an address"
            ),
            LeftOutReason::Public(address) => write!(
                f,
                "its load balancer is not internal: {address} is a public address"
            ),
            LeftOutReason::NoPorts => f.write_str("it exposes no port"),
            LeftOutReason::Protocol => f.write_str("a forward takes tcp and udp only"),
            LeftOutReason::NoRule(port) => write!(
                f,
                "its load balancer does not have this port: the annotation `{}` is set",
                no_rule_annotation(*port)
            ),
            LeftOutReason::Taken(name) => write!(f, "`{name}` listens on this port already"),
            LeftOutReason::Ssh => {
                f.write_str("it would take port 22 from the firewall's own ssh")
            }
            LeftOutReason::Refused(why) => write!(f, "a spec refuses it: {why}"),
        }
    }
}

/// Makes a forward for each port of each internal load balancer. It listens on the port that the load balancer exposes.
#[must_use]
pub fn draft<'s>(
    services: impl IntoIterator<Item = &'s KubeService>,
    firewall: Firewall,
) -> ServiceDraft {
    let mut drafting = Drafting {
        names: BTreeSet::new(),
        numbers: BTreeMap::new(),
        listeners: BTreeMap::new(),
        draft: ServiceDraft {
            set: ForwardSet {
                description: None,
                firewall,
                forwards: Vec::new(),
                outbound: Vec::new(),
                tests: Vec::new(),
            },
            sketched: Vec::new(),
            accounts: Vec::new(),
        },
    };
    for service in services {
        drafting.add(service);
    }
    drafting.draft
}

struct Drafting {
    names: BTreeSet<Name>,
    /// The next number for each wanted name.
    numbers: BTreeMap<String, u32>,
    listeners: BTreeMap<(Family, Protocol, Port), Name>,
    draft: ServiceDraft,
}

impl Drafting {
    fn add(&mut self, service: &KubeService) {
        if let Some(reason) = left_out(service) {
            self.account(service, None, ServiceFate::LeftOut(reason));
            return;
        }
        for address in &service.ingress {
            if !service.is_internal && !is_private(*address) {
                let reason = LeftOutReason::Public(*address);
                self.account(service, None, ServiceFate::LeftOut(reason));
                continue;
            }
            for endpoint in endpoints(service, *address) {
                self.add_endpoint(service, endpoint);
            }
        }
    }

    fn add_endpoint(&mut self, service: &KubeService, endpoint: ServiceEndpoint) {
        let ServiceEndpoint { address, port, .. } = endpoint;
        let protocols = endpoint.protocols.iter();
        let protocols: Vec<Protocol> = protocols.filter_map(|one| one.of_forward()).collect();
        if protocols.is_empty() {
            let fate = ServiceFate::LeftOut(LeftOutReason::Protocol);
            self.account(service, Some(endpoint), fate);
            return;
        }
        if service.without_rule.contains(&port) {
            let fate = ServiceFate::LeftOut(LeftOutReason::NoRule(port));
            self.account(service, Some(endpoint), fate);
            return;
        }
        let family = Family::of(address);
        let reason = |protocol: &Protocol| match self.listeners.get(&(family, *protocol, port)) {
            Some(name) => Some(LeftOutReason::Taken(name.clone())),
            None if port == Port::SSH && *protocol == Protocol::Tcp => Some(LeftOutReason::Ssh),
            None => None,
        };
        let reasons: Vec<Option<LeftOutReason>> = protocols.iter().map(reason).collect();
        let (free, taken): (Vec<_>, Vec<_>) = protocols
            .into_iter()
            .zip(reasons)
            .partition(|(_, reason)| reason.is_none());
        for part in [free, taken] {
            let reason = part.iter().find_map(|(_, reason)| reason.clone());
            let protocols: Vec<Protocol> = part.into_iter().map(|(protocol, _)| protocol).collect();
            if !protocols.is_empty() {
                self.add_part(service, endpoint.with(&protocols), (&protocols, reason));
            }
        }
    }

    /// Adds the forward of some protocols of an endpoint; as a comment if there is a reason.
    fn add_part(
        &mut self,
        service: &KubeService,
        endpoint: ServiceEndpoint,
        (protocols, reason): (&[Protocol], Option<LeftOutReason>),
    ) {
        let ServiceEndpoint { address, port, .. } = endpoint;
        let family = Family::of(address);
        let is_second = family == Family::V6 && service.ingress.iter().any(IpAddr::is_ipv4);
        let name = self.free_name(&service.name, port, if is_second { "-v6" } else { "" });
        let pieces = protocols.iter().map(|protocol| {
            let firewall = &self.draft.set.firewall;
            forward(&name, (address, port), *protocol, firewall)
        });
        let pieces: Vec<Forward> = pieces.collect();
        let fate = match reason {
            Some(reason) => {
                let fate = ServiceFate::Sketched(name, reason.clone());
                self.draft.sketched.push(SketchedForward { pieces, reason });
                fate
            }
            None => {
                for protocol in protocols {
                    let listener = (family, *protocol, port);
                    self.listeners.insert(listener, name.clone());
                }
                self.draft.set.forwards.extend(pieces);
                ServiceFate::Forward(name)
            }
        };
        self.account(service, Some(endpoint), fate);
    }

    fn account(
        &mut self,
        service: &KubeService,
        endpoint: Option<ServiceEndpoint>,
        fate: ServiceFate,
    ) {
        self.draft.accounts.push(ServiceAccount {
            service: service.name.clone(),
            kind: service.kind.clone(),
            endpoint,
            fate,
        });
    }

    /// Returns a name that is not taken: `NAMESPACE-SERVICE-PORT`, or that with `-2` and so on. Two Services may have
    /// one, such as `a/b-c` and `a-b/c`.
    fn free_name(&mut self, service: &KubeName, port: Port, end: &str) -> Name {
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let words = format!("{}-{}", service.namespace, service.name);
        let words = words.chars().map(|c| if is_allowed(&c) { c } else { '-' });
        let words: String = words
            .skip_while(|c| !c.is_ascii_alphanumeric())
            .take(Name::MAX_BYTES - "-65535-v6-99999".len())
            .collect();
        let words = if words.is_empty() { "service" } else { &words };
        let wanted = format!("{words}-{port}{end}");
        let next = self.numbers.entry(wanted.clone()).or_insert(1);
        loop {
            let text = match *next {
                1 => wanted.clone(),
                n => format!("{wanted}-{n}"),
            };
            *next += 1;
            let name: Name = text.parse().expect("it has the characters of a name");
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }
}

impl ServiceDraft {
    /// Takes a forward out that a spec refuses, and says so in its account.
    pub fn refuse(&mut self, name: &Name, why: &str) {
        self.set.forwards.retain(|one| one.name != *name);
        self.sketched.retain(|one| one.pieces[0].name != *name);
        for account in &mut self.accounts {
            if account.fate.name() == Some(name) {
                let reason = LeftOutReason::Refused(why.to_owned());
                account.fate = ServiceFate::LeftOut(reason);
            }
        }
    }
}

/// Returns the reason why a Service has no address to which a forward can lead.
fn left_out(service: &KubeService) -> Option<LeftOutReason> {
    if service.kind != ServiceType::LoadBalancer {
        return Some(LeftOutReason::OtherType);
    }
    if service.ports.is_empty() {
        return Some(LeftOutReason::NoPorts);
    }
    match (&service.ingress[..], &service.hostnames[..]) {
        ([], []) => Some(LeftOutReason::Pending),
        ([], [first, ..]) => Some(LeftOutReason::HostnameOnly(first.clone())),
        _ => None,
    }
}

fn is_private(address: IpAddr) -> bool {
    let mut nets = PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok());
    nets.any(|net| net.contains(&address))
}

/// Returns the ports of a Service, in its order. A port of two protocols is one.
fn endpoints(service: &KubeService, address: IpAddr) -> Vec<ServiceEndpoint> {
    let mut found: Vec<ServiceEndpoint> = Vec::new();
    for KubePort {
        name,
        protocol,
        port,
        ..
    } in &service.ports
    {
        let is_forwarded = |one: &KubeProtocol| one.of_forward().is_some();
        let same = found.iter_mut().find(|one| {
            one.port == *port && is_forwarded(&one.protocols[0]) && is_forwarded(protocol)
        });
        match same {
            Some(one) => {
                one.protocols.push(*protocol);
                one.protocols.sort_unstable();
                one.protocols.dedup();
                one.names.extend(name.clone());
            }
            None => found.push(ServiceEndpoint {
                address,
                port: *port,
                protocols: vec![*protocol],
                names: name.iter().cloned().collect(),
            }),
        }
    }
    found
}

fn forward(
    name: &Name,
    (address, port): (IpAddr, Port),
    protocol: Protocol,
    firewall: &Firewall,
) -> Forward {
    let snat = firewall.snat.of(Family::of(address));
    Forward {
        name: name.clone(),
        description: None,
        listen: Listen {
            address: None,
            ports: PortRange::from(port),
        },
        protocol,
        target: ForwardTarget {
            kind: TargetKind::Ilb,
            destinations: vec![Destination {
                address,
                ports: TargetPorts::Range(PortRange::from(port)),
            }],
            balance: Balance::Random,
        },
        ingress: firewall.ingress.clone(),
        egress: firewall.egress.clone(),
        snat: snat.unwrap_or(Snat::Masquerade),
        sources: Sources::default(),
        limits: None,
        log: None,
        hairpin: false,
    }
}
