//! Every file under `examples/` is what it says it is. That packets follow them is the lab's to show.

use std::fs;
use std::path::Path;

use nvactl::plan::plan;
use nvactl::spec::{self, ForwardSet, TargetKind};
use serde_yaml::Value;

fn examples(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let name = path
                .file_name()
                .expect("it has a name")
                .to_string_lossy()
                .into_owned();
            found.push((name, fs::read_to_string(path).expect("it is text")));
        }
    }
    assert!(!found.is_empty());
    found
}

fn example(name: &str) -> ForwardSet {
    let (_, text) = examples("")
        .into_iter()
        .find(|(n, _)| n == name)
        .expect(name);
    spec::read(text.as_bytes()).expect(name)
}

#[test]
fn every_spec_is_sound_and_plans_three_rules_a_forward() {
    for (name, text) in examples("") {
        let set =
            spec::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        let rules: usize = plan(&set)
            .chains()
            .map(|(_, _, chain)| chain.rules.len())
            .sum();
        assert_eq!(rules, 3 * set.forwards.len() + 4, "{name}");
    }
}

/// The post's first scenario listened on one port and exposed another, and nothing translated it.
#[test]
fn the_manifests_and_the_specs_name_the_same_ports() {
    let manifests = examples("aks");
    let manifest = |name: &str| -> Value {
        let (_, text) = manifests.iter().find(|(n, _)| n == name).expect(name);
        serde_yaml::from_str(text).expect(name)
    };
    let container = manifest("tmp-shell.yaml")["spec"]["template"]["spec"]["containers"][0]["ports"][0]
        ["containerPort"]
        .clone();
    let service = manifest("service-ilb.yaml");
    let port = &service["spec"]["ports"][0];
    assert_eq!(port["targetPort"], container);
    assert_eq!(
        service["spec"]["selector"],
        manifest("tmp-shell.yaml")["spec"]["template"]["metadata"]["labels"]
    );

    let ilb = &example("ilb.yaml").forwards[0];
    assert_eq!(ilb.target.kind, TargetKind::Ilb);
    assert_eq!(
        Value::from(ilb.ports_behind().first().number()),
        port["port"]
    );
    let annotation = "service.beta.kubernetes.io/azure-load-balancer-ipv4";
    assert_eq!(
        service["metadata"]["annotations"][annotation].as_str(),
        Some(ilb.target.address.to_string().as_str())
    );
    let pod = &example("pod.yaml").forwards[0];
    assert_eq!(pod.target.kind, TargetKind::Pod);
    assert_eq!(Value::from(pod.ports_behind().first().number()), container);
}
