//! The plot: what a new connection costs by the number of forwards, on both backends.
//!
//! It has a ground of its own, so that it can be read wherever it is shown.

use std::fmt::Write as _;

use crate::layouts::{Backend, Layout};
use crate::report::{micros, thousands};
use crate::spread::Spread;
use crate::{Measured, Point};

const FORWARDS: [u16; 5] = [1, 10, 100, 1_000, 10_000];

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 430.0;
/// Where the panels lie: the left sides, and what is the same for both.
const LEFT: [f64; 2] = [76.0, 480.0];
const PANEL: f64 = 330.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 356.0;
/// The lines across a panel, of which those are drawn that the axis reaches.
const COSTS: [(f64, &str); 5] = [
    (1.0, "1 µs"),
    (10.0, "10 µs"),
    (100.0, "100 µs"),
    (1_000.0, "1 ms"),
    (10_000.0, "10 ms"),
];

/// One of the two lines of a panel.
struct Line {
    layout: Layout,
    name: &'static str,
    colour: &'static str,
}

const LINES: [Line; 2] = [
    Line {
        layout: Layout::Article,
        name: "the article's rules",
        colour: "#c2410c",
    },
    Line {
        layout: Layout::Auto,
        name: "nvactl",
        colour: "#1d4ed8",
    },
];

pub fn svg(measured: &Measured) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" font-size=\"13\" \
         fill=\"#334155\" role=\"img\">\n\
         <title>What a new connection costs by the number of forwards</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n",
        WIDTH - 1.0,
        HEIGHT - 1.0
    );
    svg += &text(
        LEFT[0],
        30.0,
        "font-size=\"17\" font-weight=\"600\" fill=\"#0f172a\"",
        "What a new connection costs the kernel",
    );
    svg += &text(
        LEFT[0],
        51.0,
        "fill=\"#64748b\"",
        "µs for the first packet, sent and forwarded; medians, bands from quartile to quartile",
    );
    let axis = Axis::of(measured);
    for (backend, left) in Backend::ALL.into_iter().zip(LEFT) {
        svg += &grid(left, backend, &axis);
        for line in &LINES {
            svg += &drawn(measured, &axis, left, backend, line);
        }
    }
    svg + "</svg>\n"
}

/// Where a number of forwards lies in a panel.
fn x(left: f64, forwards: u16) -> f64 {
    left + 14.0 + f64::from(forwards).log10() / 4.0 * (PANEL - 28.0)
}

/// The axis of costs, in powers of ten of microseconds.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    /// With room for all that was measured, and for the names above it.
    fn of(measured: &Measured) -> Self {
        let mut axis = Self {
            least: 0.7,
            most: 3.3,
        };
        let drawn = |point: &Point| LINES.iter().any(|line| line.layout == point.layout);
        for (point, _) in &measured.points {
            if drawn(point)
                && let Some(costs) = measured.of(*point)
            {
                let cost = micros(&costs.new);
                axis.least = axis.least.min(cost.low.log10() - 0.2);
                axis.most = axis.most.max(cost.high.log10() + 0.3);
            }
        }
        axis
    }

    /// Where a cost lies.
    fn y(&self, micros: f64) -> f64 {
        let share = (micros.log10() - self.least) / (self.most - self.least);
        BOTTOM - share * (BOTTOM - TOP)
    }
}

fn grid(left: f64, backend: Backend, axis: &Axis) -> String {
    let right = left + PANEL;
    let mut grid = text(
        left,
        TOP - 12.0,
        "font-weight=\"600\" fill=\"#0f172a\"",
        &format!("iptables-{backend}"),
    );
    let reached = |(micros, _): &(f64, &str)| (TOP..BOTTOM).contains(&axis.y(*micros));
    for (micros, label) in COSTS.into_iter().filter(reached) {
        let y = axis.y(micros);
        let _ = writeln!(
            grid,
            "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/>"
        );
        grid += &text(left - 8.0, y + 4.5, "text-anchor=\"end\"", label);
    }
    let _ = writeln!(
        grid,
        "<line x1=\"{left}\" y1=\"{BOTTOM}\" x2=\"{right}\" y2=\"{BOTTOM}\" stroke=\"#94a3b8\"/>"
    );
    for forwards in FORWARDS {
        let x = x(left, forwards);
        let _ = writeln!(
            grid,
            "<line x1=\"{x:.1}\" y1=\"{BOTTOM}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#94a3b8\"/>",
            BOTTOM + 5.0
        );
        grid += &text(
            x,
            BOTTOM + 21.0,
            "text-anchor=\"middle\"",
            &thousands(forwards),
        );
    }
    let middle = left + PANEL / 2.0;
    grid + &text(middle, BOTTOM + 44.0, "text-anchor=\"middle\"", "forwards")
}

fn drawn(measured: &Measured, axis: &Axis, left: f64, backend: Backend, line: &Line) -> String {
    let Line {
        layout,
        name,
        colour,
    } = line;
    let costs: Vec<(f64, Spread)> = FORWARDS
        .into_iter()
        .filter_map(|forwards| {
            let point = Point {
                backend,
                layout: *layout,
                forwards,
            };
            Some((x(left, forwards), micros(&measured.of(point)?.new)))
        })
        .collect();
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let each = points.map(|(x, micros)| format!("{x:.1},{:.1}", axis.y(micros)));
        each.collect::<Vec<_>>().join(" ")
    };
    let there = costs.iter().map(|(x, cost)| (*x, cost.high));
    let back = costs.iter().rev().map(|(x, cost)| (*x, cost.low));
    let band = path(&mut there.chain(back));
    let medians = path(&mut costs.iter().map(|(x, cost)| (*x, cost.median)));
    let mut drawn = format!(
        "<polygon points=\"{band}\" fill=\"{colour}\" fill-opacity=\"0.18\"/>\n\
         <polyline points=\"{medians}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"/>\n"
    );
    for (x, cost) in &costs {
        let _ = writeln!(
            drawn,
            "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.4\" fill=\"{colour}\"/>",
            axis.y(cost.median)
        );
    }
    let bold = format!(
        "text-anchor=\"end\" font-weight=\"600\" fill=\"{colour}\" stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\""
    );
    if let Some((x, cost)) = costs.last() {
        let label = format!("{name}: {}", duration(cost.median));
        drawn += &text(*x + 5.0, axis.y(cost.median) - 13.0, &bold, &label);
    }
    drawn
}

fn duration(micros: f64) -> String {
    match micros {
        ..10.0 => format!("{micros:.1} µs"),
        10.0..1_000.0 => format!("{micros:.0} µs"),
        _ => format!("{:.1} ms", micros / 1e3),
    }
}

fn text(x: f64, y: f64, style: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n")
}
