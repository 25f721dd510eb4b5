//! Chooses the foreign rules that a change takes out: those that a spec says as well.

use std::collections::{BTreeMap, BTreeSet};

use super::at_boot::BootRules;
use super::candidate::Candidate;
use super::meaning::{Meaning, meaning};
use crate::diff::drift::FieldChange;
use crate::forwards::{ForwardSet, Name};
use crate::host::boot_text::BootText;
use crate::import::{Draft, ImportRemark, ImportedPlace, Part, RuleFate};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::is_of_shorewall;
use crate::netfilter::ruleset::Ruleset;
use crate::ops::records::KeptRule;

/// A foreign rule that a change takes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedRule {
    pub kept: KeptRule,
    /// The forwards and outbound entries of the spec that say the same. None for a rule that accepts replies.
    pub entries: Vec<Name>,
}

/// The choice.
#[derive(Debug, Default)]
pub struct Chosen {
    /// In the order of the families, tables and chains.
    pub adopted: Vec<AdoptedRule>,
    /// The effects of the adopted rules beyond the entries of the spec.
    pub beyond: Vec<(Vec<Name>, ImportRemark)>,
    pub mismatches: Vec<OtherMeaning>,
    /// Rules that a file adds at boot, each with the file.
    pub at_boot: Vec<(String, String)>,
    /// Files with a command that cannot be read, each with the command. It may add an adopted rule at boot.
    pub unread_files: Vec<(String, String)>,
    /// Rules that the spec says as well, and that Shorewall loads again whenever it starts.
    pub of_shorewall: Vec<(Family, String)>,
    /// Rules that nvactl could say, of connections that the spec does not name.
    pub unsaid: Vec<String>,
}

/// Foreign rules and an entry of the spec that differ in meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherMeaning {
    pub entry: Name,
    /// From the rules to the spec.
    pub fields: Vec<FieldChange>,
    /// The rules, as text.
    pub rules: Vec<String>,
}

/// Chooses the rules. `draft` is the import of `rules`; `texts` are the files that add rules at boot.
#[must_use]
pub fn choose(
    draft: &Draft,
    rules: &PerFamily<&Ruleset>,
    set: &ForwardSet,
    texts: &[BootText],
) -> Chosen {
    let candidates: Vec<Candidate<'_>> = draft
        .accounts
        .iter()
        .filter_map(|account| {
            let place = &account.place;
            let rule = place.rule_in(rules.get(place.family)?)?;
            Some(Candidate { account, rule })
        })
        .collect();
    let mut choice = Choosing {
        candidates: &candidates,
        of_shorewall: of_shorewall(rules),
        taken: BTreeMap::new(),
        said: BTreeMap::new(),
        in_files: BTreeSet::new(),
        found: Chosen::default(),
    };
    choice.take_entries(draft, set);
    choice.keep_those_of_files(texts);
    choice.take_duplicates();
    choice.take_jumps();
    choice.take_replies();
    choice.found.beyond = choice.beyond(draft);
    choice.found.adopted = choice.adopted();
    choice.found
}

struct Choosing<'c> {
    candidates: &'c [Candidate<'c>],
    /// The families whose rules Shorewall has loaded.
    of_shorewall: BTreeSet<Family>,
    /// The rules that go, each with the entries of the spec.
    taken: BTreeMap<&'c ImportedPlace, Vec<Name>>,
    /// The entries of the draft that are in the spec, each with its names there.
    said: BTreeMap<&'c Name, Vec<Name>>,
    /// The rules that a file adds at boot.
    in_files: BTreeSet<&'c ImportedPlace>,
    found: Chosen,
}

/// Returns the families whose rules Shorewall has loaded. It loads whole tables, so they are all its own.
fn of_shorewall(rules: &PerFamily<&Ruleset>) -> BTreeSet<Family> {
    let families = rules.iter().filter(|(_, rules)| is_of_shorewall(rules));
    families.map(|(family, _)| family).collect()
}

