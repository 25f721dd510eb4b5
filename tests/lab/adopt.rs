//! `nvactl apply --adopt`: rules that people typed go when the spec says them, and come back with an undo.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::confirm::has_watchdog;
use crate::fake::{fake, unfake};
use crate::firewall::firewall;
use crate::lab::{Backend, CLIENT, FIREWALL, Lab, OTHER, Said, save, save_v6};
use crate::long;
use crate::namespace::{Host, wait_for, wait_for_at_most};
use crate::nvactl;
use crate::traffic::{Outcome, answer, serve_tcp};

/// The article's first scenario, with the port that the Service exposes.
const THROUGH_AN_ILB: &str = "
iptables -A FORWARD -p tcp --syn --dport 49181 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.222
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 49181 -d 10.224.0.222 -j SNAT --to-source 10.3.0.4
";

/// The article's second scenario.
const STRAIGHT_TO_A_POD: &str = "
iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4
";

/// The spec that says the second scenario.
const POD: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49181, target: {pod: 10.224.0.118:80}}
";

/// Types rules on a host.
pub fn typed(host: &Host, commands: &str) -> String {
    host.shell(&format!("set -e\n{commands}"));
    save(host)
}

pub fn adopt(host: &Host, spec: &str) -> Said {
    nvactl(host, &["apply", "-", "--adopt", "--no-trial"], spec)
}

pub fn rollback(host: &Host) -> Said {
    nvactl(host, &["rollback"], "")
}

/// The rules that are not nvactl's.
pub fn foreign(host: &Host) -> Vec<String> {
    let saved = save(host);
    let rules = saved.lines().filter(|line| line.starts_with("-A"));
    let foreign = rules.filter(|line| !line.contains("NVACTL"));
    foreign.map(str::to_owned).collect()
}

/// The rules of a chain that are not nvactl's, without `-A` and the name of the chain.
pub fn chain(host: &Host, name: &str) -> Vec<String> {
    let start = format!("-A {name} ");
    let foreign = foreign(host).into_iter();
    let rules = foreign.filter_map(|line| Some(line.strip_prefix(&start)?.to_owned()));
    rules.collect()
}

lab_test!(typed_rules_become_a_spec_and_go);
fn typed_rules_become_a_spec_and_go(backend: Backend) {
    for (commands, target) in [(THROUGH_AN_ILB, "ilb"), (STRAIGHT_TO_A_POD, "pod")] {
        let lab = Lab::one_nic(backend);
        let host = &lab.firewall;
        serve_tcp(&lab.ilb, "ilb", 49181);
        serve_tcp(&lab.pod, "pod", 80);
        host.run("sysctl -qw net.ipv4.ip_forward=1");
        let before = typed(host, commands);
        assert_eq!(lab.tcp(FIREWALL, 49181), answer(target, FIREWALL));
        let said = lab.nvactl(&["import", "live", "-o", "/run/spec.yaml"]);
        assert_eq!(said.code, 0, "{said:?}");

        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--adopt", "--dry-run"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.stdout
                .contains("would adopt 4 rules, which the spec says now:\n"),
            "{said:?}"
        );
        assert!(
            said.stdout.contains("\n- -A PREROUTING -i eth0 -p tcp"),
            "{said:?}"
        );
        assert_eq!(save(host), before);

        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--adopt"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.contains("adopting 4 rules"), "{said:?}");
        // The accept has no `-d`, so it let others reach the target, and more.
        assert!(
            said.stderr
                .contains(" will end differently once the rules are gone (accepts-more"),
            "{said:?}"
        );
        // A program that does not know of adopted rules would undo the change without them.
        let version = host.shell("grep -rh '\"version\"' /var/lib/nvactl");
        assert!(version.contains("\"version\": 2"), "{version}");
        assert_eq!(foreign(host), [""; 0]);
        assert_eq!(lab.tcp(FIREWALL, 49181), answer(target, FIREWALL));
        let after = save(host);
        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--adopt"]);
        assert!(said.stdout.contains("no changes"), "{said:?}");

        let said = lab.nvactl(&["rollback"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), before);
        assert_eq!(lab.tcp(FIREWALL, 49181), answer(target, FIREWALL));

        // Beside rules of nvactl that are loaded already.
        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--no-trial"]);
        assert_eq!(said.code, 0, "{said:?}");
        let beside = save(host);
        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--adopt", "--confirm", "600"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), after);
        let said = lab.nvactl(&["confirm", "--cancel"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), beside);
        let said = lab.nvactl(&["apply", "/run/spec.yaml", "--adopt"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), after);
        // Adopting alone is a change that a rollback undoes.
        let said = lab.nvactl(&["rollback"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), beside);
        assert_eq!(lab.tcp(FIREWALL, 49181), answer(target, FIREWALL));
    }
}

