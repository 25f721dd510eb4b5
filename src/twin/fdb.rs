//! The hardware addresses that bridges have seen, and the ports at which they have (`bridge fdb show`).

use serde_json::Value;

/// Returns the port of a bridge behind which the host with a hardware address is. `fdb` is the list of `bridge fdb show`.
#[must_use]
pub fn port_of(fdb: &[Value], mac: &str) -> Option<String> {
    let mut entries = fdb.iter();
    let entry = entries.find(|entry| entry["mac"] == mac && entry["master"].is_string())?;
    entry["ifname"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_behind_the_port_at_which_its_address_was_seen() {
        let listed = serde_json::json!([
            {"mac":"33:33:00:00:00:01","ifname":"br0","flags":["self"],"state":"permanent"},
            {"mac":"02:00:00:00:00:02","ifname":"eth0","flags":["self"],"state":"permanent"},
            {"mac":"02:00:00:00:00:02","ifname":"veth1","flags":[],"master":"br0","state":""},
        ]);
        let listed = listed.as_array().expect("a list");
        assert_eq!(
            port_of(listed, "02:00:00:00:00:02").as_deref(),
            Some("veth1")
        );
        assert_eq!(port_of(listed, "33:33:00:00:00:01"), None);
    }
}
