//! Regular expressions of values, in the part of ECMA 262 that all validators share: no look-around, no classes by
//! name.
//!
//! IPv4 is exact. IPv6 is any text of hexadecimal digits with two colons: an exact expression is a page long.

const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// The first octet of a host: not 0 and 127, and below 224.
const HOST_OCTET: &str = "(22[0-3]|2[01][0-9]|1[013-9][0-9]|12[0-689]|[1-9][0-9]?)";
const V6: &str = "[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*";
const PORT: &str =
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const NETWORK_NAME: &str = "[A-Za-z][A-Za-z0-9_.-]{0,62}";
/// A character of a line of words: none that is shown as an escape.
const SHOWN: &str = r"[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]";

/// The lengths of prefixes that a network may have.
#[derive(Debug, Clone, Copy)]
pub enum Prefixes {
    All,
    /// Not the network of every address.
    NotZero,
}

fn host_v4() -> String {
    format!(r"{HOST_OCTET}(\.{OCTET}){{3}}")
}

/// Matches an address in front of a port.
fn host() -> String {
    format!(r"({}|\[{V6}\])", host_v4())
}

fn ports() -> String {
    format!("{PORT}(-{PORT})?")
}

fn whole(pattern: &str) -> String {
    format!("^({pattern})$")
}

/// Matches `PORT` or `PORT-PORT`.
pub fn port_or_range() -> String {
    whole(&ports())
}

/// Matches `PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`.
pub fn listener() -> String {
    whole(&format!("({}:)?{}", host(), ports()))
}

/// Matches `IP`, `IP:PORT` or `IP:PORT-PORT`.
pub fn target() -> String {
    whole(&format!("{}(:{})?", host(), ports()))
}

/// Matches `IP:PORT` or `IP:PORT-PORT`.
pub fn target_with_port() -> String {
    whole(&format!("{}:{}", host(), ports()))
}

/// Matches an address or a range of them, `masquerade` or `none`.
pub fn snat() -> String {
    whole(&format!(
        "masquerade|none|{0}(-{0})?|{V6}(-{V6})?",
        host_v4()
    ))
}

/// Matches as [`snat`] does, with addresses of IPv4 only.
pub fn snat_v4() -> String {
    whole(&format!("masquerade|none|{0}(-{0})?", host_v4()))
}

/// Matches as [`snat`] does, with addresses of IPv6 only.
pub fn snat_v6() -> String {
    whole(&format!("masquerade|none|{V6}(-{V6})?"))
}

fn bare_network(prefixes: Prefixes) -> String {
    let (v4, v6) = match prefixes {
        Prefixes::All => ("3[0-2]|[12]?[0-9]", "12[0-8]|1[01][0-9]|[1-9]?[0-9]"),
        Prefixes::NotZero => ("3[0-2]|[12][0-9]|[1-9]", "12[0-8]|1[01][0-9]|[1-9][0-9]?"),
    };
    format!(r"{OCTET}(\.{OCTET}){{3}}(/({v4}))?|{V6}(/({v6}))?")
}

/// Matches a network, or an address alone.
pub fn network() -> String {
    whole(&bare_network(Prefixes::All))
}

/// Matches a network or the name of networks.
pub fn network_or_name(prefixes: Prefixes) -> String {
    whole(&format!("{}|{NETWORK_NAME}", bare_network(prefixes)))
}

/// Matches a name under `networks`.
pub fn network_name() -> String {
    whole(NETWORK_NAME)
}

/// Matches the name of a forward or an outbound entry.
pub fn name() -> String {
    whole("[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
}

/// Matches the name of an interface, shorter than `IFNAMSIZ`. `.` and `..` are none.
pub fn interface() -> String {
    whole(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}|\.[A-Za-z0-9_-][A-Za-z0-9_.-]{0,13}|\.\.[A-Za-z0-9_.-]{1,13}",
    )
}

/// Matches a path that does not leave the spec's folder: no component is `..`, and no slash is at the beginning.
pub fn path_inside() -> String {
    let component = r"(\.|\.?[^/.][^/]*|\.\.[^/]+)";
    whole(&format!("({component}/+)*{component}"))
}

/// Matches one line of words. A block scalar ends with a line end.
pub fn line(most: usize) -> String {
    format!(r"^{SHOWN}{{1,{most}}}\s*$")
}

/// Matches the beginning of a line of the kernel's log.
pub fn log_prefix(most: usize) -> String {
    whole(&format!("[ -~]{{1,{most}}}"))
}

/// Matches the client of a test: an address, or the name of networks.
pub fn client() -> String {
    whole(&format!("{}|{V6}|{NETWORK_NAME}", host_v4()))
}

/// Matches the destination of a test by TCP or UDP.
pub fn test_destination() -> String {
    whole(&format!("({}:)?{PORT}", host()))
}

/// Matches the destination of a ping.
pub fn ping_destination() -> String {
    whole(&format!("{}|{V6}", host()))
}

/// Matches `nothing`, or hosts with a port.
pub fn reached() -> String {
    hosts(&format!("{}:{PORT}", host()))
}

/// Matches `nothing`, or hosts without a port.
pub fn pinged() -> String {
    hosts(&format!("({}|{V6})", host()))
}

fn hosts(host: &str) -> String {
    whole(&format!(r"nothing|\s*{host}\s*(\|\s*{host}\s*)*"))
}
