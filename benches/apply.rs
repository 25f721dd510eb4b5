//! What an apply costs beside what the kernel's own tools cost for the same rules, in namespaces of its
//! own: from nothing, with nothing changed, with one forward more.
//!
//! `cargo bench --bench apply`; prints a Markdown table, and ends with 1 when a ratio that must hold at
//! 10,000 forwards does not, with 2 where it cannot run. It takes some minutes.
//!
//! All of one round stands side by side, so that a machine whose speed drifts drifts under all of it; a
//! ratio is the median of the rounds' ratios, and in parentheses the least and the greatest.

mod forwards;
#[path = "../tests/lab/namespace.rs"]
#[expect(dead_code, reason = "the lab asks more of its hosts")]
mod namespace;
#[path = "../tests/required/mod.rs"]
mod required;

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::Instant;

use namespace::Host;

const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];
/// One call for each rule of more forwards takes minutes.
const MOST_CALLED: usize = 1_000;
/// The size that is judged.
const JUDGED: usize = 10_000;

/// Seconds, of one round.
struct Round {
    /// `iptables-restore` of the flat plan, into nothing.
    restore: f64,
    /// `iptables-save` of what nvactl has loaded.
    save: f64,
    /// `nvactl render`.
    render: f64,
    /// `nvactl apply --no-trial` into nothing.
    nothing: f64,
    /// `nvactl apply` of what is loaded.
    again: f64,
    /// `nvactl apply` of one forward more, between others.
    more: f64,
    /// `nvactl apply` into nothing.
    full: f64,
    /// `nvactl apply` into nothing, where no copy of the machine can be made.
    alone: f64,
    /// `iptables -A` for each rule.
    calls: Option<f64>,
    /// `ferm` into nothing.
    ferm: Option<f64>,
}

/// Two times that are compared.
struct Ratio {
    name: &'static str,
    of: fn(&Round) -> Option<f64>,
    to: fn(&Round) -> Option<f64>,
    /// What it must not be above on iptables-nft, and on iptables-legacy.
    limits: [Option<f64>; 2],
}

const RATIOS: [Ratio; 8] = [
    Ratio {
        name: "from nothing, every forward tried / without a trial",
        of: |round| Some(round.full),
        to: |round| Some(round.nothing),
        limits: [Some(3.5), Some(5.5)],
    },
    Ratio {
        name: "from nothing, one rule of each shape tried / without a trial",
        of: |round| Some(round.alone),
        to: |round| Some(round.nothing),
        limits: [Some(1.4), Some(1.8)],
    },
    Ratio {
        name: "from nothing without a trial / iptables-restore of the flat plan",
        of: |round| Some(round.nothing),
        to: |round| Some(round.restore),
        limits: [Some(1.8), None],
    },
    Ratio {
        name: "nothing changed / iptables-save",
        of: |round| Some(round.again),
        to: |round| Some(round.save),
        limits: [Some(1.3), None],
    },
    Ratio {
        name: "one more / all from nothing",
        of: |round| Some(round.more),
        to: |round| Some(round.full),
        limits: [Some(1.0), None],
    },
    Ratio {
        name: "check, plan and print / iptables-restore of the flat plan",
        of: |round| Some(round.render),
        to: |round| Some(round.restore),
        limits: [Some(0.12), None],
    },
    Ratio {
        name: "one call a rule / from nothing without a trial",
        of: |round| round.calls,
        to: |round| Some(round.nothing),
        limits: [None, None],
    },
    Ratio {
        name: "ferm / from nothing without a trial",
        of: |round| round.ferm,
        to: |round| Some(round.nothing),
        limits: [None, None],
    },
];

fn main() -> ExitCode {
    if let Some(missing) = missing() {
        eprintln!("cannot run: {missing}");
        return ExitCode::from(2);
    }
    if !runs("ferm") {
        println!("ferm is not installed: it is left out\n");
    }
    print_head();
    let mut missed = Vec::new();
    for forwards in SIZES {
        for backend in ["nft", "legacy"] {
            let rounds = measure(forwards, backend);
            print_row(forwards, backend, &rounds);
            if forwards == JUDGED {
                let ratios = RATIOS.iter();
                let bad = ratios.filter(|ratio| ratio.is_missed(backend, &rounds));
                missed.extend(bad.map(|ratio| (ratio.name, backend)));
            }
        }
    }
    for (name, backend) in &missed {
        eprintln!("missed on {backend}: {name}");
    }
    if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Why it cannot run here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let tools = ["iptables-nft", "iptables-legacy", "ip", "nsenter"];
    if let Some(tool) = tools.into_iter().find(|tool| !runs(tool)) {
        return Some(format!("`{tool}` is not installed"));
    }
    (!namespace::possible()).then(|| "no namespaces can be made".to_owned())
}

