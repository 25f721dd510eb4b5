//! `nvactl doctor`: gathers facts about the machine, and names the first hop that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::console::Console;
use super::disabled::{disabled, disabled_words};
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::host::{HostAccess, READ_WAIT};
use super::spec::{find_forwards, load_applied_spec};
use crate::cli::{Doctor as Args, DoctorFormat};
use crate::diff;
use crate::diff::drift::rules_by_key;
use crate::forwards::Listeners;
use crate::forwards::{Forward, ForwardSet, Snat};
use crate::health::doctor::{
    self, Answers, BootFacts, Case, Check, Facts, Hop, Report, RoutedClient, Status, Untried,
    questions,
};
use crate::health::probe::{Endpoint, Probed, probe, targets};
use crate::health::sender;
use crate::host::iptables::Iptables;
use crate::host::network::{Answer, Links, somebody};
use crate::host::probe::{Expect, Outcome, Probing};
use crate::host::sysctl::settings::Switch;
use crate::host::{self, azure, conntrack, managers, network, survey, sysctl};
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::net::words::counted;
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;
use crate::ops::confirm::pending_of;
use crate::ops::flows::once_led;
use crate::ops::next_boot::{look, unit_fault};
use crate::ops::state::State;
use crate::plan::MARKED;
use crate::plan::unplan::{Key, plan_as};
use crate::twin::battery::battery;
use crate::twin::clients::{Clients, NamedInRules};
use crate::twin::explain::{explain, kept_in};
use crate::twin::judge::ask;
use crate::twin::machine::LiveMachine;
use crate::twin::rule_change::RuleChange;
use crate::twin::rules::Filter;
use crate::twin::search::CauseSearch;
use crate::twin::talk::{From, Question};
use crate::twin::{Twin, TwinError, netns};

/// The number of targets that are tried at once.
const JOBS: usize = 256;
/// The most checks of one kind that are shown one by one.
const MOST_SHOWN: usize = 10;

pub fn run(args: &Args, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_applied_spec(args.spec.spec.as_deref(), on, console)?;
    let disabled = disabled(&source);
    let only = match &args.forward {
        None => None,
        Some(name) if disabled.iter().any(|one| one.as_str() == name) => {
            return Err(CommandRefusal::Disabled { name: name.clone() }.into());
        }
        Some(name) => Some(find_forwards(&set, name, &source.name)?),
    };
    host::require_root("doctor")?;
    if let (None, Some(words)) = (&only, disabled_words(&disabled)) {
        console.note(words);
    }
    let deadline = Instant::now() + Duration::from_secs_f64(args.deadline);
    // The rest of the time is for the copy of the machine.
    let probes_until = Instant::now() + Duration::from_secs_f64(args.deadline / 2.0);
    let iptables = on.iptables(READ_WAIT);
    let state = on.known_state()?;
    // Each family with forwards is examined alone.
    let walked = Family::ALL.into_iter().filter(|family| match &only {
        Some(only) => only.iter().any(|forward| forward.family() == *family),
        None => set.has(*family) || *family == Family::V4 && set.forwards.is_empty(),
    });
    let invalid = conntrack::invalid();
    let sets: Vec<(Family, ForwardSet)> = walked.map(|family| (family, set.of(family))).collect();
    let mut examined = Vec::new();
    for (family, set) in &sets {
        let is_asked = |one: &&Forward| only.as_ref().is_none_or(|only| only.contains(one));
        let asked: Vec<&Forward> = set.forwards.iter().filter(is_asked).collect();
        examined.push(
            Examined {
                family: *family,
                set,
                asked,
                iptables: &iptables,
                state: state.as_ref(),
                apply: on.command("apply", &source),
                persist: on.command("persist", &source),
                doctor: on.command("doctor", &source),
                folder: on.folder(),
            }
            .gather(args.timeout, probes_until)?,
        );
    }
    let answers = if args.no_twin {
        Err("--no-twin".to_owned())
    } else {
        ask_twin(&examined, deadline)
    };
    let is_bare = !examined.iter().any(|one| one.live.holds_own());
    let (mut checks, mut works) = (Vec::new(), Works::new());
    let mut of_both: Vec<Check> = Vec::new();
    for gathered in examined {
        let (found, works_here) = gathered.examine(&answers, is_bare)?;
        works.extend(works_here);
        for check in found {
            // A fact of both families, such as an interface that is down, is printed once.
            if check.forward.is_none() {
                if of_both.contains(&check) {
                    continue;
                }
                of_both.push(check.clone());
            }
            checks.push(check);
        }
    }
    let liberal = sysctl::value(Switch::Liberal).is_ok_and(|on| on);
    checks.extend(doctor::invalid(
        invalid,
        conntrack::invalid(),
        liberal,
        &on.folder(),
    ));
    checks.sort_by_key(|check| (check.code, check.status != Status::Fail));
    let asked = only.map_or(set.names(), |_| 1);
    let report = Report { checks };
    match args.format {
        DoctorFormat::Text => {
            let untried = doctor::untried(&answers, asked);
            console.print(&text(&report.checks, asked, untried.as_ref()));
        }
        DoctorFormat::Json => console.say_json(&report)?,
        DoctorFormat::Prometheus => match &answers {
            Ok(_) => console.print(&metrics(&works)),
            Err(why) => console.warn(format_args!("no connection was tried in a copy: {why}")),
        },
    }
    let failed = report
        .checks
        .iter()
        .any(|check| check.status == Status::Fail);
    Ok(if failed { Exit::Differs } else { Exit::Done })
}

