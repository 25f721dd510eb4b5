//! Finds rules in native nft tables that may set bits of a connection's mark.

use serde_json::Value;

/// A rule in a native nft table that may set one of the bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftRule {
    pub family: String,
    pub table: String,
    pub chain: String,
    /// The rule's handle, as `nft -a` lists it.
    pub handle: u64,
}

/// Returns whether the expressions of a rule, as `nft -j` lists them (libnftables-json(5)), may set one of
/// these bits of a connection's mark.
#[must_use]
pub fn may_set(expressions: &[Value], bits: u32) -> bool {
    let set = expressions.iter().filter_map(|one| one.get("mangle"));
    let mut of_connection = set.filter(|set| is_ct_mark(&set["key"]));
    of_connection.any(|set| may_have(&set["value"], bits))
}

fn is_ct_mark(value: &Value) -> bool {
    value["ct"]["key"] == "mark"
}

/// Returns whether a value may have one of these bits. The connection's own mark adds no bit that is not set
/// already. Any value that this function cannot read may have the bit.
fn may_have(value: &Value, bits: u32) -> bool {
    let operands = |word: &str| value.get(word).and_then(Value::as_array);
    if let Some(number) = value.as_u64() {
        number & u64::from(bits) != 0
    } else if let Some(both) = operands("&") {
        both.iter().all(|one| may_have(one, bits))
    } else if let Some(either) = operands("|").or_else(|| operands("^")) {
        either.iter().any(|one| may_have(one, bits))
    } else {
        !is_ct_mark(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The rules are in the form of nft 1.0.6.
    #[test]
    fn a_rule_that_may_set_the_bit_is_found() {
        const BIT: u32 = 0x1000_0000;
        let ct = json!({"ct": {"key": "mark"}});
        let own = json!({"meta": {"key": "mark"}});
        let to = |key: &Value, value: Value| json!({"mangle": {"key": key, "value": value}});
        for (sets, rule) in [
            (true, to(&ct, json!(BIT | 1))),
            (true, to(&ct, json!({"|": [ct, BIT]}))),
            (true, to(&ct, json!({"^": [ct, BIT]}))),
            (true, to(&ct, own.clone())),
            (true, to(&ct, json!({"|": [{"&": [own, BIT]}, 1]}))),
            (false, to(&ct, json!(1))),
            (false, to(&ct, json!({"&": [own, 0xff]}))),
            (false, to(&ct, json!({"|": [{"&": [ct, !BIT]}, 1]}))),
            (false, to(&own, json!(BIT))),
            (false, to(&own, ct.clone())),
            (false, json!({"jump": {"target": "more"}})),
        ] {
            let rule = [json!({"counter": null}), rule];
            assert_eq!(may_set(&rule, BIT), sets, "{rule:?}");
        }
    }
}
