//! Prints a whole ruleset.

use std::fmt;

use super::line::Line;
use crate::netfilter::ruleset::Ruleset;

impl fmt::Display for Ruleset {
    /// Prints the ruleset like iptables-save, without the comments that carry a time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, chains) in &self.tables {
            writeln!(f, "{}", Line::Table(*table))?;
            for (name, chain) in chains {
                // A built-in chain without a policy needs no declaration.
                if chain.policy.is_some() || !name.is_builtin() {
                    writeln!(f, "{}", Line::Chain(name, chain.policy))?;
                }
            }
            for (name, chain) in chains {
                for rule in &chain.rules {
                    Line::Append(name, rule).fmt(f)?;
                    f.write_str("\n")?;
                }
            }
            writeln!(f, "{}", Line::Commit)?;
        }
        Ok(())
    }
}
