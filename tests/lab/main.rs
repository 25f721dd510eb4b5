//! Real packets through real iptables, on both backends, in namespaces that the test makes.

/// Makes the tests `NAME::nft` and `NAME::legacy` of a function that takes a backend. With `sampled` they
/// are `NAME::sampled::nft` and `NAME::sampled::legacy`, and `tests/long` runs them at full length. With `either`,
/// for what has little to do with the backend, they are `NAME::nft` and `NAME::long::legacy`: `tests/run` leaves the
/// second one to `tests/long`. `sampled either` is both: a sample with nft in `tests/run`.
macro_rules! lab_test {
    ($name:ident) => {
        mod $name {
            lab_test!(both super::$name);
        }
    };
    (sampled $name:ident) => {
        mod $name {
            mod sampled {
                lab_test!(both super::super::$name);
            }
        }
    };
    (sampled either $name:ident) => {
        mod $name {
            mod sampled {
                lab_test!(nft super::super::$name);
                mod long {
                    lab_test!(legacy super::super::super::$name);
                }
            }
        }
    };
    (either $name:ident) => {
        mod $name {
            lab_test!(nft super::$name);
            mod long {
                lab_test!(legacy super::super::$name);
            }
        }
    };
    (both $function:path) => {
        lab_test!(nft $function);
        lab_test!(legacy $function);
    };
    (nft $function:path) => {
        #[test]
        fn nft() {
            if $crate::namespace::possible() {
                $function($crate::lab::Backend::Nft);
            }
        }
    };
    (legacy $function:path) => {
        #[test]
        fn legacy() {
            if $crate::namespace::possible() {
                $function($crate::lab::Backend::Legacy);
            }
        }
    };
}

mod adopt;
mod adopt_shared;
mod adopt_story;
mod ahead;
#[path = "../asked/mod.rs"]
mod asked;
mod blackhole;
mod blocks;
mod boot;
mod capacity;
mod chance;
mod churn;
mod confirm;
mod counters;
mod damage;
mod desk;
mod diff;
mod doctor;
mod entrances;
mod entry_faults;
mod fake;
mod faults;
mod files;
mod firewall;
mod fleet;
mod fleet_cloud_init;
mod flows;
mod foreign;
#[path = "../generate/mod.rs"]
#[expect(dead_code, reason = "of its strategies the lab takes one")]
mod generate;
mod guards;
mod history;
mod import;
mod incomplete;
mod init;
mod invalid;
mod ipv6;
mod ipv6_health;
mod kills;
mod lab;
mod layouts;
mod lifecycle;
mod links;
mod listen_lists;
mod log;
mod long;
mod made_up;
mod managers;
mod marks;
mod matrix;
mod measure;
mod mss;
mod mutate;
mod namespace;
mod networks;
mod no_ipv6;
#[path = "../oracle/mod.rs"]
#[expect(dead_code, reason = "the lab has no use for a second reader")]
mod oracle;
mod outbound;
mod outbound_matrix;
mod outbound_twin;
mod overtaken;
mod package;
mod packet_tests;
#[path = "../pages/mod.rs"]
#[expect(dead_code, reason = "the lab asks for blocks by their markers")]
mod pages;
mod persistence;
mod probe;
mod programs;
mod random_machine;
mod random_specs;
mod reach;
mod rehearsal;
mod report;
#[path = "../required/mod.rs"]
mod required;
mod round_trip;
#[path = "../rules/mod.rs"]
#[expect(dead_code, reason = "the lab negates no rule")]
mod rules;
mod scenarios;
mod senders;
mod sharing;
mod shortage;
mod sides;
mod ssh;
mod state;
mod status;
mod suggested;
mod survey;
mod sysctl;
mod takeover;
mod trace;
mod traffic;
mod transaction;
mod trial;
mod twin;
mod twin_cause;
mod twin_connection;
mod twin_connections;
mod twin_differential;
mod twin_faults;
mod twin_rules;
mod twin_shortage;
mod typed;
mod unread;
mod upgrade;
mod walk;
mod watch;
mod wire;

use lab::Said;
use namespace::Host;

/// Runs nvactl on a host.
fn nvactl(host: &Host, args: &[&str], stdin: &str) -> Said {
    Said::from(host.feed(env!("CARGO_BIN_EXE_nvactl"), args, stdin))
}
