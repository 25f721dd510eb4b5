//! Reads one command that adds a rule, without those that made its chains.

use super::read_typed;
use crate::net::Family;
use crate::netfilter::names::ChainName;
use crate::netfilter::ruleset::Ruleset;

/// Reads the rule that a command adds, with each chain that has to be there for it. Returns nothing if it is no rule.
///
/// `program`: the words before `-A`, such as `iptables -t nat`. `rule`: the words behind the chain.
#[must_use]
pub fn read_added(program: &str, chain: &str, rule: &[String]) -> Vec<(Family, Ruleset)> {
    let mut options = rule.iter();
    let leads = |word: &&String| ["-j", "-g", "--jump", "--goto"].contains(&word.as_str());
    let target = options.find(leads).and_then(|_| options.next());
    let target = target.map_or("", String::as_str);
    let add = format!("{program} -A {chain} {}\n", rule.join(" "));
    let with_chain = format!("{program} -N {chain}\n{add}");
    let rest = if ChainName::from(chain).is_builtin() {
        &add
    } else {
        &with_chain
    };
    let with_both = format!("{program} -N {target}\n{rest}");
    let read = [&add, &with_chain, &with_both].map(|lines| read_typed(lines));
    let first = read.into_iter().find_map(Result::ok);
    first.map_or(Vec::new(), |read| read.rules)
}
