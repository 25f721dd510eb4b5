//! The spec as plain serde types, read and written by another YAML library: a second opinion on
//! what nvactl's own reader makes of a sound spec.

use nvactl::spec::{self, ForwardSet};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u8>,
    pub firewall: Firewall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    pub forwards: Vec<Forward>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    pub interface: Interface,
    pub snat: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_policy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Interface {
    One(String),
    Two { ingress: String, egress: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    pub listen: Port,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Number(u16),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ilb: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The same spec in the one way in which [`of`] spells it.
pub fn normal(mut spec: Spec) -> Spec {
    spec.version = None;
    spec.firewall.forward_policy.get_or_insert("drop".into());
    if let Interface::One(name) = spec.firewall.interface {
        spec.firewall.interface = Interface::Two {
            ingress: name.clone(),
            egress: name,
        };
    }
    let defaults = spec.defaults.take();
    let protocol = defaults.and_then(|defaults| defaults.protocol);
    spec.forwards
        .retain(|forward| forward.enabled != Some(false));
    for forward in &mut spec.forwards {
        forward.enabled = None;
        forward
            .protocol
            .get_or_insert(protocol.unwrap_or(Protocol::Tcp));
        if let Port::Number(number) = forward.listen {
            forward.listen = Port::Text(number.to_string());
        }
        // A range of one port is that port.
        for endpoint in [&mut forward.target.ilb, &mut forward.target.pod]
            .into_iter()
            .flatten()
        {
            if let Some((rest, last)) = endpoint.split_once('-')
                && rest.ends_with(&format!(":{last}"))
            {
                *endpoint = rest.to_owned();
            }
        }
    }
    spec
}

/// What nvactl's own reader understood.
pub fn of(set: &ForwardSet) -> Spec {
    let firewall = &set.firewall;
    Spec {
        version: None,
        firewall: Firewall {
            interface: Interface::Two {
                ingress: firewall.ingress[0].to_string(),
                egress: firewall.egress.to_string(),
            },
            snat: firewall
                .snat
                .v4
                .map(|snat| snat.to_string())
                .unwrap_or_default(),
            forward_policy: Some(match firewall.forward_policy {
                spec::ForwardPolicy::Drop => "drop".into(),
                spec::ForwardPolicy::Keep => "keep".into(),
            }),
        },
        defaults: None,
        forwards: set.forwards.iter().map(forward).collect(),
    }
}

fn forward(forward: &spec::Forward) -> Forward {
    let target = Some(forward.target.to_string());
    Forward {
        name: forward.name.to_string(),
        enabled: None,
        listen: Port::Text(forward.listen.to_string()),
        protocol: Some(match forward.protocol {
            nvactl::net::Protocol::Tcp => Protocol::Tcp,
            nvactl::net::Protocol::Udp => Protocol::Udp,
        }),
        target: match forward.target.kind {
            spec::TargetKind::Ilb => Target {
                ilb: target,
                pod: None,
            },
            spec::TargetKind::Pod => Target {
                ilb: None,
                pod: target,
            },
        },
    }
}
