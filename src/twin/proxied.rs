//! Addresses of others for which the machine answers on a link (`ip neigh show proxy`).

use std::net::IpAddr;

use serde_json::Value;

/// An address of another host for which the machine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxiedAddress {
    pub address: IpAddr,
    /// `None`: on all links.
    pub interface: Option<String>,
}

impl ProxiedAddress {
    /// Reads an entry of the list.
    #[must_use]
    pub fn of(entry: &Value) -> Option<Self> {
        Some(Self {
            address: entry["dst"].as_str()?.parse().ok()?,
            interface: entry["dev"].as_str().map(str::to_owned),
        })
    }
}
