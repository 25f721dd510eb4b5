//! `examples/cloud-init/nva.yaml`: it is valid for cloud-init, and its commands make a new machine a firewall.

use std::process::Command;

use serde_yaml::Value;

use crate::lab::{Backend, FIREWALL, Lab, Said, save};
use crate::namespace::Host;
use crate::pages::root;
use crate::required::is_required;
use crate::traffic::{answer, serve_tcp};

fn user_data() -> String {
    std::fs::read_to_string(root().join("examples/cloud-init/nva.yaml")).expect("it is text")
}

/// Runs `cloud-init schema`; `None` if cloud-init is not there and need not be.
fn schema(text: &str) -> Option<(bool, String)> {
    let unpacked = root().join("target/programs/cloud-init");
    if !unpacked.exists() {
        assert!(!is_required(), "`tests/run` unpacks cloud-init");
        return None;
    }
    let file = tempfile::NamedTempFile::new().expect("there is a place for it");
    std::fs::write(file.path(), text).expect("it can be written");
    let output = Command::new("/usr/bin/python3")
        .arg(unpacked.join("usr/bin/cloud-init"))
        .args(["schema", "--config-file"])
        .arg(file.path())
        .env("PYTHONPATH", unpacked.join("usr/lib/python3/dist-packages"))
        .output()
        .expect("Python starts");
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn the_user_data_is_valid() {
    let Some((valid, said)) = schema(&user_data()) else {
        return;
    };
    assert!(valid && !said.contains("deprecat"), "{said}");
    let broken = user_data().replace("packages: [curl, ca-certificates]", "packages: curl");
    let (valid, said) = schema(&broken).expect("it is there");
    assert!(!valid && said.contains("packages"), "{said}");
}

/// Writes the files and runs the commands, as cloud-init does: lines are one script of the shell.
fn first_boot(host: &Host, text: &str) -> Said {
    let user_data: Value = serde_yaml::from_str(text).expect("it is YAML");
    for file in user_data["write_files"]
        .as_sequence()
        .expect("it has files")
    {
        let word = |key: &str| file[key].as_str().expect("it is text");
        let (path, mode) = (word("path"), word("permissions"));
        let script = format!("mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}");
        let written = host.feed("sh", &["-ec", &script], word("content"));
        assert!(written.status.success(), "{written:?}");
    }
    let lines = user_data["runcmd"].as_sequence().expect("it has commands");
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    Said::from(host.feed("sh", &["-c", &lines.join("\n")], ""))
}

/// Makes a release on the host that the file system serves, and an `apt-get` that installs the built nvactl. Returns the
/// checksum of the package.
fn release(host: &Host) -> String {
    host.shell(&format!(
        "mkdir -p /run/releases/download/v0.1.0 /run/local
         echo a package > /run/releases/download/v0.1.0/nvactl_0.1.0-1_amd64.deb
         cp {} /run/local/nvactl.new
         mount --bind /run/local /usr/local/bin
         cat > /run/bin/apt-get <<'END'
#!/bin/sh
test \"$*\" = 'install --yes ./nvactl_0.1.0-1_amd64.deb' && test -e nvactl_0.1.0-1_amd64.deb &&
  mv /usr/local/bin/nvactl.new /usr/local/bin/nvactl
END
         chmod +x /run/bin/apt-get",
        env!("CARGO_BIN_EXE_nvactl")
    ));
    let sum = host.run("sha256sum /run/releases/download/v0.1.0/nvactl_0.1.0-1_amd64.deb");
    sum[..64].to_owned()
}

lab_test!(either a_new_machine_boots_into_the_spec);
fn a_new_machine_boots_into_the_spec(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.ilb, "ilb", 49180);
    let host = &lab.firewall;
    let checksum = release(host);
    let text = user_data().replace("https://github.com/OWNER/nvactl", "file:///run");
    let before = save(host);
    for another in ["SHA256=", &format!("SHA256={}", "0".repeat(64))] {
        let said = first_boot(host, &text.replace("SHA256=", another));
        assert_ne!(said.code, 0, "{another:?}: {said:?}");
        assert!(!host.exists("/usr/local/bin/nvactl"), "{another:?}");
        assert_eq!(save(host), before);
    }
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");

    let said = first_boot(
        host,
        &text.replace("SHA256=", &format!("SHA256={checksum}")),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49181), answer("ilb", FIREWALL));
    let said = Said::from(host.feed("/usr/local/bin/nvactl", &["boot", "status"], ""));
    assert_eq!(said.code, 0, "{said:?}");
    let unit = "/etc/systemd/system/sysinit.target.wants/nvactl.service";
    assert!(host.path(unit).symlink_metadata().is_ok(), "{said:?}");
}
