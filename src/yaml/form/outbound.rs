//! An entry of `outbound`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::firewall::{InterfaceForm, SnatForm};
use super::options::{LimitsForm, LogForm};
use super::rules;
use super::value::{
    self, DescriptionText, EntryName, NetworkOrName, OneOrMany, PartOrName, PortForm, PortOrRange,
    YesOrNo, words,
};

/// Connections that hosts behind the VM open outward.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "outbound-entry",
    transform = rules::ports_need_a_protocol,
    transform = rules::snat_of_a_family
)]
pub struct OutboundForm {
    /// The entry's name, unique among forwards and outbound entries: 1 to 63 of A-Z a-z 0-9 _ . - and first a letter or a
    /// digit. It is the comment of the entry's rules.
    #[schemars(with = "EntryName", example = &"pods-out")]
    pub name: String,

    /// Words for people about the entry: one line of at most 200 characters. No rule has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DescriptionText", example = &"to the Internet")]
    pub description: Option<String>,

    /// `false` keeps the entry in the file, and loads no rule for it. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "YesOrNo", example = false)]
    pub enabled: Option<bool>,

    /// The hosts that may open connections: networks, addresses, and names from `networks`. Not every address.
    #[schemars(with = "Vec<PartOrName>", length(min = 1), example = ["10.224.0.0/16"])]
    pub allow_from: Vec<String>,

    /// The destinations: `internet`, or a list of networks, addresses and names from `networks`, in which `internet` may
    /// stand. `internet` has no private network. Default: `internet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        schema_with = "value::destinations",
        example = &"internet",
        example = ["internet", "10.50.0.0/16"]
    )]
    // The word alone is in the schema, not in the type.
    pub allow_to: Option<Vec<String>>,

    /// Hosts whose connections are dropped, even if `allow_from` has them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NetworkOrName>", example = ["10.224.9.0/24"])]
    pub deny_from: Option<Vec<String>>,

    /// Destinations to which connections are dropped, even if `allow_to` has them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NetworkOrName>", example = ["203.0.113.0/24"])]
    pub deny_to: Option<Vec<String>>,

    /// `tcp`, `udp`, `ping`, or a list of those. Default: all three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "protocols", example = ["tcp", "udp"])]
    pub protocol: Option<OneOrMany<String>>,

    /// The destination ports: `PORT` or `PORT-PORT`, or a list of those. Needs a `protocol` without `ping`. Default: every
    /// port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<PortOrRange>", example = serde_json::json!([443, "8000-8010"]))]
    // A port alone is in the schema, not in the type.
    pub ports: Option<Vec<PortForm>>,

    /// The interface by which packets arrive (`ingress`) and the one by which they leave (`egress`). Default: the
    /// firewall's, with the two sides exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InterfaceForm", example = serde_json::json!({"ingress": "eth1", "egress": "eth0"}))]
    pub interface: Option<InterfaceForm>,

    /// The source address that servers see: an address of the VM, a range A-B of them, `masquerade` for the address of the
    /// interface, or `none` for the host's own. Default: `masquerade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SnatForm", example = &"masquerade", example = &"10.3.0.4")]
    pub snat: Option<SnatForm>,

    /// Limits for new connections, for each protocol of the entry by itself. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitsForm", extend("type" = "object"), example = serde_json::json!({"new_per_second": 50}))]
    pub limits: Option<LimitsForm>,

    /// Writes a line to the kernel's log for the first packet of a connection: `true`, or a mapping with details. Default:
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogForm", example = true, example = serde_json::json!({"connections": "refused"}))]
    pub log: Option<LogForm>,

    /// Problems of this entry that are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::codes", example = ["metadata-open"])]
    pub silence: Option<Vec<String>>,
}

fn protocols(_: &mut SchemaGenerator) -> Schema {
    let one = words(&["tcp", "udp", "ping"]);
    json_schema!({
        "anyOf": [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": true}]
    })
}