/// Answers each byte with the same byte until the test process ends.
fn serve_echo(host: &Host, port: u16) {
    host.enter(move || {
        let listener = TcpListener::bind(("::", port)).expect("the port is free");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
    });
}

lab_test!(sampled either no_connection_is_lost_by_adopting);
/// New connections all the while, and one that stays open: none of them notices.
fn no_connection_is_lost_by_adopting(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let host = &lab.firewall;
    serve_echo(&lab.pod, 80);
    host.run("sysctl -qw net.ipv4.ip_forward=1");
    let before = typed(host, STRAIGHT_TO_A_POD);
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    // A lost packet is sent again after 200 ms, a lost SYN after a second.
    let patience = Duration::from_millis(900);
    let to = format!("{FIREWALL}:49181").parse().expect("an address");
    let [new_over, open_over] = [Arc::clone(&over), Arc::clone(&over)];
    let count = Arc::clone(&asked);
    let flood = lab.client.enter(move || {
        let new = thread::spawn(move || {
            while !new_over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                TcpStream::connect_timeout(&to, patience)
                    .unwrap_or_else(|error| panic!("lost after {:?}: {error}", begin.elapsed()));
                count.fetch_add(1, Ordering::Relaxed);
                // Each takes one of the 64,000 ports of the SNAT address for two minutes.
                thread::sleep(Duration::from_millis(2));
            }
        });
        let open = thread::spawn(move || {
            let mut stream = TcpStream::connect_timeout(&to, patience).expect("it opens");
            stream
                .set_read_timeout(Some(patience))
                .expect("it can wait");
            let mut byte = [7];
            while !open_over.load(Ordering::Relaxed) {
                stream.write_all(&byte).expect("it is sent");
                stream
                    .read_exact(&mut byte)
                    .expect("an open connection was lost");
            }
        });
        [new, open]
    });
    let rounds = long::count(15, 100);
    for _ in 0..rounds {
        let said = adopt(host, POD);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(foreign(host), [""; 0]);
        let said = rollback(host);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), before);
    }
    over.store(true, Ordering::Relaxed);
    for thread in flood {
        thread.join().expect("no connection was lost");
    }
    let asked = asked.load(Ordering::Relaxed);
    println!("{asked} connections in {rounds} rounds");
    assert!(
        asked > rounds * 10,
        "the flood was too thin to say anything"
    );
}

/// The second scenario among rules of others, which stay.
const AMONG_OTHERS: &str = "
iptables -A FORWARD -s 192.0.2.1 -p icmp -j DROP
iptables -A FORWARD -d 10.224.0.118 -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -s 192.0.2.2 -p icmp -j DROP
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -i eth7 -o eth8 -j ACCEPT
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -s 192.0.2.3 -p icmp -j RETURN
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A POSTROUTING -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4
iptables -t nat -A POSTROUTING -s 192.0.2.4 -p icmp -j RETURN
";

