//! Every file under `examples/` is what it says it is. That packets follow them is the lab's to show.

use std::fs;
use std::path::Path;

use nvactl::forwards::{ForwardSet, TargetKind};
use nvactl::net::Family;
use nvactl::plan::plan;
use nvactl::yaml;
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
    yaml::read(text.as_bytes()).expect(name)
}

#[test]
fn every_spec_is_sound_and_plans_three_rules_a_plain_forward() {
    for (name, text) in examples("") {
        let set =
            yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        if ["everything.yaml", "nva.yaml"].contains(&name.as_str()) {
            continue;
        }
        let rules: usize = plan(&set, Family::V4)
            .chains()
            .map(|(_, _, chain)| chain.rules.len())
            .sum();
        assert_eq!(rules, 3 * set.forwards.len() + 4, "{name}");
    }
}

#[test]
fn the_folder_is_one_spec() {
    let mut files = examples("forward.d");
    files.sort();
    let texts: Vec<&[u8]> = files.iter().map(|(_, text)| text.as_bytes()).collect();
    let reading = yaml::examine_all(&texts);
    assert!(
        reading
            .problems
            .iter()
            .all(|problem| problem.severity() == yaml::Severity::Note)
    );
    let set = reading.set.expect("it is sound");
    let each = [example("ilb.yaml"), example("pod.yaml")];
    assert!(each.iter().all(|one| one.firewall == set.firewall));
    assert_eq!(set.forwards, each.map(|one| one.forwards).concat());
}

/// The article's first scenario listened on one port and exposed another, and nothing translated it.
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
        Value::from(ilb.ports_at(&ilb.target.destinations[0]).first().number()),
        port["port"]
    );
    let annotation = "service.beta.kubernetes.io/azure-load-balancer-ipv4";
    assert_eq!(
        service["metadata"]["annotations"][annotation].as_str(),
        Some(ilb.target.destinations[0].address.to_string().as_str())
    );
    let pod = &example("pod.yaml").forwards[0];
    assert_eq!(pod.target.kind, TargetKind::Pod);
    assert_eq!(
        Value::from(pod.ports_at(&pod.target.destinations[0]).first().number()),
        container
    );
}

/// The workflow's own steps, run by bash as a runner does, in a repository with a pull request.
#[test]
fn the_workflow_checks_a_pull_request_and_says_what_it_changes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("examples/github/forwards.yml")).unwrap();
    let workflow: Value = serde_yaml::from_str(&text).unwrap();
    let steps = workflow["jobs"]["review"]["steps"].as_sequence().unwrap();
    let step = |name: &str| -> String {
        let step = steps.iter().find(|step| step["name"] == name).expect(name);
        step["run"].as_str().unwrap().to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_nvactl")).parent().unwrap();
    let bash = |script: &str| {
        let output = std::process::Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", script])
            .current_dir(folder.path())
            .env(
                "PATH",
                format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
            )
            .env("RUNNER_TEMP", folder.path().join("temp"))
            .env("BASE", "origin/main")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    fs::create_dir(folder.path().join("temp")).unwrap();
    fs::copy(
        root.join("examples/pod.yaml"),
        folder.path().join("forward.yaml"),
    )
    .unwrap();
    let (code, _) = bash(
        "git init -q . && git add forward.yaml && \
         git -c user.name=n -c user.email=e commit -qm base && git update-ref refs/remotes/origin/main HEAD",
    );
    assert_eq!(code, Some(0));
    let spec = fs::read_to_string(folder.path().join("forward.yaml")).unwrap();

    fs::write(
        folder.path().join("forward.yaml"),
        spec.replace("49182", "49183"),
    )
    .unwrap();
    assert_eq!(bash(&step("Check")), (Some(0), String::new()));
    assert_eq!(bash(&step("Diff")).0, Some(0));
    let comment = fs::read_to_string(folder.path().join("temp/diff.md")).unwrap();
    assert!(comment.contains("listen 49182 → 49183"), "{comment}");

    assert_eq!(bash("git update-ref refs/remotes/origin/main $(git -c user.name=n -c user.email=e commit-tree $(git mktree < /dev/null) -m empty)").0, Some(0));
    assert_eq!(bash(&step("Diff")).0, Some(0));
    let comment = fs::read_to_string(folder.path().join("temp/diff.md")).unwrap();
    assert!(comment.contains("➕"), "{comment}");

    fs::write(
        folder.path().join("forward.yaml"),
        spec.replace("49182", "70000"),
    )
    .unwrap();
    let (code, annotations) = bash(&step("Check"));
    assert_eq!(code, Some(2));
    assert!(
        annotations.starts_with("::error file=forward.yaml,line=8,col=13"),
        "{annotations}"
    );
    assert_ne!(bash(&step("Diff")).0, Some(0), "an error is no difference");
}

/// A user's first sight of nvactl's opinion should not be a complaint.
#[test]
fn no_example_has_a_warning() {
    for (name, text) in examples("") {
        let problems = yaml::examine(text.as_bytes()).problems;
        let graver = problems
            .iter()
            .filter(|problem| problem.severity() != yaml::Severity::Note);
        assert_eq!(graver.count(), 0, "{name}");
    }
}
