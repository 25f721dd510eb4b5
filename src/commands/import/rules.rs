//! The rules that are imported, and what is known of their machine.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;

use super::change::change;
use crate::commands::console::Console;
use crate::commands::error::{Error, Result};
use crate::commands::failure::CommandRefusal;
use crate::commands::host::{HostAccess, READ_WAIT};
use crate::forwards::{ForwardSet, PacketTest};
use crate::host;
use crate::host::iptables::Iptables;
use crate::host::rules_text::{self, RulesText};
use crate::import::{Account, Draft, ImportedPlace, KnownRoutes, after};
use crate::net::per_family::{Families, PerFamily};
use crate::net::{Family, Interface};
use crate::netfilter::backend::Backend;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::netfilter::text::parse;
use crate::netfilter::text::typed::{TypedRules, read_typed};
use crate::plan::plan;
use crate::proof::CopyRules;
use crate::twin::machine::Machine;
use crate::twin::made_up::MadeUp;
use crate::twin::packet_tests::copies;
use crate::twin::rules::PacketFilter;

/// The name of this machine.
const LIVE: &str = "live";

/// The rules that are imported.
pub(super) struct ImportedRules {
    /// The name of the file, or `live`.
    pub(super) name: String,
    pub(super) rules: Vec<(Family, Ruleset)>,
    /// The lines of a file.
    typed: Option<TypedRules>,
    pub(super) routes: KnownRoutes,
    /// The programs that read them, if they are this machine's.
    live: Option<Iptables>,
    /// The backend of the copies.
    backend: Backend,
}

impl ImportedRules {
    /// Returns whether they are this machine's.
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Reads the rules of this machine, a file, or standard input.
    pub(super) fn read(named: &Path, on: HostAccess<'_>, console: &mut Console) -> Result<Self> {
        if named == Path::new(LIVE) {
            return Self::live(on, console);
        }
        let RulesText { name, bytes } = rules_text::read(named)?;
        if is_json(&bytes) {
            return Err(CommandRefusal::JsonForRules {
                file: name,
                named: named.to_owned(),
            }
            .into());
        }
        let typed = read_typed(&parse::text_of(&bytes)).map_err(|error| Error::RulesFile {
            file: name.clone(),
            source: Box::new(error.into()),
        })?;
        Ok(Self {
            name,
            rules: typed.rules.clone(),
            typed: Some(typed),
            routes: KnownRoutes::default(),
            live: None,
            backend: on.backend,
        })
    }

    fn live(on: HostAccess<'_>, console: &mut Console) -> Result<Self> {
        host::require_root("import live")?;
        let iptables = on.iptables(READ_WAIT);
        let live = iptables.read_all(Families::Both)?;
        let mut rules = Vec::new();
        for family in Family::ALL {
            if let Some(live) = live.get(family) {
                console.warn_of_rules(&live.warnings(&iptables));
                rules.push((family, live.ruleset.clone()));
            }
        }
        let machine = Machine::read().map_err(|error| Error::Twin(error.into()))?;
        Ok(Self {
            name: LIVE.to_owned(),
            rules,
            typed: None,
            routes: KnownRoutes(machine.networks().collect()),
            backend: iptables.backend,
            live: Some(iptables),
        })
    }

    /// Returns the machines on which tests are asked, each with the places of its tests. Rules of a file have several if
    /// tests name different interfaces for one client. `set` names further networks and their interfaces.
    pub(super) fn machines(
        &self,
        tests: &[&PacketTest],
        set: &ForwardSet,
    ) -> Result<Vec<(Machine, Vec<usize>)>> {
        if self.is_live() {
            let machine = Machine::read().map_err(|error| Error::Twin(error.into()))?;
            return Ok(vec![(machine, (0..tests.len()).collect())]);
        }
        let known = sides(set);
        let machines = copies(tests).into_iter().map(|copy| {
            let sides = [copy.sides, known.clone()].concat();
            (MadeUp::of_rules(&self.rules, &sides).machine, copy.tests)
        });
        Ok(machines.collect())
    }

