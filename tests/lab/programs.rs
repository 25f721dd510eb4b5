//! The rules of other firewall programs: each program loads its own, and `nvactl import` accounts for each rule.
//!
//! `tests/prepare` unpacks the programs. They run on a host of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::{Backend, Said, host_with};
use crate::namespace::Host;
use crate::pages::root;
use crate::required::is_required;

/// The programs over the host's own, and interfaces that they may name.
const LAY_OVER: &str = "
mount -t overlay overlay -o lowerdir=$root/usr:/usr /usr
cp -a $root/etc/. /etc
mkdir -p /var/lib
cp -a $root/var/lib/. /var/lib
ip link add eth0 type veth peer name outside
ip link add eth1 type veth peer name inside
ip address add 192.0.2.8/24 dev eth0
ip address add 10.8.0.1/24 dev eth1
ip link set eth0 up
ip link set eth1 up
";

const UFW: &str = r"
cp /usr/share/ufw/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw
sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/; s/^IPT_MODULES=.*/IPT_MODULES=/' /etc/default/ufw
cat > /run/nat <<'END'
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -d 192.0.2.8 -p tcp --dport 443 -j DNAT --to-destination 10.8.0.20:8443
-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
COMMIT
END
cat /run/nat /usr/share/ufw/before.rules > /etc/ufw/before.rules
ufw allow 22/tcp
ufw limit 2222/tcp
ufw route deny in on eth0 from 203.0.113.0/24
ufw route allow in on eth0 out on eth1 to 10.8.0.20 port 8443 proto tcp
ufw logging medium
ufw --force enable
";

const FERM: &str = r"
cat > /run/ferm.conf <<'END'
domain (ip ip6) table filter {
  chain INPUT { policy DROP; mod state state (ESTABLISHED RELATED) ACCEPT; interface lo ACCEPT; proto tcp dport ssh ACCEPT; }
  chain OUTPUT policy ACCEPT;
  chain FORWARD {
    policy DROP;
    mod state state INVALID DROP;
    mod state state (ESTABLISHED RELATED) ACCEPT;
    interface eth1 outerface eth0 ACCEPT;
  }
}
domain ip {
  table filter chain FORWARD interface eth0 outerface eth1 daddr 10.8.0.20 proto tcp dport 8443 ACCEPT;
  table nat {
    chain PREROUTING interface eth0 daddr 192.0.2.8 proto tcp dport https DNAT to 10.8.0.20:8443;
    chain POSTROUTING outerface eth0 saddr 10.8.0.0/24 MASQUERADE;
  }
}
END
ferm --noexec --lines /run/ferm.conf > /run/ferm.rules
# By itself it takes iptables-legacy wherever that is installed.
ferm --noexec --lines --domain ip /run/ferm.conf | iptables-restore
ferm --noexec --lines --domain ip6 /run/ferm.conf | ip6tables-restore
";

const SHOREWALL: &str = r"
cd /etc/shorewall
printf 'fw firewall
net ipv4
loc ipv4
' > zones
printf '?FORMAT 2
net eth0 tcpflags,nosmurfs,routefilter,logmartians
loc eth1 tcpflags,nosmurfs
' > interfaces
printf 'loc net ACCEPT
net all DROP $LOG_LEVEL
all all REJECT $LOG_LEVEL
' > policy
printf 'MASQUERADE 10.8.0.0/24 eth0
' > snat
printf '?SECTION NEW
SSH(ACCEPT) net $FW
Ping(ACCEPT) loc $FW
DNAT net loc:10.8.0.20:8443 tcp 443
ACCEPT net:198.51.100.0/24 loc:10.8.0.22 tcp 22
' > rules
mkdir -p /var/lib/shorewall /run/lock/subsys
shorewall start
";

/// The program proper without its D-Bus service, with iptables instead of nft.
const FIREWALLD: &str = r"
sed -i 's/^FirewallBackend=.*/FirewallBackend=iptables/' /etc/firewalld/firewalld.conf
export PYTHONPATH=/usr/lib/python3/dist-packages
/usr/bin/python3 /usr/bin/firewall-offline-cmd --zone=external --add-interface=eth0
/usr/bin/python3 /usr/bin/firewall-offline-cmd --zone=internal --add-interface=eth1
/usr/bin/python3 /usr/bin/firewall-offline-cmd --zone=external   --add-forward-port=port=443:proto=tcp:toport=8443:toaddr=10.8.0.20
/usr/bin/python3 -c 'from firewall.core.fw import Firewall; Firewall().start()'
";