fn runs(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

fn print_head() {
    let names: Vec<&str> = RATIOS.iter().map(|ratio| ratio.name).collect();
    println!(
        "| forwards | backend | {} | seconds: restore | save | from nothing | nothing changed | one more | all from nothing |",
        names.join(" | ")
    );
    println!("|{}", "---|".repeat(RATIOS.len() + 8));
}

fn print_row(forwards: usize, backend: &str, rounds: &[Round]) {
    let mut row = format!("| {forwards} | {backend} |");
    for ratio in &RATIOS {
        let cell = ratio
            .spread(rounds)
            .map(|[least, median, greatest]| format!("{median:.2} ({least:.2}–{greatest:.2})"));
        let _ = write!(row, " {} |", cell.as_deref().unwrap_or("–"));
    }
    let times: [fn(&Round) -> f64; 6] = [
        |round| round.restore,
        |round| round.save,
        |round| round.nothing,
        |round| round.again,
        |round| round.more,
        |round| round.full,
    ];
    for time in times {
        let [_, median, _] = spread(rounds.iter().map(time).collect()).unwrap_or_default();
        let _ = write!(row, " {median:.3} |");
    }
    println!("{row}");
}

impl Ratio {
    fn spread(&self, rounds: &[Round]) -> Option<[f64; 3]> {
        let ratio = |round| Some((self.of)(round)? / (self.to)(round)?);
        spread(rounds.iter().filter_map(ratio).collect())
    }

    fn is_missed(&self, backend: &str, rounds: &[Round]) -> bool {
        let median = self.spread(rounds).map(|[_, median, _]| median);
        let [nft, legacy] = self.limits;
        let limit = if backend == "nft" { nft } else { legacy };
        limit
            .zip(median)
            .is_some_and(|(limit, median)| median > limit)
    }
}

/// The least, the median and the greatest.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.first()?, values.last()?);
    Some([*first, values[values.len() / 2], *last])
}

fn measure(forwards: usize, backend: &str) -> Vec<Round> {
    let rounds = if forwards < 10_000 { 7 } else { 5 };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bench = Bench::new(forwards, backend, folder.path());
    (0..rounds).map(|n| bench.round(n)).collect()
}

/// What the rounds of one row have in common.
struct Bench<'a> {
    backend: &'a str,
    /// For what is written down before a change, and the specs.
    folder: &'a std::path::Path,
    /// What the spec becomes in the flat layout.
    rules: String,
    /// The same as calls of `iptables`, where they do not take too long.
    calls: Option<String>,
    ferm: Option<String>,
}

