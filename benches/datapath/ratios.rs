//! The ratios for which the layouts are measured, and what they must be.

use std::fmt;

use crate::layouts::{Backend, Layout};
use crate::spread::{Spread, times};
use crate::{Measured, Point};

#[derive(Debug, Clone, Copy)]
enum Must {
    AtMost(f64),
    AtLeast(f64),
}

pub struct Ratio {
    backend: Backend,
    what: &'static str,
    pub spread: Spread,
    must: Must,
}

/// Of one backend.
type Rules = (Layout, u16);

/// What a packet costs where there is one forward.
const ONE: Rules = (Layout::Auto, 1);
const ARTICLE: Rules = (Layout::Article, 10_000);
const TREE: Rules = (Layout::Tree, 10_000);
const MAP: Rules = (Layout::Map, 10_000);

pub fn ratios(measured: &Measured) -> Vec<Ratio> {
    let of = |backend, (layout, forwards)| {
        let point = Point {
            backend,
            layout,
            forwards,
        };
        measured.of(point).expect("it is measured")
    };
    let new = |backend, what, over: Rules, under: Rules, must| Ratio {
        backend,
        what,
        spread: times(&of(backend, over).new, &of(backend, under).new),
        must,
    };
    let mut ratios = Vec::new();
    for backend in Backend::ALL {
        let gain = match backend {
            Backend::Nft => Must::AtLeast(40.0),
            Backend::Legacy => Must::AtLeast(8.0),
        };
        let what = "a new connection, tree of 10,000 / one forward";
        ratios.push(new(backend, what, TREE, ONE, Must::AtMost(1.5)));
        let what = "a new connection, the article's rules of 10,000 / tree of 10,000";
        ratios.push(new(backend, what, ARTICLE, TREE, gain));
        if backend == Backend::Nft {
            let what = "a new connection, tree of 10,000 / nft map of 10,000";
            ratios.push(new(backend, what, TREE, MAP, Must::AtMost(1.5)));
        }
        ratios.push(Ratio {
            backend,
            what: "an established packet, tree of 10,000 / one forward",
            spread: times(
                &of(backend, TREE).established,
                &of(backend, ONE).established,
            ),
            must: Must::AtMost(1.1),
        });
    }
    ratios
}

impl Ratio {
    /// Whether the median is what it must be.
    pub fn holds(&self) -> bool {
        match self.must {
            Must::AtMost(limit) => self.spread.median <= limit,
            Must::AtLeast(limit) => self.spread.median >= limit,
        }
    }

    pub fn row(&self) -> String {
        let Self {
            backend,
            what,
            spread,
            must,
        } = self;
        let verdict = if self.holds() { "holds" } else { "missed" };
        format!("| {backend} | {what} | {spread} | {must} | {verdict} |\n")
    }
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            what,
            spread,
            must,
        } = self;
        write!(f, "{backend}, {what}: {spread}, {must}")
    }
}
