//! What a forward costs the kernel: the first packet of a connection and one of an established
//! connection, by the layout of the rules and the number of forwards, on both backends.
//!
//! `cargo bench --bench datapath [-- --plot FILE.svg]`, as root; ends with 1 when a ratio is not what
//! it must be, and with 2 where it cannot run.

mod lab;
mod layouts;
mod machine;
#[path = "../../tests/lab/namespace.rs"]
#[expect(dead_code, reason = "the lab of the tests asks more of a host")]
mod namespace;
mod plot;
mod ratios;
mod report;
#[path = "../../tests/required/mod.rs"]
mod required;
mod spread;

use std::path::PathBuf;
use std::process::ExitCode;

use lab::{Cell, Client};
use layouts::{Backend, Layout, rules};
use ratios::ratios;

/// Each takes every cell once. Odd, and one more than a multiple of four, so that the quartiles are
/// rounds of their own.
const ROUNDS: usize = 41;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the table and the ratios are about, and what the plot adds.
const MEASURED: [(Layout, &[u16]); 5] = [
    (Layout::Article, &[1, 10, 100, 1_000, 10_000]),
    (Layout::Flat, &[1, 1_000, 10_000]),
    (Layout::Tree, &[1, 1_000, 10_000]),
    (Layout::Auto, &[1, 10, 100, 1_000, 10_000]),
    (Layout::Map, &[1, 1_000, 10_000]),
];

/// One backend, one layout, so many forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    backend: Backend,
    layout: Layout,
    forwards: u16,
}

/// Nanoseconds a packet, one of each round.
#[derive(Debug, Default)]
struct Costs {
    new: Vec<f64>,
    established: Vec<f64>,
}

/// What was measured of each point. Points whose rules are the same are one.
#[derive(Default)]
struct Measured {
    points: Vec<(Point, usize)>,
    costs: Vec<Costs>,
}

impl Measured {
    fn of(&self, point: Point) -> Option<&Costs> {
        let (_, cell) = self.points.iter().find(|(one, _)| *one == point)?;
        Some(&self.costs[*cell])
    }
}

fn main() -> ExitCode {
    let plot_to = match plot_to(std::env::args().skip(1)) {
        Ok(path) => path,
        Err(unknown) => {
            eprintln!("error: `{unknown}` is no option of this benchmark; it has `--plot FILE`");
            return ExitCode::from(2);
        }
    };
    let missing = machine::missing();
    if !missing.is_empty() {
        for what in missing {
            eprintln!("error: {what}");
        }
        return ExitCode::from(2);
    }

    let measured = measure();
    let ratios = ratios(&measured);
    print!("{}", report::page(&measured, &ratios));
    if let Some(path) = plot_to
        && let Err(error) = std::fs::write(&path, plot::svg(&measured))
    {
        eprintln!("error: cannot write `{}`: {error}", path.display());
        return ExitCode::from(2);
    }
    let mut code = ExitCode::SUCCESS;
    for ratio in ratios.iter().filter(|ratio| !ratio.holds()) {
        eprintln!("missed: {ratio}");
        code = ExitCode::FAILURE;
    }
    code
}

/// The file of `--plot`. What cargo passes on, such as `--bench` or a filter, is no concern of this.
fn plot_to(mut args: impl Iterator<Item = String>) -> Result<Option<PathBuf>, String> {
    let mut plot_to = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--plot" => plot_to = Some(args.next().ok_or(arg)?.into()),
            "--bench" => {}
            other if other.starts_with('-') => return Err(arg),
            _ => {}
        }
    }
    Ok(plot_to)
}

fn measure() -> Measured {
    let client = Client::new();
    let mut measured = Measured::default();
    let mut cells: Vec<Cell> = Vec::new();
    eprintln!("loading the rules of each cell …");
    for backend in Backend::ALL {
        for (layout, numbers) in MEASURED {
            if layout == Layout::Map && backend == Backend::Legacy {
                continue;
            }
            for &forwards in numbers {
                let point = Point {
                    backend,
                    layout,
                    forwards,
                };
                let rules = rules(layout, forwards);
                let same = |cell: &Cell| cell.point.backend == backend && cell.rules == rules;
                let cell = cells.iter().position(same).unwrap_or_else(|| {
                    cells.push(Cell::new(&client, cells.len(), point, rules));
                    cells.len() - 1
                });
                measured.points.push((point, cell));
            }
        }
    }
    measured.costs.resize_with(cells.len(), Costs::default);

    machine::pin();
    eprintln!("{} cells, {ROUNDS} rounds …", cells.len());
    let mut random = Random(SEED);
    let mut order: Vec<usize> = (0..cells.len()).collect();
    for _ in 0..ROUNDS {
        // All cells in each round, so that a machine whose speed drifts drifts under all.
        random.shuffle(&mut order);
        let draws = random.draws();
        for &n in &order {
            let cell = &cells[n];
            cell.forget();
            cell.open(&client);
            measured.costs[n].new.push(cell.begin(&client, &draws));
            measured.costs[n].established.push(cell.go_on(&client));
        }
    }
    measured
}

/// Xorshift: every run sends the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number for each packet of a burst.
    fn draws(&mut self) -> Vec<u16> {
        // The upper bits are the better ones.
        let draw = |_| u16::try_from(self.next() >> 48).expect("these are 16 bits");
        (0..lab::BURST).map(draw).collect()
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            let rest = u64::try_from(last + 1).expect("they are few");
            let other = usize::try_from(self.next() % rest).expect("they are few");
            order.swap(last, other);
        }
    }
}
