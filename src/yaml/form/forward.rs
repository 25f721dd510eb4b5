//! An entry of `forwards`, and the options that `defaults` may have too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::firewall::{InterfaceForm, SnatForm};
use super::options::{LimitsForm, LogForm};
use super::rules;
use super::value::{
    self, DescriptionText, EntryName, IlbText, ListenerText, NetworkOrName, OneOrMany, PodText,
    PortForm, YesOrNo,
};

/// One forward: its listeners, its target and its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(
    rename = "forward",
    transform = rules::only_known_keys,
    transform = rules::someone_is_allowed,
    transform = rules::snat_of_a_family,
    transform = rules::ports_of_pods
)]
pub struct ForwardForm {
    /// The forward's name, unique among forwards and outbound entries: 1 to 63 of A-Z a-z 0-9 _ . - and first a letter
    /// or a digit. It is the comment of the forward's rules.
    #[schemars(with = "EntryName", example = &"web")]
    pub name: String,

    /// Words for people about the forward: one line of at most 200 characters. No rule has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DescriptionText", example = &"storefront")]
    pub description: Option<String>,

    /// `false` keeps the forward in the file, and loads no rule for it. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "YesOrNo", example = false)]
    pub enabled: Option<bool>,

    /// The port on which the forward listens, or a range: `PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`, or a list of
    /// those. Without an address, it listens on all addresses of the VM. IPv6 is in brackets and quotes.
    #[schemars(
        with = "OneOrMany<ListenerText>",
        example = 443,
        example = &"203.0.113.10:443",
        example = serde_json::json!([80, 443, "8000-8010"])
    )]
    pub listen: OneOrMany<PortForm>,

    /// The host that gets the connections: `ilb` for an internal load balancer, or `pod`.
    #[schemars(extend("type" = "object"))]
    pub target: TargetForm,

    #[serde(flatten)]
    pub options: OptionsForm,

    /// Problems of this forward that are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::codes_of_forward", example = ["takes-ssh"])]
    pub silence: Option<Vec<String>>,
}

/// The options of a forward, and of `defaults` for forwards that do not set their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "options", description = "", transform = rules::only_known_keys)]
pub struct OptionsForm {
    /// `tcp`, `udp`, or a list of both. Default: `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<ProtocolForm>", example = ["tcp", "udp"])]
    pub protocol: Option<OneOrMany<ProtocolForm>>,

    /// How several pods share connections: `random`, each connection by itself, or `client`, all connections of an
    /// address to one pod. Default: `random`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BalanceForm")]
    pub balance: Option<BalanceForm>,

    /// The interface by which clients come in (`ingress`) and the one by which the target is reached (`egress`). One name
    /// stands for both. Default for each side: the firewall's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InterfaceForm", example = serde_json::json!({"ingress": ["eth0", "eth2"]}))]
    pub interface: Option<InterfaceForm>,

    /// The source address that the target sees: an address of the VM, a range A-B of them, `masquerade` for the address
    /// of the interface, or `none` for the client's own. Default: the firewall's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SnatForm", example = &"10.3.0.4-10.3.0.7", example = &"masquerade")]
    pub snat: Option<SnatForm>,

    /// The clients that may connect: networks, addresses, and names from `networks`. Everybody else is refused. Default:
    /// everybody may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NetworkOrName>", example = ["198.51.100.0/24", "168.63.129.16"])]
    pub allow_from: Option<Vec<String>>,

    /// The clients that are refused, even if `allow_from` has them: networks, addresses, and names from `networks`.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NetworkOrName>", example = ["198.51.100.128/25"])]
    pub deny_from: Option<Vec<String>>,

    /// Limits for new connections. They replace all limits of `defaults`; `{}` removes those. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitsForm", extend("type" = "object"), example = serde_json::json!({"new_per_second": 50, "per": "client"}))]
    pub limits: Option<LimitsForm>,

    /// Writes a line to the kernel's log for the first packet of a connection: `true`, or a mapping with details. Default:
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogForm", example = true, example = serde_json::json!({"connections": "refused"}))]
    pub log: Option<LogForm>,

    /// `true` lets hosts behind the firewall, and the firewall itself, use the listener too. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "YesOrNo", example = true)]
    pub hairpin: Option<bool>,
}

/// The target of a forward: an internal load balancer or pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "target", description = "", transform = rules::ilb_or_pod)]
pub struct TargetForm {
    /// An internal load balancer: `IP`, `IP:PORT` or `IP:PORT-PORT`. Default for the port: the listen port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IlbText", example = &"10.224.0.222:49180")]
    pub ilb: Option<String>,

    /// A pod, or a list of at most 32 that share the connections: `IP:PORT` or `IP:PORT-PORT`. Beside a list of
    /// listeners, `IP` alone keeps their ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "OneOrMany<PodText>",
        transform = rules::most_pods,
        example = &"10.224.0.118:80",
        example = ["10.224.0.118:80", "10.224.0.119:80"]
    )]
    pub pod: Option<OneOrMany<String>>,
}

/// A protocol of a forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ProtocolForm {
    Tcp,
    Udp,
}

/// How several pods share connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum BalanceForm {
    Random,
    Client,
}