    /// Returns the state of a copy with the rules as they are.
    pub(super) fn unchanged(&self) -> Result<CopyRules> {
        Ok(CopyRules {
            filter: self.filter()?,
            change: None,
        })
    }

    fn filter(&self) -> Result<PacketFilter> {
        if self.is_live() {
            return PacketFilter::read().map_err(|error| Error::Twin(error.into()));
        }
        filter(&self.rules, self.backend)
    }

    /// Returns the state of a copy once a draft is there in place of the rules that were taken over.
    pub(super) fn changed(&self, draft: &Draft) -> Result<CopyRules> {
        if let Some(iptables) = self.live {
            // A copy is compared with the machine, so it begins with the machine's rules.
            let live = per_family(&self.rules);
            return Ok(CopyRules {
                filter: self.filter()?,
                change: Some(change(&live, draft, iptables)),
            });
        }
        let after = self.rules.iter().map(|(family, rules)| {
            let rules = after(*family, rules, &draft.accounts, &plan(&draft.set, *family));
            (*family, rules)
        });
        let after: Vec<(Family, Ruleset)> = after.collect();
        Ok(CopyRules {
            filter: filter(&after, self.backend)?,
            change: None,
        })
    }

    /// Returns the place of the rule that an account is about: its line, if the rules are those of a file.
    pub(super) fn place(&self, account: &Account) -> String {
        match self.line(account) {
            Some(line) => format!("line {line}, {}", account.place),
            None => account.place.to_string(),
        }
    }

    /// Returns the line of the rule that an account is about; `None` for live rules.
    pub(super) fn line(&self, account: &Account) -> Option<usize> {
        let ImportedPlace {
            family,
            table,
            chain,
            at,
        } = &account.place;
        self.typed.as_ref()?.line(*family, *table, chain, *at)
    }

    /// Returns the text of the rule that an account is about.
    pub(super) fn text(&self, account: &Account) -> String {
        let place = &account.place;
        let rules = self.rules.iter().find(|(one, _)| *one == place.family);
        let rule = rules.and_then(|(_, rules)| place.rule_in(rules));
        rule.map_or(String::new(), |rule| {
            Line::Append(&place.chain, rule).to_string()
        })
    }
}

/// Returns whether a text is an object of JSON, such as kubectl prints. `{` alone begins a block of the shell too.
fn is_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let inner = text.trim_ascii_start().strip_prefix(b"{");
    inner.is_some_and(|inner| inner.trim_ascii_start().starts_with(b"\""))
}

fn filter(rules: &[(Family, Ruleset)], backend: Backend) -> Result<PacketFilter> {
    let texts = rules
        .iter()
        .map(|(family, rules)| (*family, rules.to_string()));
    let texts: Vec<(Family, String)> = texts.collect();
    let texts = texts
        .iter()
        .map(|(family, text)| (*family, text.as_bytes()));
    Ok(PacketFilter::of_texts(backend, texts)?)
}

/// Returns the networks whose interfaces a spec names: its targets, then the sources of its outbound entries.
fn sides(set: &ForwardSet) -> Vec<(IpNet, Interface)> {
    let targets = set.forwards.iter().flat_map(|forward| {
        let each = forward.target.destinations.iter();
        each.map(|to| (IpNet::from(to.address), forward.egress.clone()))
    });
    let sources = set.outbound.iter().flat_map(|entry| {
        let each = entry.allow_from.as_slice().iter();
        each.map(|net| (*net, entry.ingress[0].clone()))
    });
    targets.chain(sources).collect()
}

/// Returns the rules of a machine, which always has those of IPv4.
fn per_family(rules: &[(Family, Ruleset)]) -> PerFamily<&Ruleset> {
    static NONE: Ruleset = Ruleset {
        tables: BTreeMap::new(),
    };
    let of = |family| rules.iter().find(|(one, _)| *one == family);
    PerFamily {
        v4: of(Family::V4).map_or(&NONE, |(_, rules)| rules),
        v6: of(Family::V6).map(|(_, rules)| rules),
    }
}
