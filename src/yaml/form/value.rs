//! Single values of a spec: their types in Rust, and their schemas.
//!
//! nvactl reads a value from its text, so a number may be in quotes. `errorMessage` is no keyword of JSON Schema:
//! editors show it instead of the expression, and validators ignore it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pattern::{self, Prefixes};
use crate::forwards::{Description, Firewall, INTERNET, Log, TestName};
use crate::yaml::problem::Code;

/// A list, or a single value without brackets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum OneOrMany<T> {
    One(T),
    Many(#[schemars(length(min = 1), extend("uniqueItems" = true))] Vec<T>),
}

/// A port as a number, or any form of it as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortForm {
    Number(u16),
    Text(String),
}

/// Declares the schema of a value that a field holds as text: its type, the name of its schema, and the schema.
macro_rules! values {
    ($($(#[$doc:meta])* $name:ident, $id:literal, $schema:tt;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    $id.into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*
    };
}

values! {
    /// `true` or `false`.
    YesOrNo, "yes-or-no", {
        "type": ["boolean", "string"],
        "pattern": "^(true|false)$",
        "errorMessage": "Expected true or false."
    };
    /// The name of a forward or an outbound entry.
    EntryName, "name", {
        "type": ["string", "number"],
        "pattern": pattern::name(),
        "minimum": 0,
        "errorMessage": "Expected a name: 1 to 63 of A-Z a-z 0-9 _ . - and first a letter or a digit."
    };
    /// Words about the spec or one of its entries.
    DescriptionText, "description", {
        "type": ["string", "number"],
        "pattern": pattern::line(Description::MOST_CHARS),
        "errorMessage": format!("Expected one line of 1 to {} characters.", Description::MOST_CHARS),
        "allOf": [{"pattern": r"\S", "errorMessage": "Expected words."}]
    };
    /// The name of a test.
    TestNameText, "test-name", {
        "type": ["string", "number"],
        "pattern": pattern::line(TestName::MOST_CHARS),
        "errorMessage": format!("Expected one line of 1 to {} characters.", TestName::MOST_CHARS),
        "allOf": [{"pattern": r"\S", "errorMessage": "Expected words."}]
    };
    /// The name of an interface.
    InterfaceName, "interface-name", {
        "type": "string",
        "pattern": pattern::interface(),
        "errorMessage": "Expected the name of an interface, such as eth0: 1 to 15 of A-Z a-z 0-9 _ . -"
    };
    /// A source address for connections of both families.
    SnatText, "snat", {
        "type": "string",
        "pattern": pattern::snat(),
        "errorMessage": "Expected an address, a range A-B, masquerade or none."
    };
    /// A source address for connections by IPv4.
    SnatV4Text, "snat-v4", {
        "type": "string",
        "pattern": pattern::snat_v4(),
        "errorMessage": "Expected an IPv4 address, a range A-B, masquerade or none."
    };
    /// A source address for connections by IPv6.
    SnatV6Text, "snat-v6", {
        "type": "string",
        "pattern": pattern::snat_v6(),
        "errorMessage": "Expected an IPv6 address, a range A-B, masquerade or none."
    };
    /// The largest TCP segment.
    SegmentSize, "segment-size", {
        "type": ["integer", "string"],
        "pattern": "^(clamp|[1-9][0-9]{2,4})$",
        "minimum": Firewall::MSS.start(),
        "maximum": Firewall::MSS.end(),
        "errorMessage": format!("Expected clamp, or a number of bytes from {} to {}.", Firewall::MSS.start(), Firewall::MSS.end())
    };
    /// A port, or a range of ports.
    PortOrRange, "port-or-range", {
        "type": ["integer", "string"],
        "pattern": pattern::port_or_range(),
        "minimum": 1,
        "maximum": u16::MAX,
        "errorMessage": "Expected PORT or PORT-PORT, from 1 to 65535."
    };
    /// A listener.
    ListenerText, "listener", {
        "type": ["integer", "string"],
        "pattern": pattern::listener(),
        "minimum": 1,
        "maximum": u16::MAX,
        "errorMessage": "Expected PORT, PORT-PORT, IP:PORT or IP:PORT-PORT. IPv6 is in brackets: \"[fd00::4]:443\"."
    };
    /// An internal load balancer.
    IlbText, "ilb", {
        "type": "string",
        "pattern": pattern::target(),
        "errorMessage": "Expected IP, IP:PORT or IP:PORT-PORT. IPv6 is in brackets: \"[fd00::10]:80\"."
    };
    /// A pod. Beside a list of listeners, it may have no port.
    PodText, "pod", {
        "type": "string",
        "pattern": pattern::target(),
        "errorMessage": "Expected IP:PORT or IP:PORT-PORT. IPv6 is in brackets: \"[fd00::10]:80\"."
    };
    /// A network under a name.
    NetworkText, "network", {
        "type": "string",
        "pattern": pattern::network(),
        "errorMessage": "Expected a network such as 198.51.100.0/24, or an address."
    };
    /// An item of a forward's lists, or of one that denies.
    NetworkOrName, "network-or-name", {
        "type": "string",
        "pattern": pattern::network_or_name(Prefixes::All),
        "errorMessage": "Expected a network such as 198.51.100.0/24, an address, or a name from networks."
    };
    /// An item of a list of an outbound entry that allows.
    PartOrName, "part-or-name", {
        "type": "string",
        "pattern": pattern::network_or_name(Prefixes::NotZero),
        "errorMessage": "Expected a network such as 10.224.0.0/16, an address, or a name from networks; not every address."
    };
    /// A file of networks.
    NetworkPath, "network-path", {
        "type": "string",
        "pattern": pattern::path_inside(),
        "errorMessage": "Expected a path in the spec's folder or below it."
    };
    /// The beginning of the lines in the log.
    LogPrefix, "log-prefix", {
        "type": ["string", "number"],
        "pattern": pattern::log_prefix(Log::LONGEST_PREFIX),
        "errorMessage": format!("Expected 1 to {} ASCII characters.", Log::LONGEST_PREFIX)
    };
    /// The client of a test.
    ClientText, "client", {
        "type": "string",
        "pattern": pattern::client(),
        "errorMessage": "Expected an address, or a name from networks."
    };
}

/// A number from 1 to `MOST`.
#[derive(Debug)]
pub struct Number<const MOST: u32>;

impl<const MOST: u32> JsonSchema for Number<MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("number-to-{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "pattern": format!("^[1-9][0-9]{{0,{}}}$", MOST.ilog10()),
            "minimum": 1,
            "maximum": MOST,
            "errorMessage": format!("Expected a number from 1 to {MOST}.")
        })
    }
}

