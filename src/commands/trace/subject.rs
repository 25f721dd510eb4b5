//! The machine through which a connection is traced.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::commands::console::Console;
use crate::commands::copy_source::{Asked, CopySource};
use crate::commands::error::{Error, Result};
use crate::commands::host::HostAccess;
use crate::commands::spec::{examine, spec_of, with_networks};
use crate::commands::trace::error::TraceError;
use crate::forwards::{ForwardSet, OutboundProtocol};
use crate::host;
use crate::host::spec_source::{self, SpecSource};
use crate::host::user_namespace::{UserNamespaceError, enter_own_namespaces};
use crate::net::{Family, Interface, Port};
use crate::netfilter::text::parse;

/// The name of this machine as a subject.
const LIVE: &str = "live";

/// The machine through which a connection goes.
pub enum TraceSubject {
    Live,
    Spec {
        name: String,
        set: ForwardSet,
    },
    /// A text of iptables-save.
    Rules {
        name: String,
        text: Vec<u8>,
    },
}

impl TraceSubject {
    /// Reads the subject that the user has named, or the default spec.
    pub fn read(named: Option<&Path>, console: &mut Console) -> Result<Self> {
        if named == Some(Path::new(LIVE)) {
            host::require_root("trace live")?;
            return Ok(Self::Live);
        }
        let source = spec_source::read(named)?;
        if let Some((name, text)) = saved(&source) {
            return Ok(Self::Rules { name, text });
        }
        if let Some(name) = commands(&source) {
            let error = TraceError::Commands {
                name: name.to_owned(),
            };
            return Err(error.into());
        }
        let source = with_networks(source);
        let set = spec_of(&source, examine(&source), console)?;
        let name = source.name.clone();
        Ok(Self::Spec { name, set })
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    /// Returns the warning that the spec does not name an interface; `None` for a subject that is no spec.
    pub fn unnamed(&self, interface: &Interface) -> Option<String> {
        let Self::Spec { set, name } = self else {
            return None;
        };
        let known = set.interfaces();
        let is_unnamed = !known.contains(&interface);
        let known: Vec<String> = known.iter().map(|one| format!("--in {one}")).collect();
        is_unnamed.then(|| {
            format!(
                "`{name}` names no interface `{interface}`, so one was made up\nhint: the spec has: {}",
                known.join(", ")
            )
        })
    }

    /// Returns the name of the file of which the machine is made up.
    pub fn name(&self) -> &str {
        match self {
            Self::Live => LIVE,
            Self::Spec { name, .. } | Self::Rules { name, .. } => name,
        }
    }

    /// Moves the process into namespaces of its own if a machine that is made up needs them. No thread exists yet.
    pub fn enter_namespaces(&self) -> Result<(), UserNamespaceError> {
        match self {
            Self::Live => Ok(()),
            Self::Spec { .. } | Self::Rules { .. } => enter_own_namespaces(),
        }
    }

    /// Returns the machine with its rules. The calling thread is in the machine's network namespace.
    ///
    /// `to`: the address that the client connects to, `None` for the machine itself. `side`: a network and its interface,
    /// if the user has named one.
    pub fn copied(
        &self,
        (client, to): (IpAddr, Option<IpAddr>),
        side: Option<(IpNet, Interface)>,
        on: HostAccess<'_>,
    ) -> Result<CopySource> {
        let sides: Vec<(IpNet, Interface)> = side.into_iter().collect();
        match self {
            Self::Live => Ok(CopySource::live()?),
            Self::Spec { set, .. } => {
                let asked = Asked {
                    families: BTreeSet::from([Family::of(client)]),
                    destinations: to.into_iter().collect(),
                    sides: &sides,
                    ..Asked::default()
                };
                CopySource::of_spec(set, &asked, on.backend)
            }
            Self::Rules { name, text } => {
                let copied =
                    CopySource::of_rules(text, (Family::of(client), to), &sides, on.backend);
                copied.map_err(|error| match error {
                    Error::Trace(_) => error,
                    error => Error::RulesFile {
                        file: name.clone(),
                        source: Box::new(error),
                    },
                })
            }
        }
    }

    /// Returns the ports that a connection may reach.
    pub fn likely(&self, protocol: OutboundProtocol, to: IpAddr, port: Option<Port>) -> Vec<Port> {
        let mut ports: Vec<Port> = port.into_iter().collect();
        if let (Self::Spec { set, .. }, Some(port)) = (self, port) {
            let led = set
                .forwards
                .iter()
                .filter(|forward| forward.listens(protocol.transport(), Family::of(to), port));
            for forward in led {
                let targets = forward.target.destinations.iter();
                ports.extend(targets.map(|to| forward.port_at(to, port)));
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// Returns the name and the text of a file if it is iptables-save text.
fn saved(source: &SpecSource) -> Option<(String, Vec<u8>)> {
    let mut texts = source.texts();
    let (name, text) = texts.next().filter(|_| texts.next().is_none())?;
    let is_saved = !text.is_empty() && parse::is_saved(&parse::text_of(text));
    is_saved.then(|| (name.to_owned(), text.to_vec()))
}

/// Returns the name of a file if its first line is a command of iptables.
fn commands(source: &SpecSource) -> Option<&str> {
    let (name, text) = source.texts().next()?;
    let text = parse::text_of(text);
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let mut words = first.split_ascii_whitespace();
    let program = words.find(|word| *word != "sudo")?;
    let program = program.rsplit('/').next().unwrap_or(program);
    ["iptables", "ip6tables"].contains(&program).then_some(name)
}
