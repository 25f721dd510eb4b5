//! An entry of `tests`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules;
use super::value::{ClientText, InterfaceName, PortForm, SnatText, TestNameText, words};

/// A connection, and the host that it must reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "test",
    transform = rules::ends_of_a_test,
    transform = rules::source_of_a_reached_host
)]
pub struct TestForm {
    /// Words for reports: one line of at most 140 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TestNameText", example = &"the office reaches web")]
    pub name: Option<String>,

    /// The client: an address, or a name from `networks`, which stands for its first address.
    #[schemars(with = "ClientText", example = &"198.51.100.7", example = &"office")]
    pub from: String,

    /// The destination: a port of the VM, or `IP:PORT`. For a ping, an address. IPv6 is in brackets and quotes.
    #[schemars(schema_with = "port_or_text", example = 443, example = &"203.0.113.10:443")]
    pub to: PortForm,

    /// `tcp`, `udp` or `ping`. Default: `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "protocols")]
    pub protocol: Option<String>,

    /// The interface by which the client comes in. Default: the one that leads to `from`.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InterfaceName", example = &"eth0")]
    pub ingress: Option<String>,

    /// `nothing`, or the host that gets the connection: `IP:PORT`, several separated by `|`. For a ping, addresses.
    #[schemars(
        schema_with = "text",
        example = &"nothing",
        example = &"10.224.0.118:443|10.224.0.119:443"
    )]
    pub reaches: String,

    /// The source that the host sees: an address, a range A-B of which it is one, `masquerade` for the address of the
    /// interface, or `none` for the client's own. Default: every source is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SnatText", example = &"10.3.0.4")]
    pub snat: Option<String>,
}

fn protocols(_: &mut SchemaGenerator) -> Schema {
    words(&["tcp", "udp", "ping"])
}

/// Returns the schema of any number or text. The protocol tells which of them are destinations.
fn port_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["integer", "string"]})
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}
