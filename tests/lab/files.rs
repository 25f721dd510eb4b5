//! Files that nvactl reads and writes on the host: links of others, modes, and what is no file.
//!
//! No backend of iptables has a part in this, so one stands for both.

use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::{Host, possible};
use crate::nvactl;

/// Another user of the machine.
const MALLORY: &str = "setpriv --reuid 4242 --regid 4242 --clear-groups";

/// A firewall with a folder that everybody may write into and a file that is root's.
fn shared() -> Host {
    let host = firewall(Backend::Nft);
    host.shell(
        "mkdir -m 1777 /run/shared
         mkdir -m 755 /run/secret
         echo 'of root' > /run/secret/file",
    );
    host
}

/// What stands in the folder that is root's.
fn secret(host: &Host) -> String {
    host.shell("ls -A /run/secret; cat /run/secret/file")
}

fn render(host: &Host, path: &str) -> Said {
    nvactl(host, &["render", "-", "--force", "-o", path], SPEC)
}

#[test]
fn a_link_of_another_user_in_a_shared_folder_is_not_followed() {
    if !possible() {
        return;
    }
    let host = shared();
    host.shell(&format!(
        "cd /run/shared
         {MALLORY} ln -s /run/secret/file direct
         {MALLORY} ln -s /run/secret/new dangling
         {MALLORY} ln -s ../secret folder
         ln -s /run/shared/direct /run/own
         ln -s /run/shared/folder /run/own-folder"
    ));
    let before = secret(&host);
    for (path, link) in [
        ("/run/shared/direct", "/run/shared/direct"),
        (
            "/run/shared/.././shared/direct",
            "/run/shared/../shared/direct",
        ),
        ("/run/shared/dangling", "/run/shared/dangling"),
        ("/run/shared/folder/file", "/run/shared/folder"),
        ("/run/shared/folder/new", "/run/shared/folder"),
        ("/run/own", "/run/shared/direct"),
        ("/run/own-folder/file", "/run/shared/folder"),
    ] {
        let said = render(&host, path);
        assert_eq!(said.code, 2, "{path}: {said:?}");
        let told = format!("through a link of user 4242, `{link}`");
        assert!(said.stderr.contains(&told), "{path}: {said:?}");
        assert_eq!(secret(&host), before, "{path}");
        // The check for rules of others does not read through the link either.
        let said = nvactl(&host, &["render", "-", "-o", path], SPEC);
        assert!(said.stderr.contains(&told), "{path}: {said:?}");
        assert!(!said.stderr.contains("of root"), "{path}: {said:?}");
    }
    // Nothing unfinished is left behind.
    assert_eq!(host.run("ls -A /run/shared"), "dangling\ndirect\nfolder\n");
}

/// As the kernel has it (`may_follow_link` in fs/namei.c).
#[test]
fn a_link_is_followed_where_the_kernel_would_follow_it() {
    if !possible() {
        return;
    }
    let host = shared();
    host.shell(&format!(
        "ln -s /run/secret/file /run/shared/mine
         mkdir -m 1777 /run/theirs
         chown 4242 /run/theirs
         {MALLORY} ln -s /run/secret/file /run/theirs/link
         mkdir -m 755 /run/home
         chown 4242 /run/home
         {MALLORY} ln -s /run/secret/file /run/home/link"
    ));
    for link in ["/run/shared/mine", "/run/theirs/link", "/run/home/link"] {
        host.shell("echo > /run/secret/file");
        let said = render(&host, link);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{link}");
        assert!(secret(&host).contains("49182"), "{link}");
        assert_eq!(host.run(&format!("stat -c %F {link}")), "symbolic link\n");
    }
}

#[test]
fn persist_follows_no_link_of_another_user_for_the_file_or_its_backup() {
    if !possible() {
        return;
    }
    let host = shared();
    apply(&host, SPEC);
    let before = secret(&host);
    host.shell(&format!(
        "{MALLORY} ln -s /run/secret/file /run/shared/rules
         {MALLORY} ln -s /run/secret/file /run/shared/kept.bak
         printf '*filter\\nCOMMIT\\n' > /run/shared/kept"
    ));
    for path in ["/run/shared/rules", "/run/shared/kept"] {
        let said = nvactl(&host, &["persist", "--output", path], "");
        assert_eq!(said.code, 2, "{path}: {said:?}");
        assert!(
            said.stderr.contains("nvactl does not follow it"),
            "{path}: {said:?}"
        );
        assert_eq!(secret(&host), before, "{path}");
    }
    assert_eq!(host.run("cat /run/shared/kept"), "*filter\nCOMMIT\n");
}