/// Returns the folder of the unpacked programs; `None` where they are not there and need not be.
fn programs() -> Option<PathBuf> {
    let folder = root().join("target/programs");
    if folder.join("unpacked").exists() {
        return Some(folder.join("root"));
    }
    assert!(
        !is_required(),
        "`tests/run` unpacks the programs: {}",
        folder.display()
    );
    None
}

/// Returns a host on which a program has loaded its rules.
fn host(backend: Backend, script: &str) -> Option<Host> {
    let root = programs()?;
    let host = host_with(backend);
    host.shell(&format!("root={}{LAY_OVER}", root.display()));
    host.shell(script);
    Some(host)
}

fn import(host: &Host, args: &[&str], stdin: &str) -> Value {
    let nvactl = env!("CARGO_BIN_EXE_nvactl");
    let all = [&["import"], args, &["--format", "json", "--no-proof"]].concat();
    let said = Said::from(host.feed(nvactl, &all, stdin));
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(&said.stdout).expect("it prints JSON")
}

/// Returns how many rules each chain has, by the lines of iptables-save.
fn lines(family: &str, saved: &str) -> BTreeMap<(String, String, String), usize> {
    let mut counts = BTreeMap::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().expect("a rule has a chain");
            let key = (family.to_owned(), table.to_owned(), chain.to_owned());
            *counts.entry(key).or_default() += 1;
        }
    }
    counts
}

/// Returns how many accounts each chain has, and checks that they count its rules from 1.
fn accounts(import: &Value) -> BTreeMap<(String, String, String), usize> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for rule in import["rules"].as_array().expect("they are there") {
        let word = |key: &str| rule[key].as_str().expect("it is a word").to_owned();
        let count = counts
            .entry((word("family"), word("table"), word("chain")))
            .or_default();
        *count += 1;
        assert_eq!(
            rule["number"].as_u64(),
            u64::try_from(*count).ok(),
            "{rule}"
        );
        assert!(!word("words").is_empty(), "{rule}");
    }
    counts
}

/// Checks that each live rule and each rule of the same text has one account, and returns the import.
#[track_caller]
fn accounted(host: &Host) -> Value {
    let (v4, v6) = (host.run("iptables-save"), host.run("ip6tables-save"));
    let mut expected = lines("v4", &v4);
    expected.extend(lines("v6", &v6));
    let live = import(host, &["live"], "");
    assert_eq!(accounts(&live), expected);
    let text = import(host, &["-"], &format!("{v4}{v6}"));
    assert_eq!(accounts(&text), expected);
    live
}

/// Returns what became of the one rule that has certain words.
#[track_caller]
fn outcome<'j>(import: &'j Value, words: &str) -> (&'j str, &'j str) {
    let all = import["rules"].as_array().expect("they are there");
    let has = |rule: &&Value| {
        rule["rule"]
            .as_str()
            .is_some_and(|text| text.contains(words))
    };
    let found: Vec<&Value> = all.iter().filter(has).collect();
    assert_eq!(found.len(), 1, "{words}: {found:?}");
    let word = |key: &str| found[0][key].as_str().expect("it is a word");
    (word("outcome"), word("words"))
}

fn each_rule_of_ufw_has_one_account(backend: Backend) {
    let Some(host) = host(backend, UFW) else {
        return;
    };
    let live = accounted(&host);
    assert_eq!(
        outcome(&live, "--to-destination 10.8.0.20:8443"),
        ("taken over", "the redirection of tcp-443")
    );
    assert_eq!(
        outcome(&live, "-A ufw-user-forward -d 10.8.0.20/32"),
        ("left alone", "ufw writes it")
    );
    let spec = live["spec"].as_str().expect("it is text");
    assert!(spec.contains("- 203.0.113.0/24"), "{spec}");
    // Its own files are text for iptables-restore, in another spelling.
    for file in ["before.rules", "user.rules", "after.rules", "before6.rules"] {
        let path = format!("/etc/ufw/{file}");
        let text = std::fs::read_to_string(host.path(&path)).expect("it is there");
        let adds = |line: &&str| line.starts_with("-A ") || line.starts_with("-I ");
        let rules = text.lines().filter(adds).count();
        let import = import(&host, &[&path], "");
        assert_eq!(accounts(&import).values().sum::<usize>(), rules, "{file}");
    }
}

