//! The cause of a dead connection in a twin: a rule, a policy or the kernel itself.
//!
//! The caller repeats one connection between [`Watch::begin`] and [`Watch::end`] and calls [`WatchReport::taken`]. The
//! kernel's packet trace names rules of nft, iptables-nft included. Counters name rules of iptables-legacy.
//! Statistics and routes name the kernel's own reasons. All of them belong to the calling thread's network namespace.

mod ending;
mod error;
mod kernel;
mod legacy;
mod message;
mod path;
mod route;
mod rules;
mod taken;
mod trace;

use crate::host::child::ChildError;
use crate::net::Family;

pub use ending::{Conversation, Direction, Fate};
pub use error::CauseError;
pub use kernel::KernelReason;
pub use legacy::CountedRule;
pub use message::{Header, NftChain, NftVerdict};
pub use path::{PacketPath, TraceStep, TraceStepKind};
pub use rules::{DecidingRule, Holder};
pub use taken::{By, Taken, by_legacy, unsent};
pub use trace::Stage;

use kernel::Statistics;
use legacy::Legacy;
use trace::Tracer;

/// A watch over the packets of the calling thread's namespace.
#[derive(Debug)]
pub struct Watch {
    /// `None` if nft is not installed.
    tracer: Option<Tracer>,
    legacy: Vec<Legacy>,
    statistics: Statistics,
}

/// Everything that the kernel reported during a watch.
#[derive(Debug, Default)]
pub struct WatchReport {
    /// Whether packets were traced.
    pub traced: bool,
    /// Whether every message of the trace arrived.
    pub complete: bool,
    /// Every packet that was traced, in order.
    pub paths: Vec<PacketPath>,
    /// The rules of iptables-legacy that matched, in order of the hooks.
    pub legacy: Vec<CountedRule>,
    /// The kernel's own reasons that were counted for packets of each family, the clearest first.
    pub kernel: Vec<(Family, KernelReason)>,
}

impl Watch {
    /// Begins a watch. `interfaces`: the interfaces at which packets come in.
    ///
    /// # Errors
    /// If the thread lacks `CAP_NET_ADMIN` over the namespace, or nft or iptables fails.
    pub fn begin(interfaces: &[&str]) -> Result<Self, CauseError> {
        let tracer = match Tracer::begin(interfaces) {
            Err(CauseError::Child(ChildError::NotFound(_))) => None,
            tracer => Some(tracer?),
        };
        Ok(Self {
            tracer,
            legacy: Legacy::read()?,
            statistics: Statistics::read()?,
        })
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// As [`Watch::begin`].
    pub fn end(self) -> Result<WatchReport, CauseError> {
        let kernel = Statistics::read()?.reasons_since(&self.statistics);
        let trace = self.tracer.map(Tracer::end).transpose()?;
        let traced = trace.is_some();
        let (messages, complete) = trace.unwrap_or((Vec::new(), true));
        Ok(WatchReport {
            traced,
            complete,
            paths: path::paths(messages),
            legacy: legacy::counted(&self.legacy, &Legacy::read()?),
            kernel,
        })
    }
}
