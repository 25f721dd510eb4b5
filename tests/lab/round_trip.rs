//! What nvactl plans is what the kernel gives back, for every form that a spec can have.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use nvactl::net::Family;
use nvactl::plan::{asks_entrance, plan};
use nvactl::yaml;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::generate::any_spec;
use crate::lab::{Backend, host_with, save, save_v6};
use crate::long;
use crate::namespace::Host;
use crate::rules;

/// Each stands in some rule of the specs that are tried, or the test has shown nothing of it.
const FORMS: [&str; 40] = [
    " ! -d ",
    " ! --tcp-flags SYN,RST SYN ",
    " --ctdir ORIGINAL ",
    " --ctdir REPLY ",
    " --ctorigdst ",
    " --ctorigdstport ",
    " --ctstatus CONFIRMED ",
    " --hashlimit-htable-expire ",
    " --hashlimit-mode srcip ",
    " --log-level ",
    " --persistent",
    " --to-source ",
    " -g NVACTL-ADMIT-",
    " -g NVACTL-ALLOW-",
    " -g NVACTL-DENY-",
    " -g NVACTL-LOG-",
    " -j ACCEPT",
    " -j CONNMARK --set-xmark ",
    " -j DROP",
    " -j LOG ",
    " -j MASQUERADE",
    " -j NVACTL-ALLOW-",
    " -j NVACTL-DENY-",
    " -j NVACTL-DNAT-",
    " -j NVACTL-MARKED",
    " -j NVACTL-OUTPUT",
    " -j REJECT --reject-with icmp",
    " -j REJECT --reject-with tcp-reset",
    " -j RETURN",
    " -j TCPMSS --clamp-mss-to-pmtu",
    " -j TCPMSS --set-mss ",
    " -m addrtype ",
    " -m cluster ",
    " -m connlimit ",
    " -m connmark --mark ",
    " -m hashlimit ",
    " -m limit ",
    " -m statistic ",
    " -p udp ",
    " -s ",
];

/// How many rules of other hands are made at random.
const RULES: usize = 400;

lab_test!(the_kernel_gives_back_every_form_of_others);
/// The rules that people and other programs write, those that negate included.
fn the_kernel_gives_back_every_form_of_others(backend: Backend) {
    let host = host_with(backend);
    host.run(&format!("ipset create {} hash:ip,port", rules::SET));
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for family in Family::ALL {
        let mut lines: Vec<String> = rules::lines(family)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let strategy = rules::any_rule(family);
        lines.extend((0..RULES).map(|_| {
            let tree = strategy.new_tree(&mut runner).expect("it makes one");
            tree.current().to_string()
        }));
        let lines: Vec<String> = lines
            .iter()
            .map(|line| format!("-A FORWARD {line}"))
            .collect();
        let text = format!("*mangle\n{}\nCOMMIT\n", lines.join("\n"));
        let (restore, save): (_, fn(&Host) -> String) = match family {
            Family::V4 => ("iptables-restore", save),
            Family::V6 => ("ip6tables-restore", save_v6),
        };
        let loaded = host.feed(restore, &[], &text);
        assert!(loaded.status.success(), "{loaded:?}");
        let saved = save(&host);
        let saved: Vec<&str> = saved
            .lines()
            .filter(|line| line.starts_with("-A "))
            .collect();
        assert_eq!(saved.len(), lines.len());
        for (saved, line) in saved.into_iter().zip(&lines) {
            assert_eq!(saved, line, "{family}");
        }
    }
}

lab_test!(sampled either the_kernel_returns_every_form_of_rule);
fn the_kernel_returns_every_form_of_rule(backend: Backend) {
    let host = host_with(backend);
    let config = Config {
        // The same specs at every run, so that a failure is met again.
        cases: long::count(190, 240),
        failure_persistence: None,
        // Each step loads two files.
        max_shrink_iters: 100,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let of_both = |form: &&'static str| Family::ALL.map(|family| (family, *form));
    let missing: RefCell<BTreeSet<_>> = RefCell::new(FORMS.iter().flat_map(of_both).collect());
    let asked = Cell::new(false);
    let outcome = TestRunner::new_with_rng(config, rng).run(&any_spec(), |spec| {
        let text = serde_yaml::to_string(&spec).expect("it can be written");
        let set = yaml::read(text.as_bytes()).expect("it is sound");
        for family in Family::ALL {
            let planned = plan(&set, family);
            asked.set(asked.get() || asks_entrance(&planned).is_some());
            let planned = planned.with_builtin_chains().to_string();
            let (restore, save): (_, fn(&Host) -> String) = match family {
                Family::V4 => ("iptables-restore", save),
                Family::V6 => ("ip6tables-restore", save_v6),
            };
            let loaded = host.feed(restore, &[], &planned);
            assert!(loaded.status.success(), "{loaded:?}");
            let saved = save(&host);
            // The table mangle of an earlier spec is still there.
            let is_planned = |table: &&str| {
                let name = table.lines().next().unwrap_or_default();
                planned.lines().any(|line| line == name)
            };
            let saved: String = saved
                .split_inclusive("COMMIT\n")
                .filter(is_planned)
                .collect();
            let differ = |one: &str, other: &str| {
                let has = |line: &&str| !other.lines().any(|same| same == *line);
                one.lines()
                    .filter(has)
                    .map(|line| format!("{line}\n"))
                    .collect::<String>()
            };
            let (gone, come) = (differ(&planned, &saved), differ(&saved, &planned));
            assert!(saved == planned, "{family}: planned\n{gone}\nsaved\n{come}");
            missing
                .borrow_mut()
                .retain(|(of, form)| *of != family || !planned.contains(form));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(missing.into_inner(), BTreeSet::new(), "no spec had these");
    assert!(asked.get(), "no rule asked where a packet came in");
}