/// The examination of one family.
struct Examined<'e> {
    family: Family,
    /// The spec's forwards of this family; `asked` are of this family too.
    set: &'e ForwardSet,
    asked: Vec<&'e Forward>,
    iptables: &'e Iptables,
    state: Option<&'e State>,
    apply: String,
    persist: String,
    doctor: String,
    folder: String,
}

/// The live facts of one family, before connections are tried in the copy of the machine.
struct GatheredFacts<'e> {
    of: Examined<'e>,
    live: Ruleset,
    counters: Counters,
    backend: Backend,
    links: Links,
    flows: Option<Vec<Flow>>,
    answer_routes: BTreeMap<Answer, String>,
    probed: Vec<Probed<'e>>,
}

impl<'e> Examined<'e> {
    fn gather(self, timeout: f64, probes_until: Instant) -> Result<GatheredFacts<'e>> {
        let (family, iptables) = (self.family, self.iptables);
        let read = iptables.read_counted(family)?;
        let backend = survey::find(iptables, family)?;
        let links = network::links().of(family);
        let flows = conntrack::flows(family).ok();
        let endpoints = some_of_each(&targets(self.asked.iter().copied()));
        let answers = flows
            .as_deref()
            .map(|flows| sender::questions(flows, self.set, &links));
        let mut answers = answers.unwrap_or_default();
        if family == Family::V4 && azure::is_here() {
            answers.extend(doctor::probe_questions(&self.asked, &links));
        }
        let answer_routes = network::answer_routes(&answers);
        let from = |endpoint: &Endpoint<'_>| own_source(endpoint, &links);
        let how = Probing {
            jobs: JOBS,
            timeout: Duration::from_secs_f64(timeout),
            count: 1,
            expect: Expect::Kept,
            until: Some(probes_until),
        };
        let to = |endpoint: &Endpoint<'_>| {
            let to = endpoint.to.or(endpoint.forward.target.destinations.first());
            to.map_or(somebody(family), |to| to.address)
        };
        let probed = probe_once(&endpoints, to, from, how);
        Ok(GatheredFacts {
            of: self,
            live: read.ruleset,
            counters: read.counters,
            backend,
            links,
            flows,
            answer_routes,
            probed,
        })
    }
}

impl GatheredFacts<'_> {
    fn examine(
        self,
        answers: &Result<Answers<'_>, String>,
        is_bare: bool,
    ) -> Result<(Vec<Check>, Works)> {
        let Examined {
            family,
            set,
            asked,
            iptables,
            state,
            apply,
            persist,
            doctor,
            folder,
        } = self.of;
        // After the targets were tried, the kernel knows their neighbours.
        let client = client(family, self.flows.as_deref(), set, &self.links);
        let own = |ingress: &Interface| self.links.addresses(ingress).first().copied();
        let routes = network::routes(family, &questions(&asked, client, own));
        let sides = set.interfaces();
        // IPv6 has neither a forwarding switch nor rp_filter for each interface.
        let v4 = sides.iter().copied().filter(|_| family == Family::V4);
        let forwards_from = |side| Some((side, sysctl::forwards_from(side)?));
        let other = survey::beside(iptables, family, self.backend)
            .map(|(other, rules)| (other, rules.map_err(|error| error.to_string())));
        let facts = Facts {
            backend: self.backend,
            live: &self.live,
            is_bare,
            counters: &self.counters,
            other,
            mark_rules: survey::mark_rules(family, MARKED.mask),
            ip_forward: sysctl::forwards(family)?,
            forwards_from: v4.filter_map(forwards_from).collect(),
            client,
            tracked: network::tracked(),
            once: once_led(state, [&self.live])?,
            flows: self.flows,
            links: self.links,
            answer_routes: self.answer_routes,
            routes,
            probed: &self.probed,
            answers,
            is_azure: azure::is_here(),
            pending: pending_of(state)?,
            boot: BootFacts {
                next: look(state, iptables, family, &self.live, set),
                unit: unit_fault(state),
                managers: managers::at_boot(|| self.backend == Backend::Nft),
            },
        };
        let case = Case {
            facts: &facts,
            set,
            family,
            asked,
            apply,
            persist,
            doctor,
            folder,
            iptables: iptables.backend.program(family, "iptables"),
        };
        let checks = doctor::examine(&case);
        let works = doctor::works(&case, &checks);
        Ok((checks, works))
    }
}

