//! The keys `limits` and `log`, of a forward and of an outbound entry.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::rules;
use super::value::{LogPrefix, Number, YesOrNo, words};
use crate::forwards::Log;
use crate::netfilter::limit::{Limit, PerSecond};
use crate::yaml::bounds::MOST_CONNECTIONS;

/// Limits for new connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "limits", description = "", transform = rules::parts_of_a_limit)]
pub struct LimitsForm {
    /// New connections a second, from 1 to 10000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<{ PerSecond::MOST }>", example = 50)]
    pub new_per_second: Option<u32>,

    /// New connections at once after a rest, from 1 to 10000. Default: the number of `new_per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<{ PerSecond::MOST }>", example = 100)]
    pub burst: Option<u32>,

    /// `client` counts each client's address by itself (IPv6: each /64), `total` counts all together. Default: `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "counted")]
    pub per: Option<String>,

    /// Connections at a time, from 1 to 10000000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<MOST_CONNECTIONS>", example = 1000)]
    pub max_connections: Option<u32>,

    /// `true` answers a client over the limit with a refusal, `false` drops its packets. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "YesOrNo", example = true)]
    pub reject: Option<bool>,
}

/// `true`, `false`, or the details of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum LogForm {
    Usual(#[schemars(with = "YesOrNo")] bool),
    How(LogDetailsForm),
}

/// The details of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "log-details", description = "")]
pub struct LogDetailsForm {
    /// The beginning of each line: at most 19 ASCII characters. Default: the entry's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogPrefix", example = &"web")]
    pub prefix: Option<String>,

    /// The level of the lines, as syslog has it. Default: `warning`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "levels")]
    pub level: Option<String>,

    /// Lines of each kind a minute, from 1 to 600. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Number<{ Limit::MOST_A_MINUTE }>", example = 60)]
    pub per_minute: Option<u32>,

    /// The connections that are logged: `accepted`, `refused` or `all`. Default: `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "logged")]
    pub connections: Option<String>,
}

fn counted(_: &mut SchemaGenerator) -> Schema {
    words(&["total", "client"])
}

fn levels(_: &mut SchemaGenerator) -> Schema {
    words(&Log::LEVELS)
}

fn logged(_: &mut SchemaGenerator) -> Schema {
    words(&["accepted", "refused", "all"])
}
