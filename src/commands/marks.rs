//! What is said, before rules come to stand in a tree, of others' rules that set its mark.

use super::Console;
use crate::host::iptables::Iptables;
use crate::host::survey::Surroundings;
use crate::marks::{Marking, marking, told_of_native, used, ways_out_of_native};
use crate::native::NativeChain;
use crate::per_family::PerFamily;
use crate::ruleset::Ruleset;

pub fn warn(
    live: &PerFamily<&Ruleset>,
    want: &PerFamily<Ruleset>,
    around: &Surroundings,
    iptables: &Iptables,
    console: &mut Console,
) {
    let mut native: Vec<&NativeChain> = Vec::new();
    for (family, (live, want)) in live.zip(want.as_ref()).iter() {
        let beside = around.beside.get(family).and_then(Option::as_ref);
        let beside = beside.map(|(backend, rules)| (*backend, rules));
        let mut found = Vec::new();
        for (backend, rules) in [(iptables.backend, *live)].into_iter().chain(beside) {
            let program = backend.program(family, "iptables");
            let told = |one: &Marking<'_>| format!("{}\n  {}", one.told(&program), one.ways_out());
            found.extend(marking(rules, want).iter().map(told));
        }
        if used(want) {
            let chains = around.native.get(family).into_iter().flatten();
            for chain in chains.filter(|chain| chain.marks()) {
                // One of `inet` sees both families.
                if !native.contains(&chain) {
                    native.push(chain);
                    let (told, ways_out) = (told_of_native(chain), ways_out_of_native(chain));
                    found.push(format!("{told}\n  {ways_out}"));
                }
            }
        }
        console.warn_of_rules(found.iter());
    }
}