/// Tries the forwards' connections in a copy of this machine.
///
/// # Errors
/// The reason why there is no copy.
fn ask_twin<'e>(gathered: &[GatheredFacts<'e>], deadline: Instant) -> Result<Answers<'e>, String> {
    let forwards: Vec<(&'e ForwardSet, &[&'e Forward], Family)> = gathered
        .iter()
        .map(|one| (one.of.set, one.of.asked.as_slice(), one.of.family))
        .collect();
    let flows: Vec<&[Flow]> = gathered
        .iter()
        .map(|one| one.flows.as_deref().unwrap_or_default())
        .collect();
    let families = Families::with_v6(gathered.iter().any(|one| one.of.family == Family::V6));
    let change = change(gathered);
    let in_doubt = change.as_ref().map(|change| not_loaded(gathered, change));
    let in_doubt = in_doubt.unwrap_or_default();
    let own: Vec<(&Forward, Question)> = gathered.iter().flat_map(own_questions).collect();
    let work = || -> Result<Answers<'e>, TwinError> {
        let mut machine = LiveMachine::read()?;
        machine.ask_routers_again()?;
        let filter = Filter::read_of(families)?;
        let named = NamedInRules::by(&filter, &machine);
        let mut clients = Vec::new();
        for ((set, _, family), flows) in forwards.iter().zip(&flows) {
            clients.push(Clients::of(
                set,
                *family,
                &machine,
                flows,
                &named,
                network::interfaces,
            ));
        }
        let mut twin = Twin::make(machine, &filter, Some(deadline))?;
        let mut asks = Vec::new();
        for ((_, asked, _), clients) in forwards.iter().zip(&clients) {
            let (machine, worlds) = (twin.machine(), twin.worlds());
            asks.extend(battery(asked, clients, machine, worlds, &in_doubt));
        }
        // The first connections of every forward come before all of one forward's.
        asks.sort_by_key(|ask| !ask.is_brief);
        let addresses = asks.iter().flat_map(|ask| {
            let targets = ask.question.listeners.iter().map(SocketAddr::ip);
            targets.chain([ask.client.address])
        });
        twin.answer_for(&addresses.collect())?;
        let questions: Vec<Question> = own.iter().map(|(_, question)| question.clone()).collect();
        let mut judged = ask(&mut twin, asks, deadline)?;
        // Before `explain`, whose fixes may let the machine's own packets out too.
        let kept_in = kept_in(&twin, &questions, deadline)
            .into_iter()
            .map(|(number, found)| {
                let (forward, question) = &own[number];
                let at = (forward.name.to_string(), question.to.ip());
                (at, doctor::keeps(forward.family(), &found))
            });
        let kept_in = kept_in.collect();
        let (left_out, doubts) = (twin.left_out(), twin.doubts());
        let watched = twin.watched().iter();
        let watched = watched
            .map(|one| format!("{}: `{}`: {}", one.place, one.text, one.why))
            .collect();
        let mut search = CauseSearch {
            twin: &mut twin,
            change: change.as_ref(),
            deadline,
        };
        explain(&mut search, &mut judged);
        let each = forwards.iter().zip(&clients);
        let without_internet = each
            .filter(|(_, clients)| !clients.answers_beyond_links())
            .map(|((_, _, family), _)| *family);
        Ok(Answers {
            judged,
            watched,
            left_out,
            doubts,
            untried_networks: clients.iter().map(|clients| clients.left_out).sum(),
            without_internet: without_internet.collect(),
            kept_in,
        })
    };
    match netns::aside(work) {
        Ok(Ok(answers)) => Ok(answers),
        Ok(Err(error)) => Err(error.words()),
        Err(error) => Err(format!("no thread could be started: {error}")),
    }
}

