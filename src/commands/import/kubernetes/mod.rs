//! `nvactl import --kubernetes`: writes a spec from Services of a cluster.

mod comments;
mod report;

use std::path::Path;

use super::written::ImportedSpec;
use crate::cli::ImportArgs;
use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::commands::exit::Exit;
use crate::commands::failure::CommandRefusal;
use crate::commands::objects::{ReadObjects, read_objects};
use crate::forwards::{Firewall, Forward, ForwardPolicy, ForwardSet, Snat, Snats};
use crate::kubernetes::{KubeName, KubeService, ServiceDraft, draft};
use crate::net::Interface;
use crate::yaml::{self, Comments, Severity, nearest, spec_text};
use comments::comments;
use report::ServiceReport;

/// The most names that an error lists.
const MOST_NEAR: usize = 3;

pub fn run(args: &ImportArgs, path: &Path, console: &mut Console) -> Result<Exit> {
    let read = read_objects(path)?;
    let services = selected(&read, &args.select)?;
    let mut draft = draft(services.iter().copied(), firewall());
    refuse(&mut draft);
    let spec = spec_text(&draft.set, &comments(&draft, &services, &read.name));
    let report = ServiceReport {
        read: &read,
        services: &services,
        draft: &draft,
        spec: &spec,
        output: args.output(),
        is_selection: !args.select.is_empty(),
    };
    let written = ImportedSpec {
        spec: &spec,
        table: report.table(),
        json: report.json(),
    };
    written.give(args, console)?;
    Ok(Exit::Done)
}

/// Returns the named Services in the order of the file; all of them if none is named.
fn selected<'r>(read: &'r ReadObjects, names: &[KubeName]) -> Result<Vec<&'r KubeService>> {
    let all = &read.objects.services;
    let is_there = |name: &&KubeName| !all.iter().any(|service| service.name == **name);
    if let Some(name) = names.iter().find(is_there) {
        return Err(CommandRefusal::NoSuchService {
            file: read.name.clone(),
            name: name.clone(),
            near: near(name, all),
        }
        .into());
    }
    let chosen = all
        .iter()
        .filter(|one| names.is_empty() || names.contains(&one.name));
    Ok(chosen.collect())
}