impl<'a> Bench<'a> {
    fn new(forwards: usize, backend: &'a str, folder: &'a std::path::Path) -> Self {
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("it can be written");
        };
        let whole = forwards::spec(forwards);
        write("spec.yaml", &whole);
        write(
            "flat.yaml",
            &whole.replacen("snat", "layout: flat\n  snat", 1),
        );
        write("more.yaml", &with_one_more(&whole, forwards / 2));
        let render = Command::new(env!("CARGO_BIN_EXE_nvactl"))
            .arg("render")
            .arg(folder.join("flat.yaml"))
            .output()
            .expect("nvactl starts");
        let rules = String::from_utf8(render.stdout).expect("it prints text");
        Self {
            backend,
            folder,
            calls: (forwards <= MOST_CALLED).then(|| calls(&rules)),
            // It prefers the legacy programs wherever they are installed.
            ferm: (backend == "legacy" && runs("ferm")).then(|| ferm(forwards)),
            rules,
        }
    }

    fn round(&self, n: usize) -> Round {
        let bare = self.host();
        let restore = timed(&bare, "iptables-restore", &["--noflush"], &self.rules);
        let render = self.nvactl(&bare, &["render"], "spec.yaml");
        drop(bare);

        let host = self.host();
        let nothing = self.nvactl(&host, &["apply", "--no-trial"], "spec.yaml");
        let save = timed(&host, "iptables-save", &[], "");
        let again = self.nvactl(&host, &["apply"], "spec.yaml");
        let more = self.nvactl(&host, &["apply"], "more.yaml");
        drop(host);

        let host = self.host();
        let full = self.nvactl(&host, &["apply"], "spec.yaml");
        drop(host);

        let host = self.host();
        host.shell("printf '#!/bin/sh\\nexit 127\\n' > /run/bin/ip; chmod +x /run/bin/ip");
        let alone = self.nvactl(&host, &["apply"], "spec.yaml");
        drop(host);

        // Of what takes many times as long one round says enough.
        let once = |script: &Option<String>, program: &str, args: &[&str]| {
            let script = script
                .as_ref()
                .filter(|text| n == 0 || text.len() < 100_000)?;
            Some(timed(&self.host(), program, args, script))
        };
        Round {
            restore,
            save,
            render,
            nothing,
            again,
            more,
            full,
            alone,
            calls: once(&self.calls, "sh", &["-e"]),
            ferm: once(&self.ferm, "ferm", &["-"]),
        }
    }

    /// A firewall with nothing loaded.
    fn host(&self) -> Host {
        let host = Host::new();
        for name in ["iptables", "iptables-save", "iptables-restore"] {
            let multi = format!("xtables-{}-multi", self.backend);
            host.shell(&format!("ln -s $(command -v {multi}) /run/bin/{name}"));
        }
        host.run("ip link add eth0 type veth peer name eth0-peer");
        host.run("ip address add 10.3.0.4/24 dev eth0");
        host.run("ip link set eth0 up");
        host.run("ip link set eth0-peer up");
        host.run("ip route add default via 10.3.0.1");
        host.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
        host
    }

    fn nvactl(&self, host: &Host, args: &[&str], spec: &str) -> f64 {
        let spec = self.folder.join(spec);
        let state = self.folder.join("state");
        let places = [
            "--state-dir",
            state.to_str().expect("it is text"),
            spec.to_str().expect("it is text"),
        ];
        let args = [args, &places].concat();
        timed(host, env!("CARGO_BIN_EXE_nvactl"), &args, "")
    }
}

/// How long a command takes on a host.
fn timed(host: &Host, program: &str, args: &[&str], stdin: &str) -> f64 {
    let begin = Instant::now();
    let output = host.feed(program, args, stdin);
    let time = begin.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    time
}

/// The spec with one more forward before the `n`th.
fn with_one_more(spec: &str, n: usize) -> String {
    let nth = format!("  - name: forward-{n}\n");
    let one = "  - name: one-more\n    listen: 9999\n    target:\n      pod: 10.224.255.1:80\n";
    spec.replacen(&nth, &format!("{one}{nth}"), 1)
}

fn pod(n: usize) -> String {
    format!("10.224.{}.{}", n / 250 % 250, n % 250 + 1)
}

/// One command for each line; no word of these rules needs a quote.
fn calls(rules: &str) -> String {
    let (mut script, mut table) = (String::new(), "");
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(("", chain)) = line.split_once(':') {
            let mut words = chain.split(' ');
            let (chain, policy) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let _ = match policy {
                "-" => writeln!(script, "iptables -t {table} -N {chain}"),
                policy => writeln!(script, "iptables -t {table} -P {chain} {policy}"),
            };
        } else if line.starts_with("-A") {
            let _ = writeln!(script, "iptables -t {table} {line}");
        }
    }
    script
}

/// The same forwards in the language of ferm(1).
fn ferm(forwards: usize) -> String {
    let mut text = "table filter chain FORWARD {\n  policy DROP;\n  mod state state (ESTABLISHED RELATED) ACCEPT;\n}\n".to_owned();
    for n in 0..forwards {
        let (port, pod) = (10_000 + n, pod(n));
        let _ = write!(
            text,
            "table nat chain PREROUTING interface eth0 proto tcp dport {port} mod addrtype dst-type LOCAL DNAT to {pod}:80;\n\
             table filter chain FORWARD interface eth0 outerface eth0 daddr {pod} proto tcp dport 80 syn mod conntrack ctstate DNAT ctorigdstport {port} ACCEPT;\n\
             table nat chain POSTROUTING outerface eth0 daddr {pod} proto tcp dport 80 mod conntrack ctstate DNAT ctorigdstport {port} SNAT to 10.3.0.4;\n"
        );
    }
    text
}
