//! The kernel's trace of packets: the chains that ask for it, and the socket that it comes by.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::error::CauseError;
use super::message::{self, Chain, Message};
use crate::host::child;

/// The table of nvactl's trace chains, of the families `inet` and `netdev`.
pub const TABLE: &str = "nvactl-twin-trace";

/// nft adds and deletes a table in milliseconds.
const LIMIT: Duration = Duration::from_secs(30);
/// `1 << (NFNLGRP_NFTRACE - 1)`.
const GROUP: u32 = 1 << 8;
/// Behind `NF_IP_PRI_CONNTRACK_DEFRAG`, before every table of iptables.
const WHOLE: i32 = -399;
/// A message takes about 1 kB of it; a connection with 20 matching rules causes some hundred messages.
const BUFFER: usize = 64 << 20;

/// A point in the kernel at which chains see packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

impl Stage {
    /// The stages at which `inet` chains stand.
    const INET: [Stage; 5] = [
        Stage::Prerouting,
        Stage::Input,
        Stage::Forward,
        Stage::Output,
        Stage::Postrouting,
    ];

    /// Returns the name of the hook in nft.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Ingress => "ingress",
            Stage::Prerouting => "prerouting",
            Stage::Input => "input",
            Stage::Forward => "forward",
            Stage::Output => "output",
            Stage::Postrouting => "postrouting",
            Stage::Egress => "egress",
        }
    }

    fn of(name: &str) -> Option<Self> {
        let mut all = Self::INET.into_iter().chain([Stage::Ingress]);
        all.find(|stage| stage.as_str() == name)
    }
}

/// The places of nvactl's chains in a stage: before and behind all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    First,
    /// Behind the assembly of fragments.
    Whole,
    Last,
}

impl Edge {
    /// Returns the edge that a chain of [`TABLE`] stands at.
    #[must_use]
    pub fn of(chain: &Chain) -> Option<(Stage, Self)> {
        if chain.table != TABLE {
            return None;
        }
        let (stage, rest) = chain.name.split_once('-')?;
        let edge = match rest {
            "whole" => Edge::Whole,
            rest if rest.starts_with("first") => Edge::First,
            _ => Edge::Last,
        };
        Some((Stage::of(stage)?, edge))
    }
}

/// Prints the tables of the trace chains. Base chains without rules report their policy, and with it the
/// packet as it is at that point. Chains of interfaces are numbered: an interface's name may hold any byte.
fn tables(interfaces: &[&str]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for stage in Stage::INET {
        chains(&mut text, stage, "", "");
    }
    let _ = writeln!(
        text,
        "chain prerouting-whole {{ type filter hook prerouting priority {WHOLE}; }}"
    );
    text.push_str("}\n");
    if !interfaces.is_empty() {
        let _ = writeln!(text, "table netdev {TABLE} {{");
        for (n, interface) in interfaces.iter().enumerate() {
            let device = format!(" device \"{interface}\"");
            chains(&mut text, Stage::Ingress, &format!("-{n}"), &device);
        }
        text.push_str("}\n");
    }
    text
}

/// Prints the two chains of a stage. The first asks for the trace at the stages that packets begin with.
fn chains(text: &mut String, stage: Stage, suffix: &str, device: &str) {
    let hook = stage.as_str();
    let begins = matches!(stage, Stage::Ingress | Stage::Prerouting | Stage::Output);
    let rule = if begins { "meta nftrace set 1; " } else { "" };
    for (edge, priority, rule) in [("first", i32::MIN, rule), ("last", i32::MAX, "")] {
        let _ = writeln!(
            text,
            "chain {hook}-{edge}{suffix} {{ type filter hook {hook}{device} priority {priority}; {rule}}}"
        );
    }
}

/// Deletes the tables, also those that an earlier watch has left.
fn deletion() -> String {
    ["inet", "netdev"]
        .map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n"))
        .concat()
}

/// The trace of the calling thread's namespace, switched on.
#[derive(Debug)]
pub struct Tracer(OwnedFd);

impl Tracer {
    /// Switches the trace on. `interfaces`: those at which packets are seen before any other chain does.
    pub fn begin(interfaces: &[&str]) -> Result<Self, CauseError> {
        keep_out_of_log();
        let socket = listen().map_err(CauseError::Socket)?;
        nft(&(deletion() + &tables(interfaces)))?;
        Ok(Self(socket))
    }

    /// Switches the trace off and returns the messages since the beginning, and whether all have come.
    pub fn end(self) -> Result<(Vec<Message>, bool), CauseError> {
        let read = self.read();
        nft(&deletion())?;
        read.map_err(CauseError::Socket)
    }

    /// Reads what has come: the kernel sends a message before it lets the packet go on.
    fn read(&self) -> io::Result<(Vec<Message>, bool)> {
        let (mut messages, mut complete) = (Vec::new(), true);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::AGAIN) => return Ok((messages, complete)),
                Ok((len, _)) => messages.extend(message::messages(&buffer[..len])),
                Err(Errno::INTR) => {}
                // The buffer was full for some messages; those that are in it can be read.
                Err(Errno::NOBUFS) => complete = false,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(NETFILTER),
    )?;
    // Without CAP_NET_ADMIN in the first user namespace `net.core.rmem_max` is the limit.
    if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        set_socket_recv_buffer_size(&socket, BUFFER)?;
    }
    bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
    Ok(socket)
}

/// Takes the namespace's loggers away: legacy tables write a line for each rule that a traced packet
/// meets, and with `nf_log_all_netns=1` the host's kernel log would get it.
fn keep_out_of_log() {
    for protocol in [2, 10] {
        let _ = std::fs::write(format!("/proc/sys/net/netfilter/nf_log/{protocol}"), "NONE");
    }
}

fn nft(script: &str) -> Result<(), CauseError> {
    let output = child::run("nft", &["-f", "-"], script.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(());
    }
    Err(CauseError::Table(output.stderr))
}