fn each_rule_of_ferm_has_one_account(backend: Backend) {
    let Some(host) = host(backend, FERM) else {
        return;
    };
    let live = accounted(&host);
    for (words, part) in [
        (
            "--to-destination 10.8.0.20:8443",
            "the redirection of tcp-443",
        ),
        ("-d 10.8.0.20/32 -i eth0 -o eth1", "the accept of tcp-443"),
        ("-j MASQUERADE", "the source address of outbound"),
    ] {
        assert_eq!(outcome(&live, words), ("taken over", part));
    }
    // ferm prints its rules in the spelling of commands.
    let text = import(&host, &["/run/ferm.rules"], "");
    assert_eq!(accounts(&text), accounts(&live));
}

fn each_rule_of_shorewall_has_one_account(backend: Backend) {
    let Some(host) = host(backend, SHOREWALL) else {
        return;
    };
    let live = accounted(&host);
    for (words, part) in [
        (
            "--to-destination 10.8.0.20:8443",
            "the redirection of tcp-443",
        ),
        ("-A net-loc -d 10.8.0.20/32", "the accept of tcp-443"),
        ("-j MASQUERADE", "the source address of outbound"),
    ] {
        assert_eq!(outcome(&live, words), ("taken over", part));
    }
}

/// Shorewall would load adopted rules again.
fn rules_of_shorewall_stay(backend: Backend) {
    let Some(host) = host(backend, SHOREWALL) else {
        return;
    };
    let nvactl = |args: &[&str]| crate::nvactl(&host, args, "");
    let said = nvactl(&["import", "live", "-o", "/run/spec.yaml", "--no-proof"]);
    assert_eq!(said.code, 0, "{said:?}");
    let spec = host.run("cat /run/spec.yaml");
    let note = "\n# Shorewall loads these rules again whenever it starts, so `nvactl apply --adopt` leaves them: delete";
    assert!(spec.contains(note), "{spec}");
    let dnat =
        "-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.8.0.20:8443";
    let others = |saved: &str| {
        let rules = saved
            .lines()
            .filter(|line| line.starts_with("-A") && !line.contains("NVACTL"));
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = others(&host.run("iptables-save"));
    let adopt = ["apply", "/run/spec.yaml", "--adopt", "--no-trial"];
    let said = nvactl(&adopt);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(others(&host.run("iptables-save")), before);
    let words = format!(
        "Shorewall loads these rules again whenever it starts, so they were not adopted:\n  filter: -A loc_frwd -o eth0 -j ACCEPT\n  \
         filter: -A net-loc -d 10.8.0.20/32 -p tcp -m tcp --dport 8443 -m conntrack --ctorigdstport 443 -j ACCEPT\n  nat: {dnat}\n  \
         nat: -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE\n  to take them out, delete their lines in \
         /etc/shorewall, then: sudo shorewall reload\n  a reload removes nvactl's rules as well: apply the spec again afterwards"
    );
    assert!(said.stderr.contains(&words), "{said:?}");

    // The advice.
    host.shell("sed -i /^DNAT/d /etc/shorewall/rules && shorewall reload");
    let saved = host.run("iptables-save");
    assert!(
        !saved.contains(dnat) && !saved.contains("NVACTL"),
        "{saved}"
    );
    let said = nvactl(&adopt);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        host.run("iptables-save")
            .contains("comment tcp-443 -j DNAT")
    );
}

fn each_rule_of_firewalld_has_one_account(backend: Backend) {
    let Some(host) = host(backend, FIREWALLD) else {
        return;
    };
    let live = accounted(&host);
    assert_eq!(
        outcome(&live, "--to-destination 10.8.0.20:8443"),
        ("left alone", "firewalld writes it")
    );
}

mod rules_of_shorewall_stay {
    lab_test!(nft super::rules_of_shorewall_stay);
}

mod each_rule_of_other_programs_has_one_account {
    // The programs load their rules into nft, whatever the host's plain names are.
    mod ufw {
        lab_test!(nft super::super::each_rule_of_ufw_has_one_account);
    }
    mod ferm {
        lab_test!(nft super::super::each_rule_of_ferm_has_one_account);
    }
    mod shorewall {
        lab_test!(nft super::super::each_rule_of_shorewall_has_one_account);
    }
    mod firewalld {
        lab_test!(nft super::super::each_rule_of_firewalld_has_one_account);
    }
}