lab_test!(rules_come_back_between_what_others_changed);
fn rules_come_back_between_what_others_changed(backend: Backend) {
    let host = firewall(backend);
    let typed_before = typed(&host, AMONG_OTHERS);
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    let left = [
        "-s 192.0.2.1/32 -p icmp -j DROP",
        "-s 192.0.2.2/32 -p icmp -j DROP",
        // A foreign accept stays, so the rule for its replies does.
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-i eth7 -o eth8 -j ACCEPT",
    ];
    assert_eq!(chain(&host, "FORWARD"), left);
    assert_eq!(
        chain(&host, "PREROUTING"),
        ["-s 192.0.2.3/32 -p icmp -j RETURN"]
    );
    assert_eq!(rollback(&host).code, 0);
    assert_eq!(save(&host), typed_before);

    let accept = "-d 10.224.0.118/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT";
    let snat = "-d 10.224.0.118/32 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.3.0.4";
    // Rules before, between and behind: the rules keep their predecessors.
    assert_eq!(adopt(&host, POD).code, 0);
    host.shell(
        "iptables -A FORWARD -s 192.0.2.9 -p icmp -j DROP
         iptables -I FORWARD 3 -s 192.0.2.8 -p icmp -j DROP
         iptables -I FORWARD 1 -s 192.0.2.7 -p icmp -j DROP
         iptables -t nat -I POSTROUTING 1 -s 192.0.2.6 -p icmp -j RETURN",
    );
    let said = rollback(&host);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        chain(&host, "FORWARD"),
        [
            "-s 192.0.2.7/32 -p icmp -j DROP",
            left[0],
            accept,
            "-s 192.0.2.8/32 -p icmp -j DROP",
            left[1],
            left[2],
            left[3],
            "-s 192.0.2.9/32 -p icmp -j DROP",
        ]
    );
    assert_eq!(
        chain(&host, "POSTROUTING"),
        [
            "-s 192.0.2.6/32 -p icmp -j RETURN",
            snat,
            "-s 192.0.2.4/32 -p icmp -j RETURN"
        ]
    );
}

lab_test!(either a_rule_whose_neighbours_are_gone_is_printed);
fn a_rule_whose_neighbours_are_gone_is_printed(backend: Backend) {
    let host = firewall(backend);
    typed(&host, AMONG_OTHERS);
    let accept = "-d 10.224.0.118/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT";
    // A rule without its predecessor comes before its successor.
    assert_eq!(adopt(&host, POD).code, 0);
    host.run("iptables -D FORWARD -s 192.0.2.1 -p icmp -j DROP");
    let said = rollback(&host);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        chain(&host, "FORWARD")[..2],
        [accept, "-s 192.0.2.2/32 -p icmp -j DROP"]
    );

    // Nobody knows its place without both.
    host.run("iptables -I FORWARD 1 -s 192.0.2.1 -p icmp -j DROP");
    assert_eq!(adopt(&host, POD).code, 0);
    host.run("iptables -D FORWARD -s 192.0.2.1 -p icmp -j DROP");
    host.run("iptables -D FORWARD -s 192.0.2.2 -p icmp -j DROP");
    // Somebody has typed another one again.
    host.run("iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80");
    let said = rollback(&host);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(!chain(&host, "FORWARD").contains(&accept.to_owned()));
    assert_eq!(chain(&host, "PREROUTING").len(), 2);
    assert!(
        said.stderr
            .contains("is loaded already and was not added a second time"),
        "{said:?}"
    );
    let (_, command) = said
        .stderr
        .split_once("the rule behind it is there; to add it: sudo ")
        .expect("the command is printed");
    host.run(command.lines().next().expect("it has a line"));
    assert!(chain(&host, "FORWARD").contains(&accept.to_owned()));

    // The same when nobody confirms.
    host.shell(
        "iptables -F FORWARD; iptables -A FORWARD -s 192.0.2.1 -p icmp -j DROP
         iptables -A FORWARD -d 10.224.0.118 -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
         iptables -A FORWARD -s 192.0.2.2 -p icmp -j DROP",
    );
    let args = ["apply", "-", "--adopt", "--no-trial", "--confirm", "600"];
    let said = nvactl(&host, &args, POD);
    assert_eq!(said.code, 0, "{said:?}");
    host.run("iptables -D FORWARD -s 192.0.2.1 -p icmp -j DROP");
    host.run("iptables -D FORWARD -s 192.0.2.2 -p icmp -j DROP");
    let said = nvactl(&host, &["confirm", "--cancel"], "");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("to add it: sudo iptables"), "{said:?}");
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert!(said.stdout.contains("to add it: sudo iptables"), "{said:?}");
}

/// Gives a faked program the name of its backend, by which an undo calls it, and returns that name.
fn alias(host: &Host, backend: Backend, program: &str) -> String {
    let of_backend = match backend {
        Backend::Nft => "iptables-nft-",
        Backend::Legacy => "iptables-legacy-",
    };
    let name = program.replace("iptables-", of_backend);
    host.run(&format!("cp -P /run/bin/{program} /run/bin/{name}"));
    name
}

