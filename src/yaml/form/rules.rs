//! Rules between the keys of one mapping, as changes of the schema that its type gives.

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::pattern;
use crate::forwards::INTERNET;
use crate::netfilter::matches::Cluster;

/// Adds keywords to a schema.
fn add(schema: &mut Schema, keywords: Value) {
    if let Value::Object(keywords) = keywords {
        schema.ensure_object().extend(keywords);
    }
}

/// Returns the schema of a key of a mapping.
fn property<'s>(schema: &'s mut Schema, key: &str) -> Option<&'s mut Map<String, Value>> {
    let properties = schema.get_mut("properties")?;
    properties.get_mut(key)?.as_object_mut()
}

/// Returns one of the forms of a value: that of a JSON type.
fn form<'s>(value: &'s mut Map<String, Value>, json_type: &str) -> Option<&'s mut Value> {
    let forms = value.get_mut("anyOf")?.as_array_mut()?;
    forms.iter_mut().find(|form| form["type"] == json_type)
}

/// Demands forwards or outbound entries, and a `snat` of the firewall if the spec has forwards.
pub fn forwards_or_outbound(schema: &mut Schema) {
    if let Some(forwards) = property(schema, "forwards") {
        // The type's default is for tests. A key that is left out is not an empty list.
        forwards.remove("default");
    }
    let one = json!({"anyOf": [{"required": ["forwards"]}, {"required": ["outbound"]}]});
    // The key `firewall` is always there. In yaml-language-server, a definition takes the keywords of the whole schema
    // that it does not have itself, apart from `required`: `anyOf` at the top would hold for a file of a folder as well.
    add(
        schema,
        json!({"dependencies": {"firewall": one, "forwards": snat_of_forwards()}}),
    );
}

/// Returns what `forwards` demands of the same file: a `snat`, if the firewall is there.
pub fn snat_of_forwards() -> Value {
    json!({"properties": {"firewall": {"required": ["snat"]}}})
}

/// Refuses names that look like networks, and `internet`, which has a meaning of its own.
pub fn names_of_networks(schema: &mut Schema) {
    let networks = schema.remove("additionalProperties");
    add(
        schema,
        json!({
            "properties": {INTERNET: false},
            "patternProperties": {pattern::network_name(): networks},
            "additionalProperties": false,
            "errorMessage": "Expected names: 1 to 63 of A-Z a-z 0-9 _ . - and first a letter; not internet."
        }),
    );
}

/// Refuses other keys than those of the type. serde cannot, if the type is part of another one or has such a part.
pub fn only_known_keys(schema: &mut Schema) {
    add(schema, json!({"additionalProperties": false}));
}

/// Demands both sides of the firewall's interface. A forward may leave one out.
pub fn both_sides(schema: &mut Schema) {
    if let Some(sides) = form(schema.ensure_object(), "object") {
        sides["required"] = json!(["ingress", "egress"]);
    }
}

/// Refuses an empty `allow_from` of a forward. That of `defaults` may be empty, if no forward takes it.
pub fn someone_is_allowed(schema: &mut Schema) {
    if let Some(list) = property(schema, "allow_from") {
        list.insert("minItems".to_owned(), json!(1));
    }
}

/// Refuses a `snat` of a forward or an outbound entry that is for neither family. That of `defaults` and of the firewall
/// may be, if no entry takes it.
pub fn snat_of_a_family(schema: &mut Schema) {
    if let Some(by_family) = property(schema, "snat").and_then(|snat| form(snat, "object")) {
        by_family["minProperties"] = json!(1);
    }
}

/// Demands a port of a pod, unless the forward has a list of listeners.
pub fn ports_of_pods(schema: &mut Schema) {
    let pod = json!({
        "type": "string",
        "pattern": pattern::target_with_port(),
        "errorMessage": "Expected IP:PORT or IP:PORT-PORT. A pod without a port needs a list of listeners, such as [443]."
    });
    let one_or_many = json!({
        "anyOf": [pod, {"type": "array", "items": pod}]
    });
    add(
        schema,
        json!({
            "if": {"properties": {"listen": {"type": "array"}}},
            "else": {"properties": {"target": {"properties": {"pod": one_or_many}}}}
        }),
    );
}

/// Demands one of the two keys of a target.
pub fn ilb_or_pod(schema: &mut Schema) {
    add(
        schema,
        json!({
            "anyOf": [{"required": ["ilb"]}, {"required": ["pod"]}],
            "if": {"required": ["ilb"]},
            "then": {"properties": {"pod": false}, "errorMessage": "A target has ilb or pod, not both."}
        }),
    );
}

/// Refuses more pods than can share connections.
pub fn most_pods(schema: &mut Schema) {
    if let Some(list) = form(schema.ensure_object(), "array") {
        list["maxItems"] = json!(Cluster::MOST);
    }
}

/// Demands a rate beside `burst`, and a rate or a number of connections beside `per` and `reject`.
pub fn parts_of_a_limit(schema: &mut Schema) {
    let some = json!({
        "anyOf": [{"required": ["new_per_second"]}, {"required": ["max_connections"]}]
    });
    add(
        schema,
        json!({
            "dependencies": {"burst": ["new_per_second"], "per": some, "reject": some}
        }),
    );
}

/// Demands a `protocol` without `ping` beside `ports`, since a ping has no port.
pub fn ports_need_a_protocol(schema: &mut Schema) {
    let words = json!({"type": "string", "enum": ["tcp", "udp"]});
    let protocol = json!({"anyOf": [words, {"type": "array", "items": words}]});
    add(
        schema,
        json!({
            "dependencies": {
                "ports": {"required": ["protocol"], "properties": {"protocol": protocol}}
            }
        }),
    );
}

/// Demands ports of the ends of a test, and refuses them in a ping.
pub fn ends_of_a_test(schema: &mut Schema) {
    add(
        schema,
        json!({
            "if": {"properties": {"protocol": {"const": "ping"}}, "required": ["protocol"]},
            "then": {"properties": {
                "to": {
                    "type": "string",
                    "pattern": pattern::ping_destination(),
                    "errorMessage": "Expected an address: a ping has no port."
                },
                "reaches": {
                    "pattern": pattern::pinged(),
                    "errorMessage": "Expected nothing, or an address, several separated by |: a ping has no port."
                }
            }},
            "else": {"properties": {
                "to": {
                    "minimum": 1,
                    "maximum": u16::MAX,
                    "pattern": pattern::test_destination(),
                    "errorMessage": "Expected PORT or IP:PORT. IPv6 is in brackets: \"[fd00::4]:443\"."
                },
                "reaches": {
                    "pattern": pattern::reached(),
                    "errorMessage": "Expected nothing, or IP:PORT, several separated by |. IPv6 is in brackets: \"[fd00::10]:80\"."
                }
            }}
        }),
    );
}

/// Refuses the `snat` of a test that reaches nothing: only a host that is reached sees a source.
pub fn source_of_a_reached_host(schema: &mut Schema) {
    let nothing = json!({
        "if": {"properties": {"reaches": {"const": "nothing"}}, "required": ["reaches"]},
        "then": {"properties": {"snat": false}}
    });
    add(schema, json!({"allOf": [nothing]}));
}