/// Returns the schema of the word `internet`, or a list of networks and names in which it may stand once.
pub fn destinations(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<PartOrName>();
    let again = json!({
        "not": {"const": INTERNET},
        "errorMessage": "The list has internet already."
    });
    json_schema!({
        "anyOf": [
            {"type": "string", "enum": [INTERNET]},
            {
                "type": "array",
                "items": item,
                "minItems": 1,
                // Networks may be repeated, so `uniqueItems` would refuse too much. Draft 7 cannot count the items of a
                // value, but it can look at the first one.
                "if": {"items": [{"const": INTERNET}]},
                "then": {"items": [true], "additionalItems": again}
            }
        ]
    })
}

/// Returns the schema of the number of the form of specs.
pub fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": [1, "1"], "errorMessage": "Expected 1."})
}

/// Returns the schema of a value that is one of these words.
pub fn words(words: &[&str]) -> Schema {
    json_schema!({"type": "string", "enum": words})
}

/// Returns the schema of the codes that the whole spec or an outbound entry may silence.
pub fn codes(_: &mut SchemaGenerator) -> Schema {
    silenced(|code| code != Code::TakesSsh)
}

/// Returns the schema of the codes that a forward may silence.
pub fn codes_of_forward(_: &mut SchemaGenerator) -> Schema {
    silenced(|_| true)
}

fn silenced(may: impl Fn(Code) -> bool) -> Schema {
    let codes = Code::ALL.into_iter();
    let codes = codes.filter(|code| code.can_be_silenced() && may(*code));
    let codes: Vec<Code> = codes.collect();
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let meanings: Vec<&str> = codes.iter().map(|code| code.meaning()).collect();
    json_schema!({
        "type": "array",
        // An editor shows the meaning beside each code; validators ignore it.
        "items": json!({"type": "string", "enum": names, "enumDescriptions": meanings})
    })
}