lab_test!(either the_watchdog_puts_adopted_rules_back);
fn the_watchdog_puts_adopted_rules_back(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    let args = ["apply", "-", "--adopt", "--no-trial", "--confirm", "1"];
    let said = nvactl(&host, &args, POD);
    assert_eq!(said.code, 0, "{said:?}");
    let limit = Duration::from_secs(40);
    wait_for_at_most(limit, "the watchdog is done", || !has_watchdog(&host));
    assert_eq!(save(&host), before);
}

lab_test!(either adopted_rules_come_back_if_the_undo_is_refused);
/// A jump of another program keeps a chain of nvactl, which the undo would delete.
fn adopted_rules_come_back_if_the_undo_is_refused(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    let args = ["apply", "-", "--adopt", "--no-trial", "--confirm", "600"];
    let said = nvactl(&host, &args, POD);
    assert_eq!(said.code, 0, "{said:?}");
    // nvactl does not see the jump while it reads, and the kernel refuses to delete the chain.
    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/first 2>/dev/null; then iptables -A OUTPUT -o lo -j NVACTL-FORWARD; fi\nreal \"$@\"",
    );
    alias(&host, backend, "iptables-restore");
    let said = nvactl(&host, &["confirm", "--cancel"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let all = save(&host);
    let rules = |text: &str| -> Vec<String> {
        let rules = text.lines().filter(|line| line.starts_with("-A"));
        rules
            .filter(|line| !line.contains("NVACTL"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(rules(&all), rules(&before));
    assert!(!all.contains("web"), "{all}");
}

lab_test!(either adopted_rules_are_printed_if_the_rules_cannot_be_read);
/// nvactl's own rules are undone all the same, since they are known.
fn adopted_rules_are_printed_if_the_rules_cannot_be_read(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    let args = ["apply", "-", "--adopt", "--no-trial", "--confirm", "600"];
    let said = nvactl(&host, &args, POD);
    assert_eq!(said.code, 0, "{said:?}");
    let adopted = foreign(&host);
    fake(&host, "iptables-save", "exit 1");
    let name = alias(&host, backend, "iptables-save");
    let said = nvactl(&host, &["confirm", "--cancel"], "");
    host.run(&format!("rm /run/bin/{name}"));
    unfake(&host, "iptables-save");
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(foreign(&host), adopted);
    assert!(!save(&host).contains("web"), "{}", save(&host));
    let commands: Vec<&str> = said
        .stderr
        .lines()
        .filter(|line| line.contains("because the loaded rules cannot be read"))
        .filter_map(|line| line.split_once("; to add it: sudo "))
        .map(|(_, command)| command)
        .collect();
    assert_eq!(commands.len(), 3, "{said:?}");
    // The commands are the whole undo if nothing changed meanwhile.
    for command in commands {
        host.run(command);
    }
    let typed: Vec<&str> = before
        .lines()
        .filter(|line| line.starts_with("-A"))
        .collect();
    assert_eq!(foreign(&host), typed);
}

lab_test!(either copies_of_a_rule_go_together);
fn copies_of_a_rule_go_together(backend: Backend) {
    let host = firewall(backend);
    let twice = STRAIGHT_TO_A_POD.replace("iptables -P FORWARD DROP", "");
    let before = typed(&host, &twice.repeat(2));
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(foreign(&host), [""; 0]);
    assert_eq!(rollback(&host).code, 0);
    assert_eq!(save(&host), before);
}

lab_test!(either a_chain_of_ones_own_goes_with_its_jump);
fn a_chain_of_ones_own_goes_with_its_jump(backend: Backend) {
    let host = firewall(backend);
    let before = typed(
        &host,
        "iptables -P FORWARD DROP
         iptables -N PODS
         iptables -A FORWARD -s 192.0.2.1 -p icmp -j DROP
         iptables -A FORWARD -i eth0 -j PODS
         iptables -A PODS -d 10.224.0.118 -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
         iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
         iptables -t nat -A POSTROUTING -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4",
    );
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        foreign(&host),
        ["-A FORWARD -s 192.0.2.1/32 -p icmp -j DROP"]
    );
    assert!(!save(&host).contains("PODS"));
    assert_eq!(rollback(&host).code, 0);
    assert_eq!(save(&host), before);

    // The chain and its jump stay with a rule that does.
    host.run("iptables -A PODS -s 192.0.2.5 -p icmp -j ACCEPT");
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(chain(&host, "PODS"), ["-s 192.0.2.5/32 -p icmp -j ACCEPT"]);
    assert_eq!(chain(&host, "FORWARD").len(), 2);
}

lab_test!(either rules_with_another_meaning_are_refused);
fn rules_with_another_meaning_are_refused(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, STRAIGHT_TO_A_POD);
    for (from, to, words) in [
        (
            "10.224.0.118:80",
            "10.224.0.119:80",
            "`web`: target is 10.224.0.118:80 in the rules, 10.224.0.119:80 in the spec",
        ),
        (
            "snat: 10.3.0.4",
            "snat: masquerade",
            "`web`: snat is 10.3.0.4 in the rules, masquerade in the spec",
        ),
        (
            "listen: 49181",
            "listen: 49181-49182",
            "listen is 49181 in the rules, 49181-49182 in the spec",
        ),
        (
            ":80}}",
            ":80}, allow_from: [192.0.2.0/24]}",
            "allow_from is all in the rules, 192.0.2.0/24 in the spec",
        ),
    ] {
        let said = adopt(&host, &POD.replace(from, to));
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains(words), "{words}: {said:?}");
        assert!(
            said.stderr.contains("nat: -A PREROUTING -i eth0"),
            "{said:?}"
        );
        assert_eq!(save(&host), before);
    }
    // Another port is another forward, and the rules stay.
    let said = adopt(&host, &POD.replace("49181", "49182"));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(foreign(&host).len(), 4);
    assert!(
        said.stderr.contains("not in the spec, so it stays"),
        "{said:?}"
    );
}

lab_test!(either a_rule_that_a_file_adds_at_boot_stays);
fn a_rule_that_a_file_adds_at_boot_stays(backend: Backend) {
    let host = firewall(backend);
    typed(&host, STRAIGHT_TO_A_POD);
    host.shell(
        "mkdir -p /etc/wireguard /etc/iptables
         iptables-save > /etc/iptables/rules.v4
         cat > /etc/wireguard/wg0.conf <<'END'
[Interface]
PostUp = iptables -t nat -A POSTROUTING -o eth0 -d 10.224.0.118 -p tcp --dport 80 -j SNAT --to-source 10.3.0.4
END
         printf '%s\\n' 'iptables -A FORWARD -i $IN -j ACCEPT' > /etc/rc.local
         mkdir -p /etc/systemd/system/multi-user.target.wants
         ln -s /lib/none /etc/systemd/system/multi-user.target.wants/ferm.service",
    );
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("`/etc/wireguard/wg0.conf` adds a rule at boot, so it was not adopted: nat: -A POSTROUTING"),
        "{said:?}"
    );
    assert!(
        said.stderr
            .contains("`/etc/iptables/rules.v4` still has adopted rules"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains(
            "ferm loads whole tables at boot; nvactl cannot read its rules, so look whether it adds an adopted rule \
             at boot: /etc/ferm/ferm.conf"
        ),
        "{said:?}"
    );
    assert!(
        said.stderr.contains(
            "`/etc/rc.local` has a command that nvactl cannot read; look whether it adds an adopted rule at boot: \
             iptables -A FORWARD -i $IN -j ACCEPT"
        ),
        "{said:?}"
    );
    assert_eq!(foreign(&host).len(), 1);
    assert_eq!(chain(&host, "POSTROUTING").len(), 1);
}

lab_test!(either a_rule_of_a_script_that_a_unit_runs_stays);
fn a_rule_of_a_script_that_a_unit_runs_stays(backend: Backend) {
    let host = firewall(backend);
    typed(&host, STRAIGHT_TO_A_POD);
    host.shell(
        "mkdir -p /etc/systemd/system
         iptables-save > /etc/old.rules
         printf '%s\\n' '[Service]' 'ExecStart=/bin/sh -e /etc/firewall.sh' > /etc/systemd/system/fw.service
         cat > /etc/firewall.sh <<'END'
POD=10.224.0.118
iptables -t nat --append POSTROUTING -o eth0 --destination \"$POD\" -p tcp --dport 80 -j SNAT --to-source 10.3.0.4
iptables-save > /etc/old.rules
END",
    );
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains(
            "`/etc/firewall.sh` adds a rule at boot, so it was not adopted: nat: -A POSTROUTING"
        ),
        "{said:?}"
    );
    assert!(!said.stderr.contains("cannot read"), "{said:?}");
    assert_eq!(foreign(&host).len(), 1);
    assert_eq!(rollback(&host).code, 0);
    // All of them come from a file that the script loads.
    host.shell("echo 'iptables-restore < /etc/old.rules' > /etc/firewall.sh");
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("`/etc/old.rules` adds a rule"),
        "{said:?}"
    );
    assert_eq!(foreign(&host).len(), 4);
}

