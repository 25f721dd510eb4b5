//! The key `firewall`, and its values that entries may have too.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::rules;
use super::value::{
    InterfaceName, OneOrMany, SegmentSize, SnatText, SnatV4Text, SnatV6Text, words,
};

/// The interfaces and the source address of the firewall, and options of all its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "firewall", description = "")]
pub struct FirewallForm {
    /// The interface by which clients come in (`ingress`) and the one by which targets are reached (`egress`). One
    /// name stands for both.
    #[schemars(
        transform = rules::both_sides,
        example = &"eth0",
        example = serde_json::json!({"ingress": ["eth0", "eth2"], "egress": "eth1"})
    )]
    pub interface: InterfaceForm,

    /// The source address that targets see: an address of the VM, a range A-B of them, `masquerade` for the address of
    /// the interface, or `none` for the client's own. `v4` and `v6` set it by family. A spec with `forwards` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "SnatForm",
        example = &"10.3.0.4",
        example = &"masquerade",
        example = serde_json::json!({"v4": "10.3.0.4", "v6": "fd00::4"})
    )]
    pub snat: Option<SnatForm>,

    /// The largest TCP segment of all connections: `clamp` for what the VM's own routes carry, or a number of bytes
    /// from 536 to 65495. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SegmentSize", example = &"clamp", example = 1360)]
    pub mss: Option<MssForm>,

    /// The FORWARD policy. `drop` refuses everything that the spec does not forward, also what the VM routes for others.
    /// `keep` leaves the policy as it is. Default: `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "policies")]
    pub forward_policy: Option<String>,

    /// The rules' place in chains: `flat`, `tree`, or `auto`, which makes a tree of more than 128 DNAT rules. Both accept
    /// the same packets. Default: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "layouts")]
    pub layout: Option<String>,
}

/// `clamp`, or a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MssForm {
    Word(String),
    Bytes(u16),
}

/// One interface for both sides, or a mapping of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
#[schemars(inline)]
pub enum InterfaceForm {
    Both(#[schemars(with = "InterfaceName")] String),
    Sides {
        /// The interface by which packets arrive, or a list of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "OneOrMany<InterfaceName>", example = &"eth0")]
        ingress: Option<OneOrMany<String>>,
        /// The interface by which packets leave.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "InterfaceName", example = &"eth1")]
        egress: Option<String>,
    },
}

/// One source address, or one for each family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
#[schemars(inline)]
pub enum SnatForm {
    Any(#[schemars(with = "SnatText")] String),
    ByFamily {
        /// The source address of connections by IPv4: an address, a range A-B, `masquerade` or `none`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "SnatV4Text", example = &"10.3.0.4")]
        v4: Option<String>,
        /// The source address of connections by IPv6: an address, a range A-B, `masquerade` or `none`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "SnatV6Text", example = &"fd00::4")]
        v6: Option<String>,
    },
}

fn policies(_: &mut SchemaGenerator) -> Schema {
    words(&["drop", "keep"])
}

fn layouts(_: &mut SchemaGenerator) -> Schema {
    words(&["auto", "flat", "tree"])
}