impl<'c> Choosing<'c> {
    /// Takes the rules of which all entries are in the spec, with equal meaning.
    fn take_entries(&mut self, draft: &Draft, set: &ForwardSet) {
        let mut known: BTreeMap<&'c Name, Meaning> = BTreeMap::new();
        for one in self.candidates {
            let RuleFate::Taken { part, entries } = &one.account.fate else {
                continue;
            };
            if matches!(part, Part::Own | Part::Jump) || entries.is_empty() {
                continue;
            }
            let family = one.account.place.family;
            let is_of_shorewall = self.of_shorewall.contains(&family);
            let mut names: Vec<Name> = Vec::new();
            let (mut is_said, mut differs) = (true, false);
            for entry in entries {
                let meaning = known
                    .entry(entry)
                    .or_insert_with(|| meaning(entry, &draft.set, set));
                match meaning {
                    Meaning::Same(same) => {
                        let new = same.iter().filter(|name| !names.contains(name));
                        let new: Vec<Name> = new.cloned().collect();
                        names.extend(new);
                    }
                    Meaning::NotSaid => is_said = false,
                    Meaning::Differs { entry, fields } => {
                        differs = true;
                        if !is_of_shorewall {
                            self.found.differs(entry, fields, one);
                        }
                    }
                }
            }
            if differs {
                continue;
            }
            if !is_said {
                self.found.unsaid.push(one.text());
            } else if is_of_shorewall {
                self.found.of_shorewall.push((family, one.text()));
            } else if one.can_go() {
                self.taken.insert(&one.account.place, names);
            }
        }
        self.said = known
            .into_iter()
            .filter_map(|(entry, meaning)| match meaning {
                Meaning::Same(names) => Some((entry, names)),
                Meaning::NotSaid | Meaning::Differs { .. } => None,
            })
            .collect();
    }

    /// Leaves the rules that a file would add again at boot, and every other copy of them.
    fn keep_those_of_files(&mut self, texts: &[BootText]) {
        let files = BootRules::of(texts);
        let unread = files.unread.iter();
        let unread = unread.map(|(path, command)| ((*path).to_owned(), command.clone()));
        self.found.unread_files = unread.collect();
        for one in self.candidates {
            let place = &one.account.place;
            let may_go = self.taken.contains_key(place) || one.is_for_replies() || one.is_jump();
            if !may_go {
                continue;
            }
            if let Some(path) = files.adding(place, one.rule) {
                self.in_files.insert(place);
                if self.taken.remove(place).is_some() {
                    let found = (one.text(), path.to_owned());
                    if !self.found.at_boot.contains(&found) {
                        self.found.at_boot.push(found);
                    }
                }
            }
        }
    }

