//! Addresses of others for which the machine answers on a link (`ip neigh show proxy`).

use std::net::IpAddr;

use serde_json::Value;

use super::batch::{IpError, list};

/// An address of another host for which the machine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxiedAddress {
    pub address: IpAddr,
    /// `None`: on all links.
    pub interface: Option<String>,
}

impl ProxiedAddress {
    /// Lists the addresses of both families.
    ///
    /// # Errors
    /// If `ip` is missing or fails.
    pub(super) fn list() -> Result<Vec<Self>, IpError> {
        let mut found = Vec::new();
        for option in ["-4", "-6"] {
            let listed = list(&[option, "neigh", "show", "proxy"])?;
            found.extend(listed.iter().filter_map(of));
        }
        Ok(found)
    }
}

/// Reads an entry.
fn of(entry: &Value) -> Option<ProxiedAddress> {
    Some(ProxiedAddress {
        address: entry["dst"].as_str()?.parse().ok()?,
        interface: entry["dev"].as_str().map(str::to_owned),
    })
}
