//! The account of all Services, for people and programs.

use std::path::Path;

use serde::Serialize;

use super::comments::remarks;
use crate::commands::objects::ReadObjects;
use crate::kubernetes::{
    KubeService, LeftOutReason, ServiceAccount, ServiceDraft, ServiceEndpoint, ServiceFate,
    ServiceType,
};
use crate::net::words::counted;
use crate::net::{Host, printable};

/// The width of the longest outcome, and two blanks.
const OUTCOME_WIDTH: usize = "commented out".len() + 2;

/// The result of an import.
pub(super) struct ServiceReport<'r> {
    pub(super) read: &'r ReadObjects,
    /// Those that were asked for.
    pub(super) services: &'r [&'r KubeService],
    pub(super) draft: &'r ServiceDraft,
    pub(super) spec: &'r str,
    pub(super) output: Option<&'r Path>,
    /// Whether the user has named Services.
    pub(super) is_selection: bool,
}

/// The result as JSON. docs/json.md documents the fields.
#[derive(Debug, Serialize)]
pub(super) struct JsonServices<'r> {
    objects_of: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    spec: &'r str,
    services: Vec<JsonService>,
}

#[derive(Debug, Serialize)]
struct JsonService {
    service: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<JsonEndpoint>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

#[derive(Debug, Serialize)]
struct JsonEndpoint {
    address: String,
    port: u16,
    protocols: Vec<String>,
}

impl ServiceReport<'_> {
    /// Returns the table: an account of each Service that was asked for, then the numbers. Services of other types
    /// are only counted, unless the user has named them.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for account in &self.draft.accounts {
            let reason = reason(&account.fate);
            if reason == Some(&LeftOutReason::OtherType) && !self.is_selection {
                continue;
            }
            let word = account.fate.word();
            let place = place(account);
            let name = account.fate.name();
            let name = name.map_or(String::new(), |name| format!(": `{name}`"));
            let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
            text.push_str(&format!("{word:<OUTCOME_WIDTH$}{place}{name}{reason}\n"));
            for remark in remarks(account, self.services) {
                text.push_str(&format!("{:OUTCOME_WIDTH$}{remark}\n", ""));
            }
        }
        let text = printable::lines(text);
        format!("{text}{}: {}\n", self.read.name, self.summary())
    }

    fn summary(&self) -> String {
        let all = counted(self.services.len(), "Service");
        let balancers = self.services.iter();
        let balancers = balancers.filter(|one| one.kind == ServiceType::LoadBalancer);
        let balancers = counted(balancers.count(), "load balancer");
        let count = |is: fn(&ServiceFate) -> bool| {
            let all = self.draft.accounts.iter();
            all.filter(|one| is(&one.fate)).count()
        };
        let forwards = counted(
            count(|fate| matches!(fate, ServiceFate::Forward(_))),
            "forward",
        );
        match count(|fate| matches!(fate, ServiceFate::Sketched(..))) {
            0 => format!("{all}, {balancers}; {forwards}"),
            sketched => format!("{all}, {balancers}; {forwards}, {sketched} commented out"),
        }
    }

    pub(super) fn json(&self) -> JsonServices<'_> {
        let service = |account: &ServiceAccount| JsonService {
            service: account.service.to_string(),
            kind: account.kind.to_string(),
            endpoint: account.endpoint.as_ref().map(json_endpoint),
            outcome: account.fate.word(),
            forward: account.fate.name().map(ToString::to_string),
            reason: reason(&account.fate).map(ToString::to_string),
            remark: Some(remarks(account, self.services).join("; ")).filter(|all| !all.is_empty()),
        };
        JsonServices {
            objects_of: &self.read.name,
            output: self.output.map(|path| path.display().to_string()),
            spec: self.spec,
            services: self.draft.accounts.iter().map(service).collect(),
        }
    }
}

fn json_endpoint(endpoint: &ServiceEndpoint) -> JsonEndpoint {
    JsonEndpoint {
        address: endpoint.address.to_string(),
        port: endpoint.port.number(),
        protocols: endpoint.protocols.iter().map(ToString::to_string).collect(),
    }
}

fn reason(fate: &ServiceFate) -> Option<&LeftOutReason> {
    match fate {
        ServiceFate::Forward(_) => None,
        ServiceFate::Sketched(_, reason) | ServiceFate::LeftOut(reason) => Some(reason),
    }
}

/// Returns the Service, with its port and address if the account is about one.
fn place(account: &ServiceAccount) -> String {
    match &account.endpoint {
        None => format!("{} ({})", account.service, account.kind),
        Some(endpoint) => {
            let protocols = endpoint.protocols.iter().map(ToString::to_string);
            let protocols: Vec<String> = protocols.collect();
            format!(
                "{} {} {}:{}",
                account.service,
                protocols.join(","),
                Host(endpoint.address),
                endpoint.port
            )
        }
    }
}