/// The most unanswering targets that are tried from the copy of the machine.
const MOST_KEPT_IN: usize = 32;

/// Returns the machine's own connections to the targets that did not answer it.
fn own_questions<'e>(gathered: &GatheredFacts<'e>) -> Vec<(&'e Forward, Question)> {
    let links = &gathered.links;
    let bad = gathered.probed.iter().filter(|probed| !probed.is_good());
    let mut seen = BTreeSet::new();
    let each = bad.filter_map(|probed| {
        let Endpoint { forward, to, port } = probed.endpoint;
        let to = SocketAddr::new(to?.address, port.number());
        let own = own_source(&probed.endpoint, links);
        let own = own.or_else(|| links.addresses(&forward.egress).first().copied())?;
        seen.insert((to, forward.protocol, own)).then(|| {
            let question = Question {
                protocol: forward.protocol,
                client: own,
                from: From::Machine,
                to,
                listeners: vec![to],
                request: 1,
                answer: 1,
            };
            (forward, question)
        })
    });
    each.take(MOST_KEPT_IN).collect()
}

/// Returns the change that `apply` would load, if there is any.
fn change(gathered: &[GatheredFacts<'_>]) -> Option<RuleChange> {
    let iptables = *gathered.first()?.of.iptables;
    let change = |family: Family| {
        let one = gathered.iter().find(|one| one.of.family == family)?;
        let want = plan_as(&one.live, one.of.set, family);
        let script = diff::changes(&one.live, &want).script(&Counters::default());
        Some((script, want))
    };
    let both = PerFamily {
        v4: change(Family::V4).unwrap_or_default(),
        v6: change(Family::V6),
    };
    let change = RuleChange {
        iptables,
        scripts: both.map(|_, (script, _)| script.clone()),
        want: both.map(|_, (_, want)| want.clone()),
    };
    let is_empty = change.scripts.values().all(String::is_empty);
    (!is_empty).then_some(change)
}

/// The most forwards with missing rules that are tried in full.
const MOST_IN_DOUBT: usize = 64;

/// Returns some of the forwards with missing rules.
fn not_loaded<'c>(gathered: &[GatheredFacts<'_>], change: &'c RuleChange) -> BTreeSet<Key<'c>> {
    let mut keys = BTreeSet::new();
    for (family, want) in change.want.iter() {
        let live = gathered.iter().find(|one| one.of.family == family);
        let have = live.map(|one| rules_by_key(&one.live)).unwrap_or_default();
        for (key, rules) in rules_by_key(want) {
            let loaded = have.get(&key).map_or(&[][..], Vec::as_slice);
            let is_missing = rules.iter().any(|rule| !loaded.contains(rule));
            if is_missing && keys.len() < MOST_IN_DOUBT {
                keys.insert(key);
            }
        }
    }
    keys
}

/// The most ports of a range that are tried: the first, the last, and some between.
const MOST_PORTS: usize = 64;

fn some_of_each<'s>(endpoints: &[Endpoint<'s>]) -> Vec<Endpoint<'s>> {
    let of_one =
        |a: &Endpoint<'s>, b: &Endpoint<'s>| std::ptr::eq(a.forward, b.forward) && a.to == b.to;
    let mut some = Vec::new();
    for all in endpoints.chunk_by(of_one) {
        let steps = all.len().min(MOST_PORTS);
        let last = all.len() - 1;
        some.extend((0..steps).map(|n| all[n * last / (steps - 1).max(1)]));
    }
    some
}

