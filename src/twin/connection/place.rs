//! The place of a client in a twin, and the machine's address on the client's side.

use std::collections::BTreeMap;
use std::net::IpAddr;

use thiserror::Error;

use crate::host::network::{self, Packet};
use crate::net::{Family, Interface};
use crate::twin::Twin;
use crate::twin::talk::From;

/// The reason why a client has no place, or no address of the machine to connect to.
#[derive(Debug, Error)]
pub enum PlaceError {
    #[error("no interface leads to the client {client}")]
    NoSide { client: IpAddr, known: Vec<String> },
    #[error("there is no interface `{name}` that carries packets")]
    NoInterface { name: String, known: Vec<String> },
    #[error("`{interface}` has no {family} address that the client could connect to")]
    NoAddress { interface: String, family: Family },
}

/// The interfaces by which the twin's machine would answer clients.
#[derive(Debug)]
pub struct ClientSides<'t> {
    twin: &'t Twin,
    routed: BTreeMap<IpAddr, String>,
}

impl<'t> ClientSides<'t> {
    /// Asks the twin for the routes to some clients. The calling thread is in the twin's machine namespace.
    #[must_use]
    pub fn of(twin: &'t Twin, clients: impl IntoIterator<Item = IpAddr>) -> Self {
        let to = |to: IpAddr| Packet { to, came: None };
        let routed = network::interfaces(&clients.into_iter().map(to).collect());
        let routed = routed.into_iter();
        Self {
            twin,
            routed: routed.map(|(packet, by)| (packet.to, by)).collect(),
        }
    }

    /// Returns the place of a client: the world behind `ingress`, or else behind the interface by which the machine would
    /// answer; the machine itself if the address is its own.
    ///
    /// # Errors
    /// If no interface that carries packets leads there.
    pub fn place(&self, client: IpAddr, ingress: Option<&Interface>) -> Result<From, PlaceError> {
        let worlds = self.twin.worlds();
        let world = |name: &str| {
            let number = worlds.iter().position(|world| world.interface == name);
            number.map(From::World)
        };
        let known = || worlds.iter().map(|world| world.interface.clone()).collect();
        if let Some(ingress) = ingress {
            return world(ingress.as_str()).ok_or_else(|| PlaceError::NoInterface {
                name: ingress.to_string(),
                known: known(),
            });
        }
        if self.twin.machine().addresses().contains(&client) {
            return Ok(From::Machine);
        }
        let by = self.routed.get(&client).and_then(|name| world(name));
        by.ok_or_else(|| PlaceError::NoSide {
            client,
            known: known(),
        })
    }
}

/// Returns the machine's address on the side of a client.
///
/// # Errors
/// If the interface has none of the client's family.
pub fn own_address(twin: &Twin, client: IpAddr, from: From) -> Result<IpAddr, PlaceError> {
    let From::World(number) = from else {
        return Ok(client);
    };
    let (interface, family) = (&twin.worlds()[number].interface, Family::of(client));
    let link = twin.machine().link(interface);
    let own = link.and_then(|link| link.first(family));
    own.ok_or_else(|| PlaceError::NoAddress {
        interface: interface.clone(),
        family,
    })
}
