//! The kernel's packet trace: the chains that switch it on, and the socket that receives it.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::error::CauseError;
use super::message::{self, Message, NftChain};
use crate::host::child;

/// The table of nvactl's trace chains, in the families `inet` and `netdev`.
pub const TABLE: &str = "nvactl-twin-trace";

/// nft adds and deletes a table in milliseconds.
const LIMIT: Duration = Duration::from_secs(30);
/// `1 << (NFNLGRP_NFTRACE - 1)`.
const GROUP: u32 = 1 << 8;
/// A priority after `NF_IP_PRI_CONNTRACK_DEFRAG` and before every table of iptables.
const WHOLE: i32 = -399;
/// A message takes about 1 kB of the buffer. A connection with 20 matching rules causes some hundred messages.
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
    /// The stages that have chains of the family `inet`.
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

/// The places of nvactl's chains in a stage, before and after all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    First,
    /// After fragments have been assembled.
    Whole,
    Last,
}

impl Edge {
    /// Returns the stage and the edge of a chain of [`TABLE`].
    #[must_use]
    pub fn of(chain: &NftChain) -> Option<(Stage, Self)> {
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

/// Prints the tables of the trace chains. Base chains without rules report their policy, with the packet as it is
/// there. Chains of interfaces are numbered, since an interface's name may hold any byte.
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

/// Prints the two chains of a stage. The first switches the trace on, in a stage in which packets begin.
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

/// Prints the commands that delete the tables, also those that an earlier watch left.
fn deletion() -> String {
    ["inet", "netdev"]
        .map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n"))
        .concat()
}

/// The packet trace of the calling thread's namespace, switched on.
#[derive(Debug)]
pub struct Tracer(OwnedFd);

impl Tracer {
    /// Switches the trace on. `interfaces`: the interfaces whose packets are seen before any other chain sees them.
    pub fn begin(interfaces: &[&str]) -> Result<Self, CauseError> {
        keep_out_of_log();
        let socket = listen().map_err(CauseError::Socket)?;
        nft(&(deletion() + &tables(interfaces)))?;
        Ok(Self(socket))
    }

    /// Switches the trace off. Returns its messages, and whether all of them arrived.
    pub fn end(self) -> Result<(Vec<Message>, bool), CauseError> {
        let read = self.read();
        nft(&deletion())?;
        read.map_err(CauseError::Socket)
    }

    /// Reads the messages that have arrived: the kernel sends a message before it lets the packet continue.
    fn read(&self) -> io::Result<(Vec<Message>, bool)> {
        let (mut messages, mut complete) = (Vec::new(), true);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::AGAIN) => return Ok((messages, complete)),
                Ok((len, _)) => messages.extend(message::messages(&buffer[..len])),
                Err(Errno::INTR) => {}
                // Some messages found the buffer full. Those in it can be read.
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
    // Without CAP_NET_ADMIN in the first user namespace, `net.core.rmem_max` is the limit.
    if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        set_socket_recv_buffer_size(&socket, BUFFER)?;
    }
    bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
    Ok(socket)
}

/// Removes the namespace's loggers. Legacy tables log each rule that a traced packet meets, and with
/// `nf_log_all_netns=1` the lines would go to the host's kernel log.
fn keep_out_of_log() {
    for protocol in [2, 10] {
        let _ = std::fs::write(format!("/proc/sys/net/netfilter/nf_log/{protocol}"), "NONE");
    }
}

fn nft(script: &str) -> Result<(), CauseError> {
    let output = child::read("nft", &["-f", "-"], script.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(());
    }
    Err(CauseError::Table(output.stderr))
}