/// Tries an endpoint of many forwards once, so that no target is flooded.
fn probe_once<'s>(
    endpoints: &[Endpoint<'s>],
    to: impl Fn(&Endpoint<'s>) -> IpAddr,
    from: impl Fn(&Endpoint<'s>) -> Option<IpAddr>,
    how: Probing,
) -> Vec<Probed<'s>> {
    let key = |one: &Endpoint<'s>| (to(one), one.port, one.forward.protocol, from(one));
    let mut seen = BTreeSet::new();
    let different = endpoints.iter().filter(|one| seen.insert(key(one)));
    let different: Vec<Endpoint<'s>> = different.copied().collect();
    let probed = probe(&different, &to, &from, how);
    let tried: BTreeMap<_, &[Outcome]> = probed
        .iter()
        .map(|probed| (key(&probed.endpoint), probed.tries.as_slice()))
        .collect();
    let each = endpoints.iter().filter_map(|endpoint| {
        Some(Probed {
            endpoint: *endpoint,
            tries: tried.get(&key(endpoint))?.to_vec(),
        })
    });
    each.collect()
}

/// Returns the source address that a target sees, if it is an address of this machine.
fn own_source(endpoint: &Endpoint<'_>, links: &Links) -> Option<IpAddr> {
    match endpoint.forward.snat {
        Snat::Addresses(range) => Some(range.first()).filter(|own| links.owner(*own).is_some()),
        Snat::Masquerade | Snat::Client => None,
    }
}

/// Returns a client that is connected now, else one of the Internet.
fn client(family: Family, flows: Option<&[Flow]>, set: &ForwardSet, links: &Links) -> RoutedClient {
    let listeners = Listeners::new(set);
    // A hairpin's client may be the machine itself.
    let flows = flows.unwrap_or_default().iter();
    let mut flows = flows.filter(|flow| links.owner(flow.source).is_none());
    let led = flows.find(|flow| listeners.leader(flow).is_some());
    RoutedClient {
        address: led.map_or(somebody(family), |flow| flow.source),
        real: led.is_some(),
    }
}

/// Whether each forward works, without the unknown ones.
type Works = BTreeMap<(String, Protocol, Family), bool>;

/// Prints a metric for each forward, except for those with an unknown result.
fn metrics(works: &Works) -> String {
    let mut out = String::from(
        "# HELP nvactl_forward_works Whether connections of the forward do as the spec says in a copy of the machine, and its targets answer.\n\
         # TYPE nvactl_forward_works gauge\n",
    );
    for ((forward, protocol, family), works) in works {
        let family = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let _ = writeln!(
            out,
            "nvactl_forward_works{{forward=\"{forward}\",protocol=\"{protocol}\",family=\"{family}\"}} {}",
            u8::from(*works)
        );
    }
    out
}

/// Prints a line for each hop, and a fact of many forwards once.
fn text(checks: &[Check], asked: usize, untried: Option<&Untried>) -> String {
    let mut out = String::new();
    for hop in checks.chunk_by(|a, b| a.code == b.code) {
        let (good, rest): (Vec<&Check>, Vec<&Check>) =
            hop.iter().partition(|check| check.status == Status::Ok);
        let (of_forwards, of_all): (Vec<&Check>, Vec<&Check>) =
            good.into_iter().partition(|check| check.forward.is_some());
        for check in of_all {
            line(&mut out, check, &said(check));
        }
        // All forwards that pass a hop share one line.
        match of_forwards.as_slice() {
            [first, _, _, ..] => line(&mut out, first, &together(&of_forwards, hop, asked)),
            few => {
                for check in few {
                    line(&mut out, check, &said(check));
                }
            }
        }
        for check in rest.iter().take(MOST_SHOWN) {
            line(&mut out, check, &said(check));
            let fix = check.fix.as_ref();
            for fix in fix.iter().flat_map(|fix| fix.lines(check.tried)) {
                let _ = writeln!(out, "{:<28} {fix}", "");
            }
        }
        if rest.len() > MOST_SHOWN {
            let more = rest.len() - MOST_SHOWN;
            let _ = writeln!(out, "{:<28} and {more} more of this kind", "");
        }
    }
    out + "\n" + &last(checks, asked, untried) + "\n"
}

/// Counts the forwards that pass a hop. If others do not pass it, it names their number too: each forward that the
/// user asked about has a check of `packets`, unless another hop took its packets.
fn together(good: &[&Check], hop: &[Check], asked: usize) -> String {
    let count = |checks: &mut dyn Iterator<Item = &Check>| {
        let names: BTreeSet<&str> = checks.filter_map(|one| one.forward.as_deref()).collect();
        names.len()
    };
    let passing = count(&mut good.iter().copied());
    let all = match hop.first().map(|check| check.code) {
        Some(Hop::Packets) => asked,
        _ => count(&mut hop.iter()),
    };
    if passing < all {
        format!("{passing} of {all} forwards")
    } else {
        counted(passing, "forward")
    }
}

/// Names the check to look at first, or reports that nothing is wrong.
fn last(checks: &[Check], asked: usize, untried: Option<&Untried>) -> String {
    match (doctor::first(checks), untried) {
        (Some(check), _) if check.status == Status::Fail => {
            format!("the first hop that fails: {}", brief(check))
        }
        (_, Some(Untried { forwards, why })) => {
            let work = if *forwards == 1 { "works" } else { "work" };
            let forwards = counted(*forwards, "forward");
            let why = printable::line(why);
            format!("it is not known whether {forwards} {work}: {why}")
        }
        (None, None) => format!("nothing is wrong with {}", counted(asked, "forward")),
        (Some(check), None) if check.is_unknown_of_packets() => {
            format!(
                "it is not known whether all forwards work: {}",
                brief(check)
            )
        }
        (Some(check), None) => format!("no check fails, but look at {}", brief(check)),
    }
}

/// The most characters of a reason on the last line.
const MOST_REPEATED: usize = 100;

/// Summarizes a check: its code, its forward and the beginning of its reason.
fn brief(check: &Check) -> String {
    let reason = printable::line(&check.reason).to_string();
    let mut words: String = reason.chars().take(MOST_REPEATED).collect();
    if words.len() < reason.len() {
        words.push('…');
    }
    let code = check.code.code();
    match &check.forward {
        Some(forward) => format!("{code}: {forward}: {words}"),
        None => format!("{code}: {words}"),
    }
}

fn line(out: &mut String, check: &Check, words: &str) {
    let _ = writeln!(
        out,
        "{:<7} {:<20} {words}",
        check.status.word(),
        check.code.code()
    );
}

fn said(check: &Check) -> String {
    match &check.forward {
        Some(forward) => format!("{forward}: {}", printable::line(&check.reason)),
        None => printable::line(&check.reason).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Hop, status: Status, forward: Option<&str>, reason: &str) -> Check {
        Check {
            code,
            status,
            forward: forward.map(str::to_owned),
            reason: reason.to_owned(),
            fix: None,
            tried: false,
        }
    }

    #[test]
    fn forwards_that_pass_a_hop_are_counted_beside_the_others() {
        let ok = |hop, name| check(hop, Status::Ok, Some(name), "");
        let three = |hop| ["a", "b", "c"].map(|name| ok(hop, name)).to_vec();
        let failed = |hop| [three(hop), vec![check(hop, Status::Fail, Some("d"), "")]].concat();
        for (checks, asked, words) in [
            (
                three(Hop::Packets),
                3,
                "ok      packets              3 forwards\n",
            ),
            (
                three(Hop::Packets),
                4,
                "ok      packets              3 of 4 forwards\n",
            ),
            (
                failed(Hop::Target),
                4,
                "ok      target               3 of 4 forwards\n",
            ),
            (
                three(Hop::ListenAddress),
                4,
                "ok      listen-address       3 forwards\n",
            ),
        ] {
            let text = text(&checks, asked, None);
            assert!(text.starts_with(words), "{text}");
        }
    }

    #[test]
    fn a_jump_that_no_packet_reaches_is_named_last() {
        let early = check(
            Hop::ListenAddress,
            Status::Warn,
            Some("web"),
            "it is not here",
        );
        let jump = check(Hop::Jump, Status::Warn, None, "no packet reaches it");
        assert_eq!(
            last(&[early, jump], 1, None),
            "no check fails, but look at jump: no packet reaches it"
        );
    }

    /// An unknown result comes before a warning about later.
    #[test]
    fn the_last_line_reports_success_only_if_it_is_known() {
        let file = check(Hop::Persistence, Status::Warn, None, "it is not there");
        let rule = check(Hop::Packets, Status::Unknown, Some("web"), "it counts");
        let dead = check(Hop::Route, Status::Fail, Some("web"), &"r".repeat(101));
        let azure = check(Hop::AzureNsg, Status::Unknown, Some("web"), "is it open?");
        let untried = Untried {
            forwards: 2,
            why: "no connection was tried (--no-twin)".to_owned(),
        };
        let failed = format!("the first hop that fails: route: web: {}…", "r".repeat(100));
        for (checks, untried, said) in [
            (vec![], None, "nothing is wrong with 2 forwards"),
            (
                vec![file.clone()],
                Some(&untried),
                "it is not known whether 2 forwards work: no connection was tried (--no-twin)",
            ),
            (
                vec![file.clone()],
                None,
                "no check fails, but look at persistence: it is not there",
            ),
            (
                vec![file.clone(), rule],
                None,
                "it is not known whether all forwards work: packets: web: it counts",
            ),
            (
                vec![file, azure],
                None,
                "no check fails, but look at persistence: it is not there",
            ),
            (vec![dead], Some(&untried), failed.as_str()),
        ] {
            assert_eq!(last(&checks, 2, untried), said);
        }
    }
}
