mod forward;
mod listeners;
mod siblings;
mod sources;

pub use forward::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardSet, Layout, Limits, Listen,
    Log, Logged, Name, NameError, Per, Rate, Snat, Snats, Target, TargetKind, TargetPorts,
};
pub use listeners::Listeners;
pub use siblings::told_by_entrance;
pub use sources::{Nets, Sources};