/// Returns the Services that may be meant by a name: those of its name in other namespaces, else the one that is
/// spelled most like it.
fn near(name: &KubeName, all: &[KubeService]) -> Vec<KubeName> {
    let namesakes = all.iter().filter(|one| one.name.name == name.name);
    let namesakes: Vec<KubeName> = namesakes
        .map(|one| one.name.clone())
        .take(MOST_NEAR)
        .collect();
    if !namesakes.is_empty() {
        return namesakes;
    }
    let names: Vec<String> = all.iter().map(|one| one.name.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nearest = nearest(&name.to_string(), &names);
    nearest
        .and_then(|name| name.parse().ok())
        .into_iter()
        .collect()
}

/// Returns the firewall of a spec that is written far from the machine, whose interfaces are not known.
fn firewall() -> Firewall {
    Firewall {
        ingress: vec![Interface::ETH0],
        egress: Interface::ETH0,
        snat: Snats {
            v4: Some(Snat::Masquerade),
            v6: Some(Snat::Masquerade),
        },
        mss: None,
        forward_policy: ForwardPolicy::Drop,
        layout: None,
    }
}

/// Takes the forwards out of a draft that a spec refuses by themselves, such as one to a loopback address.
fn refuse(draft: &mut ServiceDraft) {
    let forwards = draft.set.forwards.clone();
    let pieces = forwards.chunk_by(|one, other| one.name == other.name);
    let sketched = draft.sketched.clone();
    let sketched = sketched.iter().map(|one| one.pieces.as_slice());
    for pieces in pieces.chain(sketched) {
        if let Some(why) = error(pieces, &draft.set) {
            draft.refuse(&pieces[0].name, &why);
        }
    }
}

/// Returns the first error of a spec with one forward.
fn error(pieces: &[Forward], set: &ForwardSet) -> Option<String> {
    let alone = ForwardSet {
        forwards: pieces.to_vec(),
        ..without_forwards(set)
    };
    let text = spec_text(&alone, &Comments::default());
    let problems = yaml::examine(text.as_bytes()).problems.into_iter();
    let mut errors = problems.filter(|one| one.severity() == Severity::Error);
    Some(errors.next()?.words().text)
}

fn without_forwards(set: &ForwardSet) -> ForwardSet {
    ForwardSet {
        description: None,
        firewall: set.firewall.clone(),
        forwards: Vec::new(),
        outbound: Vec::new(),
        tests: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{self, ServiceFate};

    /// Services with ports, addresses and names of every kind, hostile ones included.
    fn every_kind() -> String {
        let names = ["web", "a-b", "é: [x]\\n- y", "#", "1e3", "null"];
        let ports = [
            r#"[{"port": 443}]"#,
            r#"[{"port": 443, "protocol": "UDP"}, {"port": 443, "name": "a: b #c\nd"}]"#,
            r#"[{"port": 22}, {"port": 65535}]"#,
            r#"[{"port": 53, "protocol": "SCTP"}]"#,
            "[]",
        ];
        let addresses = [
            "10.224.0.1",
            "100.64.0.1",
            "fd00::1",
            "20.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
            "::",
            "fe80::1",
            "::ffff:10.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
        ];
        let mut items = Vec::new();
        for (n, address) in addresses.iter().enumerate() {
            for (m, ports) in ports.iter().enumerate() {
                let name = names[(n + m) % names.len()];
                items.push(format!(
                    r#"{{"metadata": {{"name": "{name}", "namespace": "n{m}", "annotations": {{
                        "service.beta.kubernetes.io/azure-load-balancer-internal": "true"}}}},
                        "spec": {{"type": "LoadBalancer", "ports": {ports}, "loadBalancerSourceRanges": ["{name}"]}},
                        "status": {{"loadBalancer": {{"ingress": [{{"ip": "{address}"}}]}}}}}}"#
                ));
            }
        }
        format!(
            r#"{{"apiVersion": "v1", "kind": "ServiceList", "items": [{}]}}"#,
            items.join(",")
        )
    }

    /// The load balancer sees the firewall's address, whatever form says which it admits.
    #[test]
    fn clients_that_a_load_balancer_admits_are_remarked() {
        let service = |annotation: &str, field: &str| {
            format!(
                r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "web", "namespace": "shop",
                "annotations": {{{annotation}}}}}, "spec": {{"type": "LoadBalancer", "ports": [{{"port": 80}}]{field}}},
                "status": {{"loadBalancer": {{"ingress": [{{"ip": "10.224.0.222"}}]}}}}}}"#
            )
        };
        let old = r#""service.beta.kubernetes.io/load-balancer-source-ranges": "10.9.0.0/16,10.8.0.0/16""#;
        let azure = r#""service.beta.kubernetes.io/azure-allowed-ip-ranges": "10.7.0.0/16, ""#;
        let both = format!("{old}, {azure}");
        let field = r#", "loadBalancerSourceRanges": ["10.3.0.0/24"]"#;
        for (annotations, field, admitted) in [
            (
                old,
                "",
                "10.9.0.0/16, 10.8.0.0/16 (service.beta.kubernetes.io/load-balancer-source-ranges)",
            ),
            (
                azure,
                "",
                "10.7.0.0/16 (service.beta.kubernetes.io/azure-allowed-ip-ranges)",
            ),
            (
                &both,
                field,
                "10.3.0.0/24 (loadBalancerSourceRanges) and 10.9.0.0/16, 10.8.0.0/16 \
                 (service.beta.kubernetes.io/load-balancer-source-ranges) and 10.7.0.0/16 \
                 (service.beta.kubernetes.io/azure-allowed-ip-ranges)",
            ),
        ] {
            let text = written(&service(annotations, field));
            let note = format!(
                "  # Note: the load balancer admits only {admitted}, so the firewall's `snat` must be an address in there.\n"
            );
            assert!(text.contains(&note), "{note}{text}");
        }
    }

    /// Returns the spec of objects, with its comments.
    fn written(text: &str) -> String {
        let objects = kubernetes::read(text.as_bytes()).expect("it is valid");
        let services: Vec<&KubeService> = objects.services.iter().collect();
        let draft = draft(services.iter().copied(), firewall());
        spec_text(&draft.set, &comments(&draft, &services, "x"))
    }

    #[test]
    fn a_public_address_of_an_internal_load_balancer_is_remarked() {
        let text = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop",
            "annotations": {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"}},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "20.4.5.6"}]}}}"#;
        let note = "  # Note: 20.4.5.6 is a public address, and an annotation says that the load balancer is internal, so \
                    check that the cluster's own network has this address.\n";
        let spec = written(text);
        assert!(spec.contains(note), "{spec}");
        let spec = written(&text.replace("20.4.5.6", "10.4.5.6"));
        assert!(!spec.contains("public"), "{spec}");
    }

    #[test]
    fn the_head_says_who_reaches_the_forwards() {
        let who = "# Everybody who reaches the firewall reaches these Services through it. ";
        let spec = written(&every_kind());
        assert!(spec.contains(who), "{spec}");
        let none = r#"{"apiVersion": "v1", "kind": "List", "items": []}"#;
        let spec = written(none);
        assert!(!spec.contains(who), "{spec}");
    }

    #[test]
    fn check_accepts_what_is_written_and_each_forward_is_in_it() {
        let objects = kubernetes::read(every_kind().as_bytes()).expect("it is valid");
        let services: Vec<&KubeService> = objects.services.iter().collect();
        let mut draft = draft(services.iter().copied(), firewall());
        refuse(&mut draft);
        let text = spec_text(&draft.set, &comments(&draft, &services, "a\nb"));
        let set =
            yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}: {text}"));
        assert_eq!(set, draft.set, "{text}");
        let (mut forwards, mut sketched, mut refused) = (0, 0, 0);
        for account in &draft.accounts {
            match &account.fate {
                ServiceFate::Forward(name) => {
                    forwards += 1;
                    assert!(set.forwards.iter().any(|one| one.name == *name), "{name}");
                }
                ServiceFate::Sketched(name, _) => {
                    sketched += 1;
                    let line = format!("#  - name: {name}\n");
                    assert!(text.contains(&line), "{line}{text}");
                }
                ServiceFate::LeftOut(reason) => {
                    refused += usize::from(reason.to_string().starts_with("a spec refuses it: "));
                }
            }
        }
        assert!(
            forwards > 3 && sketched > 5 && refused > 5,
            "{forwards} {sketched} {refused}\n{text}"
        );
        // The user decides about ssh.
        assert!(!text.contains("silence"), "{text}");
        // A text from the file ends no comment.
        let foreign = text
            .lines()
            .filter(|line| line.starts_with("- y") || line.starts_with('d'));
        assert_eq!(foreign.count(), 0, "{text}");
    }
}