    /// Takes all copies of a rule or none: a number could mean any of them once others change the chain.
    fn take_duplicates(&mut self) {
        let mut copies: BTreeMap<_, Vec<&'c Candidate<'c>>> = BTreeMap::new();
        for one in self.candidates {
            let ImportedPlace {
                family,
                table,
                chain,
                ..
            } = &one.account.place;
            let key = (*family, *table, chain, one.rule);
            copies.entry(key).or_default().push(one);
        }
        for copies in copies.values().filter(|copies| copies.len() > 1) {
            let names = copies
                .iter()
                .find_map(|one| self.taken.get(&one.account.place).cloned());
            let Some(names) = names else { continue };
            // Another copy has no effect behind the first, unless it is of an entry that stays.
            let is_of_others = |one: &&Candidate<'_>| {
                let place = &one.account.place;
                matches!(&one.account.fate, RuleFate::Taken { .. })
                    && !self.taken.contains_key(place)
            };
            if copies.iter().any(is_of_others) {
                for one in copies {
                    self.taken.remove(&one.account.place);
                }
            } else {
                for one in copies {
                    self.taken
                        .entry(&one.account.place)
                        .or_insert(names.clone());
                }
            }
        }
    }

    /// Takes the jumps to chains of which all rules go, if all jumps to such a chain can go.
    fn take_jumps(&mut self) {
        loop {
            let mut new: BTreeMap<&'c ImportedPlace, Vec<Name>> = BTreeMap::new();
            for one in self.candidates {
                let place = &one.account.place;
                let Some(to) = one.rule.leads_to() else {
                    continue;
                };
                if self.taken.contains_key(place) {
                    continue;
                }
                let (family, table) = (place.family, place.table);
                let leads_there = |other: &&Candidate<'_>| {
                    other.is_in(family, table) && other.rule.leads_to() == Some(to)
                };
                let mut jumps = self.candidates.iter().filter(leads_there);
                let can_all_go = jumps.all(|jump| {
                    jump.is_jump() && jump.can_go() && !self.in_files.contains(&jump.account.place)
                });
                let rules = self
                    .candidates
                    .iter()
                    .filter(|other| other.is_in(family, table) && other.account.place.chain == *to);
                let names: Option<Vec<&Vec<Name>>> = rules
                    .map(|rule| self.taken.get(&rule.account.place))
                    .collect();
                if let Some(names) = names.filter(|names| !names.is_empty() && can_all_go) {
                    let mut all: Vec<Name> = Vec::new();
                    for name in names.into_iter().flatten() {
                        if !all.contains(name) {
                            all.push(name.clone());
                        }
                    }
                    new.insert(place, all);
                }
            }
            if new.is_empty() {
                return;
            }
            self.taken.extend(new);
        }
    }

    /// Takes the rules that accept replies from FORWARD if no other foreign rule stays there: without nvactl's rules,
    /// the replies of foreign accepts would die.
    fn take_replies(&mut self) {
        for family in Family::ALL {
            let in_forward: Vec<&Candidate<'_>> = self
                .candidates
                .iter()
                .filter(|one| {
                    one.is_in(family, TableName::Filter)
                        && one.account.place.chain == ChainName::Forward
                        && !one.is_own_jump()
                })
                .collect();
            let goes = |one: &&&Candidate<'c>| self.taken.contains_key(&one.account.place);
            let replies: Vec<&ImportedPlace> = in_forward
                .iter()
                .filter(|one| one.is_for_replies())
                .map(|one| &one.account.place)
                .collect();
            let others_go = in_forward
                .iter()
                .all(|one| goes(&one) || one.is_for_replies());
            let is_in_file = replies.iter().any(|place| self.in_files.contains(place));
            if others_go && in_forward.iter().any(|one| goes(&one)) && !is_in_file {
                for place in replies {
                    self.taken.insert(place, Vec::new());
                }
            }
        }
    }

    /// Returns what the loaded rules do beyond the entries of the spec, each once: those that go, and those that stay and
    /// that nvactl's rules precede.
    fn beyond(&self, draft: &Draft) -> Vec<(Vec<Name>, ImportRemark)> {
        let mut beyond: Vec<(Vec<Name>, ImportRemark)> = Vec::new();
        for one in &draft.remarks {
            let said = || self.said.get(&one.entry);
            if let Some(names) = self.taken.get(&one.place).or_else(said) {
                let found = (names.clone(), one.remark.clone());
                if !beyond.contains(&found) {
                    beyond.push(found);
                }
            }
        }
        beyond
    }

    fn adopted(&self) -> Vec<AdoptedRule> {
        let goes = |one: &Candidate<'_>| self.taken.contains_key(&one.account.place);
        let with_chain = self.chains_that_go();
        let mut adopted = Vec::new();
        // Each chain is one run of candidates, in its order.
        for chain in self.candidates.chunk_by(Candidate::is_beside) {
            let foreign: Vec<&Candidate<'_>> =
                chain.iter().filter(|one| !one.is_own_jump()).collect();
            let mut behind = vec![None; foreign.len()];
            for (at, one) in foreign.iter().enumerate().skip(1).rev() {
                behind[at - 1] = if goes(one) {
                    behind[at]
                } else {
                    Some(one.rule)
                };
            }
            for (at, one) in foreign.iter().enumerate() {
                let place = &one.account.place;
                let Some(entries) = self.taken.get(place) else {
                    continue;
                };
                let before = at.checked_sub(1).map(|at| foreign[at].rule);
                adopted.push(AdoptedRule {
                    kept: KeptRule {
                        family: place.family,
                        table: place.table,
                        chain: place.chain.clone(),
                        number: place.number(),
                        rule: one.rule.to_string(),
                        before: before.map(ToString::to_string),
                        behind: behind[at].map(ToString::to_string),
                        with_chain: with_chain.contains(&(place.family, place.table, &place.chain)),
                    },
                    entries: entries.clone(),
                });
            }
        }
        adopted
    }

    /// Returns the chains to which jumps go that are taken out.
    fn chains_that_go(&self) -> BTreeSet<(Family, TableName, &'c ChainName)> {
        let jumps = self.candidates.iter().filter_map(|one| {
            let place = &one.account.place;
            let to = one.rule.leads_to()?;
            let goes = self.taken.contains_key(place);
            goes.then_some((place.family, place.table, to))
        });
        jumps.collect()
    }
}

