//! Trace messages of `nf_tables` as bytes (`NFT_MSG_TRACE` and `NFTA_TRACE_*` in
//! `linux/netfilter/nf_tables.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A message of the kernel about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id of a packet, the same at each hook. A packet that is sent again has the same id.
    pub id: u32,
    pub chain: NftChain,
    pub event: MessageKind,
    pub verdict: NftVerdict,
    /// Set only in the first message of a base chain.
    pub header: Option<Header>,
    pub iif: Option<u32>,
    pub oif: Option<u32>,
    pub mark: u32,
}

/// A chain as nft names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NftChain {
    /// `ip`, `ip6`, `inet`, `netdev`, `bridge` or `arp`.
    pub family: &'static str,
    pub table: String,
    pub name: String,
}

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A rule matched.
    Rule(u64),
    /// The packet reached the end of a chain.
    Return,
    /// The packet reached the end of a base chain.
    Policy,
}

/// A verdict of a rule or a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NftVerdict {
    Accept,
    Drop,
    Stolen,
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
    Other(i32),
}

/// The fragment header of IPv6 (RFC 8200, 4.5).
pub(super) const FRAGMENT: u8 = 44;

/// The addresses and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The number of the transport protocol.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP, 0 for both of an echo message of ICMP; `None` for a fragment.
    pub ports: Option<(u16, u16)>,
    pub is_fragment: bool,
}

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE`.
const TRACE: u16 = 0x0a11;
/// The lengths of `nlmsghdr`, `nfgenmsg` and `nlattr`.
const NETLINK: usize = 16;
const NETFILTER: usize = 4;
const ATTRIBUTE: usize = 4;

const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const NETWORK_HEADER: u16 = 8;
const TRANSPORT_HEADER: u16 = 9;
const IIF: u16 = 10;
const OIF: u16 = 12;
const MARK: u16 = 14;
const POLICY: u16 = 16;

const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Reads every trace message of a datagram. Other messages and unknown attributes are skipped.
#[must_use]
pub fn messages(mut datagram: &[u8]) -> Vec<Message> {
    let mut read = Vec::new();
    while let Some(len) = datagram.first_chunk().map(|len| u32::from_ne_bytes(*len)) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len < NETLINK || len > datagram.len() {
            break;
        }
        let message = &datagram[..len];
        if u16::from_ne_bytes([message[4], message[5]]) == TRACE {
            read.extend(message.get(NETLINK..).and_then(one));
        }
        datagram = datagram.get(aligned(len)..).unwrap_or_default();
    }
    read
}

fn one(message: &[u8]) -> Option<Message> {
    let family = match message.first()? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    };
    let attributes: Vec<_> = attributes(message.get(NETFILTER..)?).collect();
    let find = |kind: u16| attributes.iter().find(|one| one.0 == kind).map(|one| one.1);
    let number = |kind: u16| find(kind).and_then(be32);
    let event = match number(TYPE)? {
        1 => MessageKind::Policy,
        2 => MessageKind::Return,
        // Since Linux 5.17 the end of a chain is a message of this type as well: one about a rule without a handle.
        3 => match find(RULE_HANDLE).and_then(<[u8]>::first_chunk) {
            Some(handle) => MessageKind::Rule(u64::from_be_bytes(*handle)),
            None => MessageKind::Return,
        },
        _ => return None,
    };
    let verdict = match event {
        MessageKind::Policy => number(POLICY).map(|code| of_code(code.cast_signed(), None)),
        MessageKind::Rule(_) | MessageKind::Return => find(VERDICT).and_then(verdict),
    };
    let header = find(NETWORK_HEADER)
        .and_then(|network| header(network, find(TRANSPORT_HEADER).unwrap_or_default()));
    Some(Message {
        id: number(ID)?,
        chain: NftChain {
            family,
            table: text(find(TABLE)?),
            name: text(find(CHAIN)?),
        },
        event,
        verdict: verdict.unwrap_or(NftVerdict::Continue),
        header,
        iif: number(IIF),
        oif: number(OIF),
        mark: number(MARK).unwrap_or_default(),
    })
}

/// Returns the attributes of a message by kind, without the bits for nesting and byte order.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1] = bytes.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(ATTRIBUTE..len)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

fn verdict(nested: &[u8]) -> Option<NftVerdict> {
    let (mut code, mut chain) = (None, None);
    for (kind, value) in attributes(nested) {
        match kind {
            VERDICT_CODE => code = be32(value),
            VERDICT_CHAIN => chain = Some(text(value)),
            _ => {}
        }
    }
    Some(of_code(code?.cast_signed(), chain))
}

/// Names a verdict by its code (`NF_*` in `linux/netfilter.h`, `NFT_*`). The bits above the low byte are the number
/// of a queue, or the error of a drop.
fn of_code(code: i32, chain: Option<String>) -> NftVerdict {
    match (code, chain) {
        (-1, _) => NftVerdict::Continue,
        (-3, Some(chain)) => NftVerdict::Jump(chain),
        (-4, Some(chain)) => NftVerdict::Goto(chain),
        (-5, _) => NftVerdict::Return,
        (code, _) => match code & 0xff {
            0 => NftVerdict::Drop,
            1 => NftVerdict::Accept,
            2 => NftVerdict::Stolen,
            3 => NftVerdict::Queue,
            _ => NftVerdict::Other(code),
        },
    }
}

fn header(network: &[u8], transport: &[u8]) -> Option<Header> {
    let is_fragment;
    let (source, destination, protocol) = match network.first()? >> 4 {
        4 => {
            let address = |at: usize| {
                let bytes: [u8; 4] = network.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(bytes)))
            };
            // In a whole packet all of these bits but "don't fragment" are 0.
            is_fragment = network.get(6..8)? != [0, 0] && network.get(6..8)? != [0x40, 0];
            (address(12)?, address(16)?, *network.get(9)?)
        }
        6 => {
            let address = |at: usize| {
                let bytes: [u8; 16] = network.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(bytes)))
            };
            is_fragment = *network.get(6)? == FRAGMENT;
            (address(8)?, address(24)?, *network.get(6)?)
        }
        _ => return None,
    };
    let ports = match (protocol, transport.first_chunk()) {
        (6 | 17, Some(&[s0, s1, d0, d1])) if !is_fragment => {
            Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        // The types of echo request and answer (RFC 792, RFC 4443).
        (1, Some(&[0 | 8, ..])) | (58, Some(&[128 | 129, ..])) if !is_fragment => Some((0, 0)),
        _ => None,
    };
    Some(Header {
        source,
        destination,
        protocol,
        ports,
        is_fragment,
    })
}

fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// Netlink messages and attributes begin at multiples of four.
fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four messages of Linux 6.18 about one SYN: the end of a chain without rules, its policy, a jump from FORWARD,
    /// and a drop.
    const RECORDED: [&str; 4] = [
        "d8000000110a000000000000000000000100000008000f00000000020800040000000003080006006b4c9957\
         14000200707265726f7574696e672d6c61737400160001006e766163746c2d7477696e2d7472616365000000\
         0c00050008000100ffffffff08000a000000000206000b0000010000180008004500003c1cfc4000400609ba\
         0a0100020a02000218000900b9e400506a5337f600000000a002faf014350000120007005aa60523c959460b\
         da665aa1080000000800150000000008050013000000000008001200eed4c7b70800140000000120",
        "60000000110a000000000000000000000100000008000f00000000020800040000000001080006006b4c9957\
         14000200707265726f7574696e672d6c61737400160001006e766163746c2d7477696e2d7472616365000000\
         0800100000000001",
        "e8000000110a000000000000000000000200000008000f00000000020800040000000003080006006b4c9957\
         0c000200464f5257415244000b00010066696c74657200000c000300000000000000000b1400050008000100\
         fffffffd060002005800000008000a000000000206000b000001000008000c000000000306000d0000010000\
         180008004500003c1cfc40003f060aba0a0100020a02000218000900b9e400506a5337f600000000a002faf0\
         14350000120007005aa60523c959460bda665aa1080000000800150000000008050013000000000008001200\
         eed4c7b70800140000000120",
        "58000000110a000000000000000000000200000008000f00000000020800040000000003080006006b4c9957\
         06000200580000000b00010066696c74657200000c000300000000000000000c0c0005000800010000000000",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hexadecimal");
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn recorded_messages_are_read() {
        let datagram: Vec<u8> = RECORDED.iter().flat_map(|hex| bytes(hex)).collect();
        let read = messages(&datagram);
        let header = |destination: &str, port| Header {
            source: IpAddr::from([10, 1, 0, 2]),
            destination: destination.parse().expect("an address"),
            protocol: 6,
            ports: Some((47588, port)),
            is_fragment: false,
        };
        let short: Vec<_> = read
            .iter()
            .map(|one| {
                let chain = format!(
                    "{} {} {}",
                    one.chain.family, one.chain.table, one.chain.name
                );
                (chain, one.event, one.verdict.clone(), one.header)
            })
            .collect();
        let own = "inet nvactl-twin-trace prerouting-last".to_owned();
        assert_eq!(
            short,
            [
                (
                    own.clone(),
                    MessageKind::Return,
                    NftVerdict::Continue,
                    Some(header("10.2.0.2", 80))
                ),
                (own, MessageKind::Policy, NftVerdict::Accept, None),
                (
                    "ip filter FORWARD".to_owned(),
                    MessageKind::Rule(11),
                    NftVerdict::Jump("X".to_owned()),
                    Some(header("10.2.0.2", 80))
                ),
                (
                    "ip filter X".to_owned(),
                    MessageKind::Rule(12),
                    NftVerdict::Drop,
                    None
                ),
            ]
        );
        assert!(read.iter().all(|one| one.id == read[0].id && one.mark == 0));
        assert_eq!((read[2].iif, read[2].oif), (Some(2), Some(3)));
    }

    #[test]
    fn a_message_that_is_cut_or_of_another_kind_is_skipped() {
        let whole = bytes(RECORDED[2]);
        for len in 0..whole.len() {
            assert_eq!(messages(&whole[..len]), [], "{len} bytes");
        }
        let mut other = whole.clone();
        other[4] = 0x10;
        assert_eq!(messages(&[other, whole].concat()).len(), 1);
    }
}
