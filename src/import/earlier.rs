//! Redirections that come before others, and have their packets first.

use super::account::RuleFate;
use super::addresses::Addresses;
use super::place::ImportedPlace;
use super::redirect::Redirect;
use crate::forwards::{Listen, Name};
use crate::net::{Interface, PortRange, Protocol};

/// A redirection that comes before others.
pub struct Earlier {
    pub places: Vec<ImportedPlace>,
    /// The forward that it became, if it became one.
    pub name: Option<Name>,
    pub listens: Vec<Listen>,
    pub protocols: Vec<Protocol>,
    pub ingress: Vec<Interface>,
    pub sources: Addresses,
}

/// A redirection whose packets an earlier one has.
pub struct HeldRedirect {
    pub fate: RuleFate,
    /// The earlier forward, if it has other clients of the same listener.
    pub others_of: Option<Name>,
}

impl HeldRedirect {
    fn not_said(why: String) -> Self {
        Self {
            fate: RuleFate::NotSaid(why),
            others_of: None,
        }
    }
}

impl Earlier {
    /// Takes the ports out of a later redirection that this one has. `ingress` are the interfaces of the later one.
    ///
    /// # Errors
    /// The fate of the later one, if a spec cannot say the rest or there is none.
    pub fn take_from(
        &self,
        one: &mut Redirect<'_>,
        ingress: &[Interface],
    ) -> Result<(), HeldRedirect> {
        let shared = one.protocols.iter();
        let shared = shared.filter(|protocol| self.protocols.contains(protocol));
        let shared = shared.count();
        let address = self.listens[0].address;
        let has_address = address.is_none() || address == one.listens[0].address;
        let ports: Vec<PortRange> = self.listens.iter().map(|one| one.ports).collect();
        let overlaps = |listen: &Listen| ports.iter().any(|port| port.overlaps(listen.ports));
        if shared == 0 || !has_address || !one.listens.iter().any(overlaps) {
            return Ok(());
        }
        let who = match &self.name {
            Some(name) => format!("`{name}`"),
            None => self.places[0].to_string(),
        };
        let arrivals = ingress.iter().filter(|one| self.ingress.contains(one));
        let arrivals = arrivals.count();
        if arrivals == 0 {
            return match self.name {
                Some(_) => Err(HeldRedirect::not_said(format!(
                    "{who} has this port by another interface; two forwards cannot share a port"
                ))),
                None => Ok(()),
            };
        }
        if !one.sources.are_within(&self.sources) {
            return Err(HeldRedirect {
                others_of: self.name.clone(),
                ..HeldRedirect::not_said(format!(
                    "{who} has this port for other clients; one listener has one target for all its clients"
                ))
            });
        }
        if shared < one.protocols.len() || arrivals < ingress.len() {
            return Err(HeldRedirect::not_said(format!(
                "{who} takes its packets first by one of its protocols or interfaces"
            )));
        }
        if one.leave_ports(&ports).is_none() {
            return Err(HeldRedirect::not_said(format!(
                "{who} takes a part of its shifted ports first"
            )));
        }
        if !one.listens.is_empty() {
            return Ok(());
        }
        Err(HeldRedirect {
            fate: match self.name {
                Some(_) => {
                    RuleFate::NotNeeded(format!("the rules of {who} take its packets first"))
                }
                None => RuleFate::LeftAlone(format!("{who} takes its packets first")),
            },
            others_of: None,
        })
    }
}
