//! What was measured, as Markdown.

use std::fmt::Write as _;

use crate::lab::{BURST, SHORT_BURST};
use crate::layouts::{Backend, Layout};
use crate::ratios::Ratio;
use crate::spread::{Spread, times};
use crate::{Costs, Measured, Point, ROUNDS, machine};

const LAYOUTS: [Layout; 4] = [Layout::Article, Layout::Flat, Layout::Tree, Layout::Map];
const FORWARDS: [u16; 3] = [1, 1_000, 10_000];

/// What the kernel does with a connection's first packet, and with a later one.
type Of = fn(&Costs) -> &[f64];
const NEW: Of = |costs| &costs.new;
const ESTABLISHED: Of = |costs| &costs.established;

pub fn page(measured: &Measured, ratios: &[Ratio]) -> String {
    let mut page = String::new();
    page += "| rules | forwards | nft: new connection | established packet | legacy: new connection | established packet |\n";
    page += "|---|---|---|---|---|---|\n";
    for layout in LAYOUTS {
        for forwards in FORWARDS {
            let _ = write!(page, "| {layout} | {} |", thousands(forwards));
            for backend in Backend::ALL {
                for of in [NEW, ESTABLISHED] {
                    let point = Point {
                        backend,
                        layout,
                        forwards,
                    };
                    let cost = measured.of(point).map_or("–".to_owned(), |costs| {
                        times(of(costs), of(base(measured, backend))).to_string()
                    });
                    let _ = write!(page, " {cost} |");
                }
            }
            page.push('\n');
        }
    }
    page += "\nMedians, and quartiles in parentheses, in multiples of what nvactl's rules for one forward cost in the same round:\n";
    for backend in Backend::ALL {
        let of = |of: Of| micros(of(base(measured, backend)));
        let (new, established) = (of(NEW), of(ESTABLISHED));
        let _ = writeln!(
            page,
            "- {backend}: {new} µs a new connection, {established} µs an established packet"
        );
    }
    page += "\n| backend | ratio | median (quartiles) | must be | |\n|---|---|---|---|---|\n";
    for ratio in ratios {
        page += &ratio.row();
    }
    page.push('\n');
    for fact in machine::facts() {
        let _ = writeln!(page, "- {fact}");
    }
    let _ = writeln!(
        page,
        "- {ROUNDS} rounds over all, in each {} packets of a kind, {SHORT_BURST} where each meets ten thousand rules",
        thousands(BURST)
    );
    page
}

/// What is the measure of all others of the backend.
fn base(measured: &Measured, backend: Backend) -> &Costs {
    let point = Point {
        backend,
        layout: Layout::Auto,
        forwards: 1,
    };
    measured.of(point).expect("it is measured")
}

pub fn micros(nanoseconds: &[f64]) -> Spread {
    Spread::of(nanoseconds.iter().map(|cost| cost / 1e3))
}

pub fn thousands(number: u16) -> String {
    match (number / 1_000, number % 1_000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}
