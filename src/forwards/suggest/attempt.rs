//! A connection that may become a test.

use std::net::IpAddr;

use crate::forwards::forward::{Limits, Name, Snat};
use crate::forwards::outbound::OutboundProtocol;
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::net::{Family, Interface};

/// A connection whose end is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'s> {
    pub from: IpAddr,
    pub ingress: &'s Interface,
    pub to: TestDestination,
    pub protocol: OutboundProtocol,
}

impl Attempt<'_> {
    pub fn family(&self) -> Family {
        Family::of(self.from)
    }
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestEnd {
    Reaches { hosts: Vec<TestHost>, snat: Snat },
    Nothing,
}

/// The forward or outbound entry that a test is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'s> {
    pub name: &'s Name,
    pub limits: Option<&'s Limits>,
}