impl Chosen {
    fn differs(&mut self, entry: &Name, fields: &[FieldChange], one: &Candidate<'_>) {
        let known = self
            .mismatches
            .iter_mut()
            .find(|known| known.entry == *entry && known.fields == fields);
        match known {
            Some(known) => known.rules.push(one.text()),
            None => self.mismatches.push(OtherMeaning {
                entry: entry.clone(),
                fields: fields.to_vec(),
                rules: vec![one.text()],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{KnownRoutes, import};
    use crate::netfilter::text::parse::parse;

    const REPLIES: &str = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    const ACCEPT: &str = "-A FORWARD -d 10.224.0.118/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT";
    const DNAT: &str = "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80";
    const SNAT: &str =
        "-A POSTROUTING -d 10.224.0.118/32 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.3.0.4";

    fn rules(filter: &[&str], nat: &[&str]) -> Ruleset {
        let lines = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        };
        let text = format!(
            "*filter\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n:DOCKER - [0:0]\n{}COMMIT\n*nat\n{}COMMIT\n",
            lines(filter),
            lines(nat)
        );
        parse(&text).expect("it is a ruleset")
    }

    /// Returns the choice for a spec that says what the first rules say.
    fn chosen(said: &Ruleset, live: &Ruleset, texts: &[BootText]) -> Chosen {
        let said = import(&[(Family::V4, said.clone())], &KnownRoutes::default());
        let draft = import(&[(Family::V4, live.clone())], &KnownRoutes::default());
        let live = PerFamily { v4: live, v6: None };
        choose(&draft, &live, &said.set, texts)
    }

    fn adopted(chosen: &Chosen) -> Vec<String> {
        let all = chosen.adopted.iter();
        all.map(|one| format!("{} {}", one.kept.chain, one.kept.number))
            .collect()
    }

    #[test]
    fn rules_go_that_the_spec_says() {
        let said = rules(&[ACCEPT], &[DNAT, SNAT]);
        let other = "-A FORWARD -i eth7 -o eth8 -j ACCEPT";
        let stays = "-A FORWARD -s 192.0.2.1/32 -p icmp -j DROP";
        let nat = &[DNAT, SNAT][..];
        for (filter, nat, gone) in [
            (
                &[ACCEPT, REPLIES][..],
                nat,
                &["FORWARD 1", "FORWARD 2", "PREROUTING 1", "POSTROUTING 1"][..],
            ),
            // While another foreign rule stays, that for replies does.
            (
                &[REPLIES, ACCEPT, other],
                nat,
                &["FORWARD 2", "PREROUTING 1", "POSTROUTING 1"],
            ),
            (
                &[stays, REPLIES, ACCEPT],
                nat,
                &["FORWARD 3", "PREROUTING 1", "POSTROUTING 1"],
            ),
            // All copies.
            (
                &[ACCEPT, stays, ACCEPT],
                &[DNAT, DNAT, SNAT],
                &[
                    "FORWARD 1",
                    "FORWARD 3",
                    "PREROUTING 1",
                    "PREROUTING 2",
                    "POSTROUTING 1",
                ],
            ),
            // nvactl's jump counts as iptables does.
            (
                &[
                    ":NVACTL-FORWARD - [0:0]",
                    "-A FORWARD -j NVACTL-FORWARD",
                    ACCEPT,
                    stays,
                ],
                nat,
                &["FORWARD 2", "PREROUTING 1", "POSTROUTING 1"],
            ),
            // A chain of one's own with all its rules, and one with another rule.
            (
                &["-A FORWARD -j MINE", &ACCEPT.replace("FORWARD", "MINE")],
                nat,
                &["FORWARD 1", "MINE 1", "PREROUTING 1", "POSTROUTING 1"],
            ),
            (
                &[
                    "-A FORWARD -j MINE",
                    &ACCEPT.replace("FORWARD", "MINE"),
                    "-A MINE -s 192.0.2.1/32 -p icmp -j ACCEPT",
                ],
                nat,
                &["MINE 1", "PREROUTING 1", "POSTROUTING 1"],
            ),
        ] {
            let found = chosen(&said, &rules(filter, nat), &[]);
            assert_eq!(adopted(&found), gone, "{filter:?}");
            assert_eq!(found.mismatches, []);
        }
    }

    #[test]
    fn places_are_kept_with_their_neighbours() {
        let said = rules(&[ACCEPT], &[DNAT, SNAT]);
        let [one, other] = [
            "-s 192.0.2.1/32 -p icmp -j DROP",
            "-s 192.0.2.2/32 -p icmp -j DROP",
        ];
        let lines = [format!("-A FORWARD {one}"), format!("-A FORWARD {other}")];
        let live = rules(&[&lines[0], ACCEPT, ACCEPT, &lines[1]], &[DNAT, SNAT]);
        let found = chosen(&said, &live, &[]);
        let accept = ACCEPT.strip_prefix("-A FORWARD ").map(str::to_owned);
        let kept: Vec<&KeptRule> = found.adopted.iter().map(|one| &one.kept).collect();
        assert_eq!(kept[0].before.as_deref(), Some(one));
        assert_eq!(kept[0].behind.as_deref(), Some(other));
        assert_eq!(kept[1].before, accept);
        assert_eq!(kept[1].behind.as_deref(), Some(other));
        assert_eq!(
            (kept[2].before.as_ref(), kept[2].behind.as_ref()),
            (None, None)
        );
    }

    #[test]
    fn another_meaning_is_a_mismatch_and_another_listener_is_none() {
        let live = rules(&[ACCEPT], &[DNAT, SNAT]);
        let moved = [ACCEPT, DNAT, SNAT].map(|line| line.replace("10.224.0.118", "10.224.0.119"));
        let said = rules(&[&moved[0]], &[&moved[1], &moved[2]]);
        let found = chosen(&said, &live, &[]);
        assert_eq!(adopted(&found), [""; 0]);
        let [mismatch] = found.mismatches.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(mismatch.rules.len(), 3);
        let fields: Vec<(&str, &str, &str)> = mismatch
            .fields
            .iter()
            .map(|one| (one.field, one.from.as_str(), one.to.as_str()))
            .collect();
        assert_eq!(fields, [("target", "10.224.0.118:80", "10.224.0.119:80")]);

        let dnat = DNAT.replace("49181", "49182");
        let found = chosen(&rules(&[ACCEPT], &[&dnat, SNAT]), &live, &[]);
        assert_eq!(adopted(&found), [""; 0]);
        assert_eq!(found.mismatches, []);
        assert_eq!(found.unsaid.len(), 3);
    }

    #[test]
    fn a_rule_stays_for_an_entry_that_the_spec_lacks() {
        // One accept for two forwards, of which the spec has one.
        let second = DNAT.replace("49181", "49182");
        let live = rules(&[ACCEPT], &[DNAT, &second, SNAT]);
        let found = chosen(&rules(&[ACCEPT], &[DNAT, SNAT]), &live, &[]);
        assert_eq!(adopted(&found), ["PREROUTING 1"]);
    }

    #[test]
    fn rules_of_shorewall_stay_whatever_they_mean() {
        let said = rules(&[ACCEPT], &[DNAT, SNAT]);
        let live = rules(&[":shorewall - [0:0]", ACCEPT, REPLIES], &[DNAT, SNAT]);
        let found = chosen(&said, &live, &[]);
        assert_eq!(adopted(&found), [""; 0]);
        let texts: Vec<&str> = found
            .of_shorewall
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        assert_eq!(
            texts,
            [
                format!("filter: {ACCEPT}"),
                format!("nat: {DNAT}"),
                format!("nat: {SNAT}")
            ]
        );
        let moved = [ACCEPT, DNAT, SNAT].map(|line| line.replace("10.224.0.118", "10.224.0.119"));
        let moved = rules(&[&moved[0]], &[&moved[1], &moved[2]]);
        let found = chosen(&moved, &live, &[]);
        assert_eq!((adopted(&found), found.mismatches), (vec![], vec![]));
        // Those of another family are no matter of its own.
        assert_eq!(
            of_shorewall(&PerFamily {
                v4: &said,
                v6: Some(&live)
            }),
            [Family::V6].into()
        );
    }

    #[test]
    fn a_rule_that_a_file_adds_stays_with_its_jump() {
        let said = rules(&[ACCEPT], &[DNAT, SNAT]);
        let text = |text: &str| BootText {
            path: "/a/file".to_owned(),
            text: text.to_owned(),
            interface: None,
        };
        let texts = [text(&format!(
            "iptables -t nat {SNAT}\niptables {REPLIES}\n"
        ))];
        let found = chosen(&said, &rules(&[ACCEPT, REPLIES], &[DNAT, SNAT]), &texts);
        assert_eq!(adopted(&found), ["FORWARD 1", "PREROUTING 1"]);
        assert_eq!(found.at_boot.len(), 1, "{found:?}");
        let mine = ACCEPT.replace("FORWARD", "MINE");
        let texts = [text("iptables -A FORWARD -j MINE")];
        let found = chosen(
            &said,
            &rules(&["-A FORWARD -j MINE", &mine], &[DNAT, SNAT]),
            &texts,
        );
        assert_eq!(adopted(&found), ["MINE 1", "PREROUTING 1", "POSTROUTING 1"]);
        assert!(!found.adopted[0].kept.with_chain);
    }
}
