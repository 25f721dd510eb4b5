//! Prints a rule like iptables-save.

use std::fmt;

use super::matches::{after, write_words};
use crate::net::Host;
use crate::netfilter::mark::{BitShift, Mark, MarkCopy};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DEFAULT_LEVEL, DnatPorts, Mss, RejectWith, Target};
use crate::netfilter::token::Quoted;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for condition in &self.matches {
            f.write_str(space)?;
            condition.fmt(f)?;
            space = " ";
        }
        match &self.target {
            Some(target) => after(f, space, target),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Goto(chain) => write!(f, "-g {chain}"),
            Target::Dnat { address, ports } => {
                f.write_str("-j DNAT --to-destination ")?;
                match ports {
                    DnatPorts::Kept => address.fmt(f),
                    ports => {
                        Host(*address).fmt(f)?;
                        ports.fmt(f)
                    }
                }
            }
            Target::Snat {
                addresses,
                persistent,
            } => {
                after(f, "-j SNAT --to-source ", addresses)?;
                f.write_str(if *persistent { " --persistent" } else { "" })
            }
            Target::Log { prefix, level } => {
                after(f, "-j LOG --log-prefix ", Quoted(prefix))?;
                match *level {
                    DEFAULT_LEVEL => Ok(()),
                    level => write!(f, " --log-level {level}"),
                }
            }
            Target::Reject(with) => {
                let (_, word) = RejectWith::ALL[*with as usize];
                write!(f, "-j REJECT --reject-with {word}")
            }
            Target::SetMark(mark) => write!(f, "-j MARK --set-xmark {mark}"),
            Target::SetConnmark(mark) => write!(f, "-j CONNMARK --set-xmark {mark}"),
            Target::SetShiftedConnmark { mark, shift } => {
                write!(f, "-j CONNMARK --set-xmark {mark} {shift}")
            }
            Target::SaveMark(copy) => write!(f, "-j CONNMARK --save-mark {copy}"),
            Target::RestoreMark(copy) => write!(f, "-j CONNMARK --restore-mark {copy}"),
            Target::TcpMss(Mss::Clamp) => f.write_str("-j TCPMSS --clamp-mss-to-pmtu"),
            Target::TcpMss(Mss::Bytes(bytes)) => write!(f, "-j TCPMSS --set-mss {bytes}"),
            Target::Other(words) => {
                f.write_str("-j ")?;
                write_words(f, words)
            }
            Target::Unread(text) => f.write_str(text),
            simple => after(f, "-j ", simple.name()),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl fmt::Display for MarkCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packet_bits,
            connection_bits,
            shift,
        } = self;
        write!(f, "--nfmask {packet_bits:#x} --ctmask {connection_bits:#x}")?;
        match shift {
            Some(shift) => after(f, " ", shift),
            None => Ok(()),
        }
    }
}

impl fmt::Display for BitShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BitShift::Left(by) => after(f, "--left-shift-mark ", by),
            BitShift::Right(by) => after(f, "--right-shift-mark ", by),
        }
    }
}

impl fmt::Display for DnatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnatPorts::Kept => Ok(()),
            DnatPorts::One(port) => after(f, ":", port),
            DnatPorts::Shifted { to, base } => write!(f, ":{to}/{base}"),
        }
    }
}