#[test]
fn sysctl_follows_no_link_of_another_user_and_changes_nothing_then() {
    if !possible() {
        return;
    }
    let host = shared();
    let before = secret(&host);
    host.shell(&format!(
        "chmod 1777 /etc/sysctl.d
         {MALLORY} ln -s /run/secret/file /etc/sysctl.d/99-nvactl.conf"
    ));
    let said = nvactl(&host, &["sysctl", "enable", "--persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("nvactl does not follow it"),
        "{said:?}"
    );
    assert_eq!(secret(&host), before);
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
}

#[test]
fn folders_and_files_have_their_modes_whatever_the_umask_is() {
    if !possible() {
        return;
    }
    for umask in ["000", "022", "077", "777"] {
        let host = firewall(Backend::Nft);
        apply(&host, SPEC);
        let nvactl = env!("CARGO_BIN_EXE_nvactl");
        host.shell(&format!(
            "rm -rf /etc/iptables /etc/sysctl.d
             umask {umask}
             {nvactl} persist
             {nvactl} sysctl enable --persist"
        ));
        let modes = "stat -c %a /etc/iptables /etc/iptables/rules.v4 /etc/sysctl.d /etc/sysctl.d/99-nvactl.conf";
        assert_eq!(host.run(modes), "755\n640\n755\n644\n", "umask {umask}");
    }
}

/// Runs nvactl, which must end by itself, and soon.
fn in_time(host: &Host, args: &[&str]) -> Said {
    let args = [&["20", env!("CARGO_BIN_EXE_nvactl")], args].concat();
    let said = Said::from(host.feed("timeout", &args, SPEC));
    assert_ne!(said.code, 124, "{args:?} waits for ever");
    said
}

#[test]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    if !possible() {
        return;
    }
    let host = firewall(Backend::Nft);
    apply(&host, SPEC);
    host.shell(
        "mkdir -p /etc/iptables /etc/ufw /etc/nvactl
         rm -f /etc/ufw/ufw.conf
         mkfifo /etc/iptables/rules.v4 /etc/iptables/rules.v6 /etc/sysctl.d/10-pipe.conf \
           /etc/sysctl.conf /etc/ufw/ufw.conf /etc/nvactl/forward.yaml",
    );
    let rules = save(&host);
    let said = in_time(&host, &["status", "-"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("cannot be read"), "{said:?}");
    in_time(&host, &["doctor", "-"]);
    let said = in_time(&host, &["remove", "--dry-run"]);
    assert_eq!(said.code, 1, "{said:?}");
    let said = in_time(&host, &["sysctl", "status"]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = in_time(&host, &["persist"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("is not a regular file"), "{said:?}");
    // Nobody has named this spec: it is only found.
    let said = in_time(&host, &["check"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("`/etc/nvactl/forward.yaml` is not a regular file"),
        "{said:?}"
    );
    in_time(&host, &["apply", "-"]);
    assert_eq!(save(&host), rules);
}

/// A comment that clears the screen, ends a command in C1, and turns the line round.
const COMMENT: &str = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d";

fn is_fit_for_a_terminal(text: &str) -> bool {
    let plain = text.replace('\n', "");
    !plain.contains(char::is_control) && !plain.contains('\u{202e}')
}

/// The removal that is printed for a rule can be pasted whatever the rule's comment holds.
#[test]
fn text_of_others_is_made_visible_and_commands_with_it_can_be_pasted() {
    if !possible() {
        return;
    }
    let host = firewall(Backend::Nft);
    host.shell(&format!(
        "iptables -t nat -A PREROUTING -p tcp --dport 49182 -m comment --comment '{COMMENT}' \
           -j DNAT --to-destination 10.224.0.9:80"
    ));
    for args in [
        &["apply", "-", "-v"][..],
        &["doctor", "-"],
        &["doctor", "-", "--format", "json"],
        &["status", "-"],
        &["diff", "-"],
    ] {
        let said = nvactl(&host, args, SPEC);
        let told = said.stdout + &said.stderr;
        assert!(is_fit_for_a_terminal(&told), "{args:?}: {told:?}");
    }
    host.run("iptables -t nat -F NVACTL-PREROUTING");
    let said = apply(&host, SPEC);
    let removal = said
        .stderr
        .lines()
        .find_map(|line| line.split_once("to remove it: "));
    let (_, removal) = removal.unwrap_or_else(|| panic!("{said:?}"));
    assert!(
        removal.contains(r"$'a\x1b[2Jb\xc2\x9b31mc\xe2\x80\xaed'"),
        "{removal}"
    );
    let pasted = host.feed("bash", &["-c", removal], "");
    assert!(pasted.status.success(), "{pasted:?}");
    assert!(!save(&host).contains("10.224.0.9"));

    // What another program has to say.
    host.shell(&format!(
        "rm /run/bin/iptables-save
         printf '#!/bin/sh\\necho \"bad {COMMENT}\" >&2\\nexit 1\\n' > /run/bin/iptables-save
         chmod +x /run/bin/iptables-save"
    ));
    let said = nvactl(&host, &["-v", "status", "-"], SPEC);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(is_fit_for_a_terminal(&said.stderr), "{said:?}");
    assert!(
        said.stderr.contains(r"bad a\u{1b}[2Jb\u{9b}31mc\u{202e}d"),
        "{said:?}"
    );
}