lab_test!(either a_removal_says_how_adopted_rules_come_back);
fn a_removal_says_how_adopted_rules_come_back(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, STRAIGHT_TO_A_POD);
    let words =
        "a removal does not bring back 4 rules that nvactl adopted; to go back to before change ";
    assert_eq!(adopt(&host, POD).code, 0);
    assert_eq!(rollback(&host).code, 0);
    // They are back.
    let said = nvactl(&host, &["remove"], "");
    assert!(!said.stderr.contains(words), "{said:?}");
    assert_eq!(adopt(&host, POD).code, 0);
    let moved = POD.replace("49181", "49182");
    assert_eq!(nvactl(&host, &["apply", "-", "--no-trial"], &moved).code, 0);
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let (_, command) = said.stderr.split_once(words).expect("it is said");
    let (_, number) = command
        .split_once("nvactl rollback ")
        .expect("it is a command");
    let number = number.lines().next().expect("it has a line");
    assert_eq!(number, "3");
    let said = nvactl(&host, &["rollback", number], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(save(&host), before);
}

lab_test!(a_change_by_others_meanwhile_is_noticed);
fn a_change_by_others_meanwhile_is_noticed(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    let meanwhile = "iptables -I FORWARD 1 -s 192.0.2.55 -j DROP";
    // Before nvactl looks again.
    fake(
        &host,
        "iptables-save",
        &format!(
            "if [ -e /run/once ] && mkdir /run/twice 2>/dev/null; then {meanwhile}; fi; touch /run/once; real \"$@\""
        ),
    );
    let said = adopt(&host, POD);
    unfake(&host, "iptables-save");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("another program changed the chain FORWARD in filter"),
        "{said:?}"
    );
    host.run("iptables -D FORWARD 1");
    assert_eq!(save(&host), before);
    assert!(
        nvactl(&host, &["history"], "")
            .stdout
            .contains("no changes yet")
    );

    // Behind its back: a wrong rule goes, and comes back.
    fake(
        &host,
        "iptables-restore",
        &format!("mkdir /run/first 2>/dev/null && {meanwhile}; real \"$@\""),
    );
    let said = adopt(&host, POD);
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("the old rules are loaded"), "{said:?}");
    host.run("iptables -D FORWARD -s 192.0.2.55 -j DROP");
    assert_eq!(save(&host), before);
}

