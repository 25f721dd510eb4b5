//! The keys at the top of a spec.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::firewall::FirewallForm;
use super::forward::{ForwardForm, OptionsForm};
use super::outbound::OutboundForm;
use super::packet_test::TestForm;
use super::rules;
use super::value::{self, DescriptionText, NetworkPath, NetworkText};

/// The ports that a firewall forwards to a private network, and the networks that may open connections outward.
/// nvactl makes iptables rules of it.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "nvactl spec", transform = rules::forwards_or_outbound)]
pub struct SpecForm {
    /// The version of the spec's form: 1. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::version")]
    pub version: Option<u8>,

    /// Words for people about the whole spec: one line of at most 200 characters. No rule has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DescriptionText", example = &"NVA of cluster prod-1")]
    pub description: Option<String>,

    /// The interfaces and the source address of the firewall, and options of all its rules.
    #[schemars(extend("type" = "object"))]
    pub firewall: FirewallForm,

    /// Names for lists of networks. A name may stand in `allow_from`, `deny_from`, `allow_to`, `deny_to`, and in
    /// `from` of a test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "BTreeMap<String, NetworksForm>",
        example = serde_json::json!({"office": ["198.51.100.0/24", "2001:db8::/32"], "scanners": {"file": "scanners.txt"}}),
        transform = rules::names_of_networks
    )]
    pub networks: Option<BTreeMap<String, NetworksForm>>,

    /// Options for all forwards that do not set their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OptionsForm", extend("type" = "object"), example = serde_json::json!({"protocol": "tcp"}))]
    pub defaults: Option<OptionsForm>,

    /// The ports of the firewall, each with the target that gets its connections. May be empty: `[]`. It may be left
    /// out if the spec has `outbound`.
    #[serde(default)]
    pub forwards: Vec<ForwardForm>,

    /// Connections that the firewall routes outward for hosts behind it. The first entry that matches a connection
    /// decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<OutboundForm>,

    /// Connections, and the hosts that they must reach. `nvactl test` opens them in a copy of a machine. They change
    /// no rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestForm>,

    /// Warnings and notes of `nvactl check` that the whole spec does not want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::codes", example = ["unused-network"])]
    pub silence: Option<Vec<String>>,
}

/// A failed test prints the spec as YAML, so that it can be tried by hand.
impl fmt::Debug for SpecForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_yaml::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "\n{text}")
    }
}

/// The networks of a name: a list, or a file with one network a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
#[schemars(inline)]
pub enum NetworksForm {
    List(#[schemars(with = "Vec<NetworkText>", length(min = 1))] Vec<String>),
    File {
        /// The path of a file with one network a line, counted from the spec's folder: in it or below it.
        #[schemars(with = "NetworkPath", example = &"scanners.txt")]
        file: String,
    },
}
