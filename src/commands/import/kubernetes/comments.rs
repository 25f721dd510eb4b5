//! The comments of a spec from Services.

use std::collections::BTreeMap;

use crate::forwards::Name;
use crate::kubernetes::{KubeService, ServiceAccount, ServiceDraft, ServiceEndpoint};
use crate::yaml::{CommentedOut, Comments};

/// Returns the comments: where the spec came from, what it assumes, and the Service of each forward.
pub(super) fn comments(draft: &ServiceDraft, services: &[&KubeService], file: &str) -> Comments {
    let mut entries: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for account in &draft.accounts {
        if let Some(name) = account.fate.name() {
            entries.insert(name.clone(), lines(account, services));
        }
    }
    let commented_out = draft.sketched.iter().map(|one| {
        let name = &one.pieces[0].name;
        let mut lines = entries.get(name).cloned().unwrap_or_default();
        lines.push(format!(
            "Left out: {}. Choose another `listen` port, then remove the `#`.",
            one.reason
        ));
        CommentedOut {
            lines,
            pieces: one.pieces.clone(),
        }
    });
    let mut head = vec![format!(
        "Imported by nvactl from the Services of {file}. Each forward listens on the port that its load balancer exposes."
    )];
    if !entries.is_empty() {
        head.push(
            "Everybody who reaches the firewall reaches these Services through it. `--select NAMESPACE/NAME` imports only \
             some, and `allow_from` in a forward names the clients that may connect."
                .to_owned(),
        );
    }
    Comments {
        head,
        firewall: vec![
            "Assumed: write the firewall's own interfaces and address here. On the firewall, `nvactl init` prints them."
                .to_owned(),
        ],
        commented_out: commented_out.collect(),
        entries,
        ..Comments::default()
    }
}

/// Returns the lines before the forward of an account.
fn lines(account: &ServiceAccount, services: &[&KubeService]) -> Vec<String> {
    let names = account.endpoint.as_ref().map(|one| one.names.join(", "));
    let port = names
        .filter(|names| !names.is_empty())
        .map_or(String::new(), |names| format!(", port {names}"));
    let mut lines = vec![format!("Service {}{port}", account.service)];
    let remarks = remarks(account, services).into_iter();
    lines.extend(remarks.map(|remark| format!("Note: {remark}.")));
    lines
}

/// Returns the remarks on a forward.
pub(super) fn remarks(account: &ServiceAccount, services: &[&KubeService]) -> Vec<String> {
    let (Some(_), Some(endpoint)) = (account.fate.name(), &account.endpoint) else {
        return Vec::new();
    };
    let ServiceEndpoint { address, .. } = endpoint;
    let is_its = |one: &&&KubeService| one.name == account.service && one.ingress.contains(address);
    let Some(service) = services.iter().find(is_its) else {
        return Vec::new();
    };
    let public = endpoint.is_public().then(|| {
        format!(
            "{address} is a public address, and an annotation says that the load balancer is internal, so check that the \
             cluster's own network has this address"
        )
    });
    let admitted = (!service.admits.is_empty()).then(|| {
        let each = service.admits.iter();
        let each = each.map(|one| format!("{} ({})", one.who.join(", "), one.by));
        let each: Vec<String> = each.collect();
        format!(
            "the load balancer admits only {}, so the firewall's `snat` must be an address in there",
            each.join(" and ")
        )
    });
    public.into_iter().chain(admitted).collect()
}