lab_test!(a_refused_adoption_leaves_every_rule);
fn a_refused_adoption_leaves_every_rule(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    // The second table is refused once the first has been loaded.
    fake(
        &host,
        "iptables-restore",
        "if mkdir /run/first 2>/dev/null; then sed '/web .*-j SNAT/s/-j SNAT --to-source/-j DNAT --to-destination/'; else cat; fi | real \"$@\"",
    );
    let said = adopt(&host, POD);
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(save(&host), before);
    // The rules alone are tried as well.
    let said = nvactl(&host, &["apply", "-", "--adopt"], POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(foreign(&host).len(), 6);
}

lab_test!(either a_killed_adoption_can_be_rolled_back);
fn a_killed_adoption_can_be_rolled_back(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, AMONG_OTHERS);
    let said = nvactl(&host, &["apply", "-", "--no-trial"], POD);
    assert_eq!(said.code, 0, "{said:?}");
    let beside = save(&host);
    let spec = host.feed("sh", &["-c", "cat > /run/spec.yaml"], POD);
    assert!(spec.status.success());
    for loads in [true, false] {
        // nvactl's own rules are the same before and after: the adopted ones alone tell how far it came.
        let load = if loads { "real \"$@\"" } else { "true" };
        fake(
            &host,
            "iptables-restore",
            &format!(
                "touch /run/loading\nwhile [ ! -e /run/killed ]; do sleep 0.05; done\n{load}; touch /run/ended"
            ),
        );
        let mut run = host
            .command(env!("CARGO_BIN_EXE_nvactl"))
            .args(["apply", "/run/spec.yaml", "--adopt", "--no-trial"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        wait_for("it is loading", || host.exists("/run/loading"));
        run.kill().expect("it can be killed");
        let said = run.wait_with_output().expect("it ends");
        let shown = String::from_utf8_lossy(&said.stdout);
        assert!(
            shown.starts_with("adopting 3 rules, which the spec says now:\n"),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), 4, "{shown}");
        host.run("touch /run/killed");
        wait_for("the program has ended", || host.exists("/run/ended"));
        let count = if loads { 6 } else { 9 };
        assert_eq!(foreign(&host).len(), count);
        unfake(&host, "iptables-restore");
        host.run("rm /run/loading /run/killed /run/ended");
        if loads {
            let said = rollback(&host);
            assert_eq!(said.code, 0, "{said:?}");
            assert_eq!(save(&host), beside);
        } else {
            // A change that was never made is no step.
            let said = rollback(&host);
            assert_eq!(said.code, 0, "{said:?}");
            assert_eq!(save(&host), before);
        }
    }
}

lab_test!(either adopted_rules_are_in_the_json);
fn adopted_rules_are_in_the_json(backend: Backend) {
    let host = firewall(backend);
    typed(&host, STRAIGHT_TO_A_POD);
    let said = nvactl(
        &host,
        &[
            "apply",
            "-",
            "--adopt",
            "--dry-run",
            "--no-trial",
            "--format",
            "json",
        ],
        POD,
    );
    assert_eq!(said.code, 1, "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let adopted = json["adopted"].as_array().expect("it is a list");
    let mut lines = String::new();
    for one in adopted {
        assert_eq!(one.as_object().map(serde_json::Map::len), Some(6), "{one}");
        let words = ["family", "table", "chain", "number", "rule", "entries"]
            .map(|key| one[key].to_string());
        let _ = writeln!(lines, "{}", words.join(" "));
    }
    assert_eq!(
        lines,
        r#""v4" "filter" "FORWARD" 1 "-A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT" ["web"]
"v4" "filter" "FORWARD" 2 "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT" []
"v4" "nat" "PREROUTING" 1 "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80" ["web"]
"v4" "nat" "POSTROUTING" 1 "-A POSTROUTING -d 10.224.0.118/32 -o eth0 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.3.0.4" ["web"]
"#
    );
    let said = nvactl(
        &host,
        &["apply", "-", "--dry-run", "--no-trial", "--format", "json"],
        POD,
    );
    assert!(!said.stdout.contains("adopted"), "{said:?}");
}

lab_test!(either accepts_that_lose_their_replies_are_named);
/// `remove` takes out the rule that accepts replies, which foreign accepts may need.
fn accepts_that_lose_their_replies_are_named(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let host = &lab.firewall;
    serve_tcp(&lab.other, "other", 80);
    lab.route_through_firewall(OTHER);
    lab.apply(POD);
    host.run("iptables -A FORWARD -d 10.224.0.99 -p tcp --dport 80 -j ACCEPT");
    host.run("ip route add 198.51.100.0/24 via 10.3.0.1");
    let through = || {
        // Replies come back through the machine as well.
        lab.vnet.run("ip rule add iif other lookup 100");
        let outcome = lab.tcp(OTHER, 80);
        lab.vnet.run("ip rule del iif other lookup 100");
        outcome
    };
    assert_eq!(through(), answer("other", CLIENT));
    let said = lab.nvactl(&["remove", "--dry-run"]);
    let words = "without nvactl's rules nothing accepts the replies to connections that these rules accept:\n  \
        -A FORWARD -d 10.224.0.99/32 -p tcp -m tcp --dport 80 -j ACCEPT\n  to accept them: sudo ";
    assert!(said.stderr.contains(words), "{said:?}");
    let said = lab.nvactl(&["remove"]);
    assert_eq!(said.code, 0, "{said:?}");
    let (_, command) = said.stderr.split_once(words).expect("the rules are named");
    assert_eq!(through(), Outcome::Silence);
    host.run(command.lines().next().expect("it has a line"));
    assert_eq!(through(), answer("other", CLIENT));
}

lab_test!(either outbound_rules_are_adopted);
fn outbound_rules_are_adopted(backend: Backend) {
    let host = firewall(backend);
    let before = typed(
        &host,
        "iptables -P FORWARD DROP
         iptables -A FORWARD -i eth1 -o eth0 -s 10.224.0.0/16 -j ACCEPT
         iptables -A FORWARD -i eth0 -o eth1 -m state --state RELATED,ESTABLISHED -j ACCEPT
         iptables -t nat -A POSTROUTING -o eth0 -s 10.224.0.0/16 -j MASQUERADE",
    );
    let said = nvactl(
        &host,
        &["import", "live", "-o", "/run/spec.yaml", "--no-proof"],
        "",
    );
    assert_eq!(said.code, 0, "{said:?}");
    let args = ["apply", "/run/spec.yaml", "--adopt", "--no-trial"];
    let said = nvactl(&host, &args, "");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(foreign(&host), [""; 0]);
    assert_eq!(rollback(&host).code, 0);
    assert_eq!(save(&host), before);
}

lab_test!(either rules_of_the_other_backend_are_named);
fn rules_of_the_other_backend_are_named(backend: Backend) {
    let host = firewall(backend);
    let other = match backend {
        Backend::Nft => "iptables-legacy",
        Backend::Legacy => "iptables-nft",
    };
    host.shell(&STRAIGHT_TO_A_POD.replace("iptables ", &format!("{other} ")));
    let before = host.run(&format!("{other}-save -t nat"));
    let rules = |text: &str| {
        let rules = text.lines().filter(|line| line.starts_with("-A"));
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    let said = adopt(&host, POD);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains(&format!(
            "{other} has a rule that the spec says as well; it was not adopted"
        )),
        "{said:?}"
    );
    let after = host.run(&format!("{other}-save -t nat"));
    assert_eq!(rules(&after), rules(&before));
}

lab_test!(either ipv6_rules_are_adopted);
fn ipv6_rules_are_adopted(backend: Backend) {
    let host = firewall(backend);
    let v4 = typed(&host, AMONG_OTHERS);
    host.shell(
        "ip6tables -A FORWARD -d fd00:224::118 -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
         ip6tables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
         ip6tables -P FORWARD DROP
         ip6tables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT --to-destination [fd00:224::118]:80
         ip6tables -t nat -A POSTROUTING -o eth0 -d fd00:224::118 -p tcp --dport 80 -j SNAT --to-source fd00:3::4",
    );
    let before = save_v6(&host);
    let spec = "
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: \"fd00:3::4\"}}
forwards:
  - {name: web, listen: 49181, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49182, target: {pod: \"[fd00:224::118]:80\"}}
";
    let said = adopt(&host, spec);
    assert_eq!(said.code, 0, "{said:?}");
    let after = save_v6(&host);
    let foreign = after
        .lines()
        .filter(|line| line.starts_with("-A") && !line.contains("NVACTL"));
    assert_eq!(foreign.count(), 0, "{after}");
    assert_eq!(rollback(&host).code, 0);
    assert_eq!(save_v6(&host), before);
    assert_eq!(save(&host), v4);
}

lab_test!(either rules_that_a_boot_loads_again_are_not_doubled);
/// After a reboot with the old rules file, the adopted rules are there again and nvactl's are not.
fn rules_that_a_boot_loads_again_are_not_doubled(backend: Backend) {
    let host = firewall(backend);
    let before = typed(&host, STRAIGHT_TO_A_POD);
    let file = host.run("iptables-save");
    assert_eq!(adopt(&host, POD).code, 0);
    host.shell("iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X");
    let loaded = host.feed("iptables-restore", &[], &file);
    assert!(loaded.status.success());
    let said = rollback(&host);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(
        said.stderr.matches("is loaded already").count(),
        4,
        "{said:?}"
    );
    assert_eq!(save(&host), before);
}
