//! Objects of a Kubernetes cluster, from the JSON that kubectl prints.
//!
//! ```text
//! text ─read─▶ KubeObjects ─draft─▶ forwards to the internal load balancers
//!                   └──────fault──▶ what is wrong with a target of a spec
//! ```
//!
//! A few fields of a few kinds are read. Objects of other kinds are passed over. Nothing here talks to a cluster.
//!
//! The room must not know YAML, rules or the machine.
//!
//! Start here:
//! - another field of an object: `object`, and its value in `service` or `read`;
//! - which Services become forwards: `draft`;
//! - which targets are at fault: `fault`.

mod draft;
mod fault;
mod names;
mod object;
mod objects;
mod protocol;
mod read;
mod service;

pub use draft::{
    LeftOutReason, ServiceAccount, ServiceDraft, ServiceEndpoint, ServiceFate, SketchedForward,
    draft,
};
pub use fault::{TargetFault, WrongPorts};
pub use names::{KubeName, KubeNameError};
pub use objects::{KubeKind, KubeObjects};
pub use protocol::KubeProtocol;
pub use read::{KubeError, read};
pub use service::{AdmittedClients, KubePort, KubeService, ServiceType};

#[cfg(test)]
mod tests;
