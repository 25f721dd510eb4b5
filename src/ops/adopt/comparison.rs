//! Connections that end differently once rules are taken out, as the kernel says in copies of the machine.

use std::collections::BTreeMap;

use super::ReadRules;
use super::adoption::Adoption;
use crate::host::iptables::Iptables;
use crate::net::per_family::PerFamily;
use crate::net::printable;
use crate::net::words::{counted, with_causes};
use crate::netfilter::ruleset::Ruleset;
use crate::ops::refusal::Refusal;
use crate::ops::remark::Remarks;
use crate::proof::{CopyRules, Proof, ProofDifference, ProofError, ProofPlan, connections, prove};
use crate::twin::TwinError;
use crate::twin::machine::Machine;
use crate::twin::rule_change::RuleChange;
use crate::twin::rules::PacketFilter;

/// The most connections that are shown for one reason.
const MOST_SHOWN: usize = 3;

/// Opens the connections that the loaded rules name, with nvactl's rules beside them and with those gone that are taken
/// out. Warns of differences that a remark of the import explains.
///
/// # Errors
/// When connections end differently and no remark explains it.
pub fn compare(
    adoption: &Adoption,
    live: &PerFamily<&Ruleset>,
    want: &PerFamily<Ruleset>,
    iptables: Iptables,
    remarks: &mut Remarks,
) -> Result<(), Refusal> {
    let Some(loaded) = &adoption.loaded else {
        return Ok(());
    };
    if adoption.rules.is_empty() {
        return Ok(());
    }
    let to = |foreign| RuleChange::from_live(iptables, live, want.clone(), foreign);
    let gone = adoption.goal().map(|_, goal| (*goal).clone());
    match proof(loaded, to(PerFamily::default()), to(gone)) {
        Ok(proof) => told(&proof, remarks),
        Err(error) => {
            remarks.warn(format_args!(
                "whether connections change when the rules go was not tried: {}",
                with_causes(&error)
            ));
            Ok(())
        }
    }
}

/// Warns of the differences that a remark explains.
fn told(proof: &Proof, remarks: &mut Remarks) -> Result<(), Refusal> {
    let mut by_reason: BTreeMap<Vec<&str>, Vec<&ProofDifference>> = BTreeMap::new();
    for one in &proof.differences {
        by_reason.entry(one.codes()).or_default().push(one);
    }
    if let Some(unexplained) = by_reason.remove(&Vec::new()) {
        return Err(Refusal::GoingChanges {
            lines: lines(&unexplained),
        });
    }
    for (reason, some) in by_reason {
        remarks.warn(format_args!(
            "{} will end differently once the rules are gone ({}):{}",
            counted(some.len(), "tried connection"),
            reason.join(", "),
            lines(&some)
                .iter()
                .map(|line| format!("\n  {line}"))
                .collect::<String>()
        ));
    }
    if let Some(one) = proof.not_opened.first() {
        remarks.warn(format_args!(
            "{} could not be tried without the rules that go: {}",
            counted(proof.not_opened.len(), "connection"),
            one.why
        ));
    }
    Ok(())
}

/// `beside` leaves all foreign rules where they are, and `gone` does not.
fn proof(loaded: &ReadRules, beside: RuleChange, gone: RuleChange) -> Result<Proof, ProofError> {
    let tests = connections(&loaded.draft, &loaded.rules);
    let machine = Machine::read().map_err(TwinError::from)?;
    let copy = |change: RuleChange| -> Result<CopyRules, ProofError> {
        Ok(CopyRules {
            filter: PacketFilter::read().map_err(TwinError::from)?,
            change: (!change.is_empty()).then_some(change),
        })
    };
    prove(ProofPlan {
        draft: &loaded.draft,
        rules: &loaded.rules,
        machines: vec![(machine, (0..tests.len()).collect())],
        tests: &tests,
        before: copy(beside)?,
        after: copy(gone)?,
    })
}

/// Describes connections, the first ones only.
fn lines(differences: &[&ProofDifference]) -> Vec<String> {
    let shown = differences.iter().take(MOST_SHOWN).map(|one| {
        let ProofDifference { before, after, .. } = one;
        printable::line(format!("{}: {before}; then {after}", one.connection())).to_string()
    });
    let mut lines: Vec<String> = shown.collect();
    if differences.len() > MOST_SHOWN {
        lines.push(format!("and {} more", differences.len() - MOST_SHOWN));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::{OutboundProtocol, PacketTest, Reaches, TestDestination, TestHost};
    use crate::import::{Beyond, ImportRemark, ImportedPlace, Remarked};
    use crate::net::Family;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::twin::packet_tests::FoundEnd;

    fn difference(last: u8, remark: Option<ImportRemark>) -> ProofDifference {
        let to = TestHost {
            address: [10, 224, 0, last].into(),
            port: None,
        };
        let remarked = remark.map(|remark| Remarked {
            entry: "web".parse().expect("it is a name"),
            place: ImportedPlace {
                family: Family::V4,
                table: TableName::Filter,
                chain: ChainName::Forward,
                at: 0,
            },
            remark,
        });
        ProofDifference {
            test: PacketTest {
                name: None,
                from: [10, 3, 0, 7].into(),
                to: TestDestination::Host(to),
                protocol: OutboundProtocol::Ping,
                ingress: None,
                reaches: Reaches::Nothing,
                snat: None,
                place: None,
            },
            before: FoundEnd::NotOpened("it was A".to_owned()),
            after: FoundEnd::Nothing,
            remarks: remarked.into_iter().collect(),
        }
    }

    #[test]
    fn an_unexplained_difference_is_refused_and_others_are_warned_of() {
        let more = ImportRemark::AcceptsMore(Beyond {
            hosts: true,
            pings: true,
        });
        let explained = [1, 2, 3, 4].map(|last| difference(last, Some(more.clone())));
        let mut proof = Proof {
            connections: 9,
            differences: explained.into(),
            not_opened: Vec::new(),
            doubts: Vec::new(),
        };
        let mut remarks = Remarks::default();
        told(&proof, &mut remarks).expect("all are explained");
        let warnings: Vec<&str> = remarks.warnings().collect();
        assert_eq!(
            warnings,
            [
                "4 tried connections will end differently once the rules are gone (accepts-more):\n  \
                 ping from 10.3.0.7 to 10.224.0.1: was not opened: it was A; then reaches nothing\n  \
                 ping from 10.3.0.7 to 10.224.0.2: was not opened: it was A; then reaches nothing\n  \
                 ping from 10.3.0.7 to 10.224.0.3: was not opened: it was A; then reaches nothing\n  and 1 more"
            ]
        );
        proof.differences.push(difference(5, None));
        let refused = told(&proof, &mut Remarks::default()).expect_err("one is not");
        let words = refused.to_string();
        assert!(words.ends_with(
            "once the adopted rules are gone:\n  ping from 10.3.0.7 to 10.224.0.5: was not opened: it was A; then reaches nothing"
        ), "{words}");
    }
}
