//! Every problem of a spec: severity, code, meaning, example, text and hint.
//!
//! A new problem is an entry here, and a case `tests/cases/problem-CODE` whose spec has the
//! example. Codes stay for good: `silence`, `--deny` and JSON name them. The text says what is wrong
//! and why, the hint is the edit that fixes it; the report shows the place. Hints that depend on a
//! value are chosen in `hint`. The table of `docs/spec.md` is compared with this one by a test.

use std::net::IpAddr;

use ipnet::IpNet;

use super::entry::{ProblemRow, Severity, Span, Words, problems};
use super::hint::{self, TargetEdit, did_you_mean, one_of};
use crate::forwards::{Firewall, LineError, Log, NameError, TestName};
use crate::kubernetes::{KubeName, WrongPorts};
use crate::net::{Family, Host, InterfaceError, Port, PortError, PortRange, Protocol};
use crate::yaml::bounds::MAX_VALUES;

problems! {
    // The text.
    "not-utf8": Error, NotUtf8 {
        meaning: "bytes that are not UTF-8 text",
        example: "a name that was saved as Latin-1",
        NotUtf8 => {
            text: ("the file is not UTF-8 text"),
            hint: ("save the file as UTF-8"),
        }
    }
    "control-character": Error, ControlCharacter {
        meaning: "a character that YAML forbids",
        example: "a NUL byte",
        ControlCharacter { found: char } => {
            text: ("YAML forbids the control character {found:?}"),
            hint: ("remove the character"),
        }
    }
    "syntax": Error, Syntax {
        meaning: "text that is not YAML",
        example: "a line that is indented with a tab",
        Syntax { reason: String } => {
            text: ("not YAML: {reason}"),
            hint: ("{}", hint::syntax(reason)),
        }
    }
    "too-many-values": Error, TooManyValues {
        meaning: "more values than any spec needs",
        example: "200,000 forwards",
        TooManyValues => {
            text: ("the spec has more than {MAX_VALUES} values"),
            hint: ("join forwards of neighbouring ports into one with a range, as `listen: 5000-5010`"),
        }
        TooManyListed => {
            text: ("with the networks of the names in this list, the spec has more than {MAX_VALUES} values"),
            hint: ("write the same list for several forwards, or write it into `defaults`: equal lists count once"),
        }
    }
    "empty": Error, Empty {
        meaning: "a file without content",
        example: "a file of comments alone",
        Empty => {
            text: ("the file has no keys"),
            hint: ("begin with, for example, `firewall: {{interface: eth0, snat: 10.3.0.4}}` and `forwards: []`"),
        }
        EmptyInFolder => {
            text: ("the file has no keys"),
            hint: ("write `forwards: []` into the file, or delete it"),
        }
        EmptyTestFile => {
            text: ("the file has no keys"),
            hint: ("begin with, for example, `tests: {}`", hint::value("tests")),
        }
        EmptyNetworkFile => {
            text: ("the file has no network"),
            hint: ("write one network a line, as `198.51.100.0/24`"),
        }
    }
    "several-documents": Error, SeveralDocuments {
        meaning: "more than one YAML document",
        example: "`---` between two specs",
        SeveralDocuments => {
            text: ("a second YAML document begins here, but a spec is one document"),
            hint: ("remove the `---`, or move the second document to a file of its own"),
        }
    }
    "alias": Error, Alias {
        meaning: "a YAML anchor or alias",
        example: "`target: &t {pod: 10.224.0.118:80}`",
        Alias => {
            text: ("YAML anchors and aliases are not supported"),
            hint: ("remove the `&NAME`, and write the value in full in place of each `*NAME`"),
        }
    }
    "tag": Error, Tag {
        meaning: "a YAML tag",
        example: "`listen: !!int 80`",
        Tag => {
            text: ("YAML tags are not supported"),
            hint: ("remove the tag: the key decides the type of its value"),
        }
    }

    // Keys, and the form of their values.
    "duplicate-key": Error, DuplicateKey {
        meaning: "a key twice in one place",
        example: "`listen: 80` and `listen: 81` in one forward",
        DuplicateKey { key: String, first: Span } => {
            text: ("the key `{key}` is repeated"),
            hint: ("keep one `{key}`"),
            other: (first, "the first one"),
        }
        SecondInFolder { key: &'static str, first: Span } => {
            text: ("another file already has `{key}`"),
            hint: ("keep one `{key}`: it applies to every file of the folder"),
            other: (first, "the first one"),
        }
    }
    "unknown-key": Error, UnknownKey {
        meaning: "a key that has no meaning there",
        example: "`lisen: 80`",
        UnknownKey { key: String, place: &'static str, known: &'static [&'static str] } => {
            text: ("unknown key `{key}` in {place}"),
            hint: ("{}", did_you_mean(key, known)),
        }
    }
    "missing-key": Error, MissingKey {
        meaning: "no such key in a place that needs it",
        example: "a forward that has only `name` and `target`",
        MissingKey { key: &'static str, place: &'static str } => {
            text: ("{place} has no `{key}`"),
            hint: ("add, for example, {}", hint::missing(key, place)),
        }
        NoOutboundEgress { ingress: Vec<String> } => {
            text: ("the firewall has several ingress interfaces, so this entry must say by which one its packets leave"),
            hint: ("add the one with the route to the destinations: {}", hint::egresses(ingress)),
        }
    }
    "wrong-type": Error, WrongType {
        meaning: "a list for a value, a value for a list, or nothing",
        example: "`name: [web]`",
        WrongType { key: &'static str, expected: &'static str, found: &'static str } => {
            text: ("{} must be {expected}, but is {found}", hint::place(key)),
            hint: ("{}", hint::wrong_type(key)),
        }
        WrongItem { key: &'static str, expected: &'static str, found: &'static str } => {
            text: ("an entry of `{key}` must be {expected}, but is {found}"),
            hint: ("{}", hint::wrong_type(key)),
        }
    }
    "unknown-word": Error, UnknownWord {
        meaning: "a word that the key does not take",
        example: "`protocol: tpc`",
        UnknownWord { text: String, known: &'static [&'static str] } => {
            text: ("`{text}` is not one of {}", one_of(known)),
            hint: ("{}", did_you_mean(text, known)),
        }
    }
    "unknown-code": Error, UnknownCode {
        meaning: "a code that `silence` cannot take there",
        example: "`silence: [takes-ssh]` at the top of the spec",
        UnknownCode { text: String, near: Option<&'static str> } => {
            text: ("`{text}` is not the code of a warning or note"),
            hint: ("{}", hint::code(*near)),
        }
        SilencedError { code: &'static str } => {
            text: ("`{code}` is an error, and errors cannot be silenced"),
            hint: ("remove `{code}` here, and fix the error"),
        }
        SshForAll => {
            text: ("`takes-ssh` can be silenced by a forward, but not for the whole spec"),
            hint: ("move `silence: [takes-ssh]` to the forward that listens on port 22"),
        }
    }
    "unknown-version": Error, UnknownVersion {
        meaning: "a version other than 1",
        example: "`version: 2`",
        UnknownVersion { text: String } => {
            text: ("this nvactl does not know version `{text}` of the spec"),
            hint: ("write `version: 1`, or remove the key"),
        }
    }

    // Single values.
    "invalid-name": Error, InvalidName {
        meaning: "a name with a character that a name cannot have",
        example: "`name: \"web; reboot\"`",
        InvalidName { error: NameError } => {
            text: ("{error}"),
            hint: ("write `{}`", hint::usable_name(error)),
        }
        InvalidNetworkName { name: String } => {
            text: ("`{name}` cannot name networks: such a name is 1 to 63 of A-Z a-z 0-9 _ . - and starts with a letter"),
            hint: ("write a name as `office`"),
        }
        InvalidTestName { error: LineError } => {
            text: ("the name {error}"),
            hint: ("{}; a test's name is one line of at most {} characters", hint::line(error), TestName::MOST_CHARS),
        }
        ReservedNetworkName { name: String } => {
            text: ("`{name}` cannot name networks: nvactl keeps this word for itself"),
            hint: ("write another name"),
        }
    }
    "invalid-description": Error, InvalidDescription {
        meaning: "a description that is empty, longer than 200 characters, or has more than one line",
        example: "`description: \"first line\\nsecond line\"`",
        InvalidDescription { error: LineError } => {
            text: ("the description {error}"),
            hint: ("{}", hint::line(error)),
        }
    }
    "duplicate-name": Error, DuplicateName {
        meaning: "two forwards or outbound entries, or two entries of `networks`, of one name",
        example: "`name: web` in two forwards",
        DuplicateName { name: String, first: Span } => {
            text: ("another forward already has the name `{name}`"),
            hint: ("give one of the two another name"),
            other: (first, "the first one"),
        }
        DuplicateNetwork { name: String, first: Span } => {
            text: ("`networks` already has the name `{name}`"),
            hint: ("give one of the two another name, or join both lists"),
            other: (first, "the first one"),
        }
        NameInUse { name: String, first: Span } => {
            text: ("the name `{name}` is already in use: forwards and outbound entries share one list of names"),
            hint: ("give one of the two another name"),
            other: (first, "the first one"),
        }
    }
    "invalid-interface": Error, InvalidInterface {
        meaning: "a name that no interface can have",
        example: "`interface: eth+`",
        InvalidInterface { error: InterfaceError } => {
            text: ("{error}"),
            hint: ("to list this machine's interfaces: ip -brief link"),
        }
    }
    "invalid-port": Error, InvalidPort {
        meaning: "a value that is not a port or range, or not a test's one port",
        example: "`listen: 0x50`",
        InvalidPort { error: PortError } => {
            text: ("{error}"),
            hint: ("{}", hint::port(error)),
        }
        NoTestPort { address: IpAddr, protocol: Protocol } => {
            text: ("a test of {protocol} needs a port, but {address} has none"),
            hint: ("write, for example, `\"{}:443\"`, or add `protocol: ping`", Host(*address)),
        }
        PortOfPingTest => {
            text: ("a ping has no port: it goes from an address to an address"),
            hint: ("write an address alone, as `203.0.113.10`, or another `protocol`"),
        }
        SeveralPorts { ports: PortRange } => {
            text: ("a test connects to one port, but {ports} are several"),
            hint: ("write one of them, as `{}`, and another test for another port", ports.first()),
        }
    }
    "invalid-snat": Error, InvalidSnat {
        meaning: "a `snat` that is not an address, a range, `masquerade` or `none`, or that of a test that reaches nothing",
        example: "`snat: masqerade`",
        InvalidSnat { text: String } => {
            text: ("`{text}` is not an address, a range of addresses, `masquerade` or `none`"),
            hint: ("{}", hint::snat(text)),
        }
        SnatOfNothing => {
            text: ("this test reaches nothing, so no host can see its source"),
            hint: ("remove `snat`, or write the host that is reached, as `reaches: 10.224.0.118:80`"),
        }
    }
    "invalid-address": Error, InvalidAddress {
        meaning: "a value that is not an address",
        example: "`pod: 10.224.0.0118:80`",
        InvalidAddress { text: String } => {
            text: ("`{text}` is not an address"),
            hint: ("{}", hint::address(text)),
        }
        InvalidClient { text: String } => {
            text: ("`{text}` is neither an address nor a name from `networks`"),
            hint: ("{}", hint::client(text)),
        }
        InvalidDestination { text: String } => {
            text: ("`{text}` is neither a port of this machine nor an address"),
            hint: ("write a port, as `443`, or an address with a port, as `\"203.0.113.10:443\"`"),
        }
        InvalidReaches { text: String } => {
            text: ("`{text}` is neither `nothing` nor an address with a port"),
            hint: ("{}", hint::reaches(text)),
        }
        NothingBesideHosts => {
            text: ("a test reaches one of its hosts, or nothing, but this one has both"),
            hint: ("remove `nothing` or the hosts"),
        }
        NoBrackets { text: String } => {
            text: ("the IPv6 address in `{text}` has no brackets, so its port cannot be recognised"),
            hint: ("put the address in brackets, and the port after them: `\"[fd00::10]:80\"`"),
        }
    }
    "invalid-net": Error, InvalidNet {
        meaning: "a value that is not a network",
        example: "`10.0.0.0/33` in `allow_from`",
        InvalidNet { text: String } => {
            text: ("`{text}` is not a network"),
            hint: ("{}", hint::net(text)),
        }
        HostBits { net: IpNet } => {
            text: ("`{net}` is not a network: it has bits set after its prefix"),
            hint: ("write `{}`, or `{}` for this address alone", net.trunc(), net.addr()),
        }
        InvalidNetLine { text: String } => {
            text: ("`{text}` is not a network"),
            hint: ("{}", hint::net_line(text)),
        }
        NestedNetworks { text: String } => {
            text: ("`{text}` is not a network, and an entry of `networks` cannot have names in it"),
            hint: ("write the networks themselves, or write both names wherever you use them"),
        }
    }
    "unknown-network": Error, UnknownNetwork {
        meaning: "a name that `networks` does not have",
        example: "`allow_from: [offce]`",
        UnknownNetwork { text: String, near: Option<String> } => {
            text: ("`networks` has no name `{text}`"),
            hint: ("{}", hint::network_name(text, near.as_deref())),
        }
        UnknownClient { text: String, near: Option<String> } => {
            text: ("`networks` has no name `{text}`"),
            hint: ("{}", hint::unknown_client(text, near.as_deref())),
        }
    }
    "network-file": Error, NetworkFile {
        meaning: "a file of networks that cannot be read",
        example: "`file: ../scanners.txt`",
        NetworkFileOfStdin { file: String } => {
            text: ("`{file}` cannot be found: a spec from standard input is in no folder"),
            hint: ("name the spec by its path, or write the networks into it"),
        }
        NetworkFileOutside { file: String } => {
            text: ("`{file}` does not lie beside the spec or below it"),
            hint: ("copy the file into the spec's folder, and write its path from there, as `file: scanners.txt`"),
        }
        NetworkFileLinked { file: String, to: String } => {
            text: ("`{file}` is behind a link that leads to `{to}`, out of the spec's folder"),
            hint: ("replace the link by a copy of the file"),
        }
        NetworkFileUnreadable { file: String, reason: String } => {
            text: ("cannot read `{file}`: {reason}"),
            hint: ("put the file there, or correct the path: it counts from the spec's folder"),
        }
    }
    "invalid-number": Error, InvalidNumber {
        meaning: "a value that is not a number, or one that the kernel cannot hold",
        example: "`max_connections: 1e3`",
        InvalidNumber { text: String, most: u32 } => {
            text: ("`{text}` is not a number from 1 to {most}"),
            hint: ("{}", hint::number(text, *most)),
        }
        InvalidMss { text: String } => {
            text: (
                "`{text}` is neither `clamp` nor a number from {} to {}",
                Firewall::MSS.start(), Firewall::MSS.end()
            ),
            hint: ("write `mss: clamp` for what this VM's routes carry, or the number of bytes, as `mss: 1360`"),
        }
        RoundedRate { text: String, nearest: u32 } => {
            text: ("the kernel cannot hold {text} per second: it would take {nearest}"),
            hint: ("write `{nearest}`"),
        }
    }
    "invalid-prefix": Error, InvalidPrefix {
        meaning: "a prefix that cannot begin a line of the log",
        example: "`prefix: a prefix that is much too long`",
        InvalidPrefix { text: String } => {
            text: (
                "`{text}` cannot begin a line of the log: a prefix is 1 to {} printable ASCII characters",
                Log::LONGEST_PREFIX
            ),
            hint: ("write a short word, as `prefix: web`"),
        }
    }
    "twice": Error, Twice {
        meaning: "a value twice in one list",
        example: "`protocol: [tcp, tcp]`",
        Twice { text: String } => {
            text: ("`{text}` is listed twice"),
            hint: ("keep one"),
        }
    }
    "empty-list": Error, EmptyList {
        meaning: "an empty list that must have a value",
        example: "`protocol: []`",
        EmptyList { key: &'static str } => {
            text: ("the list `{key}` is empty"),
            hint: ("{}", hint::empty_list(key)),
        }
        EmptyNetworks => {
            text: ("the list of networks is empty"),
            hint: ("write, for example, `office: [198.51.100.0/24]`, or remove the name"),
        }
    }
    "unusable-address": Error, UnusableAddress {
        meaning: "an address that no host has",
        example: "`listen: 0.0.0.0:80`",
        UnusableAddress { key: &'static str, address: IpAddr, reason: &'static str } => {
            text: ("{address} cannot be a `{key}` address: {reason}"),
            hint: ("{}", hint::unusable(key, *address)),
        }
        NoHostInNetwork { name: String, net: IpNet } => {
            text: ("no host has an address in {net}, the first network of `{name}`, so it cannot be the client"),
            hint: ("write an address, as `from: {}`", hint::value("from")),
        }
    }

    // Values that do not fit together.
    "pod-without-port": Error, PodWithoutPort {
        meaning: "a pod target without a port",
        example: "`pod: 10.224.0.118`",
        PodWithoutPort { address: IpAddr } => {
            text: ("the pod `{address}` has no port"),
            hint: ("add the container's port: {}", hint::pod(*address)),
        }
    }
    "two-targets": Error, TwoTargets {
        meaning: "a forward with both `ilb` and `pod`",
        example: "`target: {pod: 10.224.0.118:80, ilb: 10.224.0.222}`",
        TwoTargets { first: Span } => {
            text: ("a target is either `ilb` or `pod`, but this one has both"),
            hint: ("keep one, and write another forward for the other"),
            other: (first, "the first one"),
        }
    }
    "range-length": Error, RangeLength {
        meaning: "a target range longer or shorter than the listener's, or for a list of listeners",
        example: "`listen: 5000-5010` with `pod: 10.224.0.118:7000-7009`",
        RangeLength { target: u32, listen: u32, listen_span: Span } => {
            text: ("the target has {target} ports, but the listener has {listen}"),
            hint: ("{}", hint::range_length(*listen)),
            other: (listen_span, "the listener"),
        }
        RangeForList { listen_span: Span } => {
            text: ("the target has a range of ports, but `listen` is a list"),
            hint: ("give the target one port, or none to keep each listen port; for a range of its own, write another forward"),
            other: (listen_span, "the listeners"),
        }
    }
    "dangerous-target": Error, DangerousTarget {
        meaning: "a target that would hand out what belongs to the VM",
        example: "`pod: 169.254.169.254:80`",
        DangerousTarget { address: IpAddr, reason: &'static str } => {
            text: ("a forward must not lead to {address}: {reason}"),
            hint: ("{}", hint::TARGET),
        }
    }
    "mixed-families": Error, MixedFamilies {
        meaning: "IPv4 and IPv6 in one forward or test that can have only one",
        example: "`pod: [\"[fd00::10]:80\", 10.224.0.118:80]`",
        WrongFamily { key: &'static str, address: IpAddr, family: Family } => {
            text: ("`{key}` must be an {family} address, but {address} is not"),
            hint: ("write the IPv4 address under `v4`, and the IPv6 address under `v6`"),
        }
        OtherFamily { key: &'static str, family: Family, target: Span } => {
            text: ("this `{key}` is {family}, but the forward's first target is not"),
            hint: ("write two forwards, one for each family"),
            other: (target, "the target"),
        }
        TestOfTwoFamilies { key: &'static str, family: Family, of: &'static str, other: Span } => {
            text: ("`{key}` is {family}, but `{of}` is not"),
            hint: ("write two tests, one for each family"),
            other: (other, "the other family"),
        }
        NoNetworkOfFamily { name: String, family: Family } => {
            text: ("the other addresses of this test are {family}, but `{name}` has no {family} network"),
            hint: ("add one to `networks`, or write an {family} address, as `from: {}`", hint::client_of(*family)),
        }
        TestOfEitherFamily { name: String } => {
            text: ("`{name}` has networks of both families, and nothing else in this test has an address"),
            hint: (
                "write an address, as `from: {}`, or `from: {}` for the other family",
                hint::client_of(Family::V4), hint::client_of(Family::V6)
            ),
        }
    }
    "no-snat": Error, NoSnat {
        meaning: "a target of a family that has no `snat`",
        example: "`snat: 10.3.0.4` with `pod: \"[fd00::10]:80\"`",
        NoSnat { family: Family } => {
            text: ("the target is {family}, but there is no `snat` for {family}"),
            hint: ("write `snat: {{v4: 10.3.0.4, v6: \"fd00::4\"}}` with this machine's own addresses, or `snat: masquerade`"),
        }
        NoOutboundSnat { family: Family } => {
            text: ("this entry has {family} networks, but its `snat` is for the other family only"),
            hint: ("write `snat: {{v4: 10.3.0.4, v6: \"fd00::4\"}}` with this machine's own addresses, or `snat: masquerade`"),
        }
    }
    "allows-nobody": Error, AllowsNobody {
        meaning: "lists that admit nobody of the forward's family",
        example: "`allow_from: []`",
        AllowsNobody { family: Family } => {
            text: ("`allow_from` has no {family} network, so no client can use this forward"),
            hint: (
                "add a network (`{}` admits everybody); to switch the forward off, write `enabled: false`",
                hint::everybody(*family)
            ),
        }
        DeniesAllowed { family: Family, allow: Span } => {
            text: ("`deny_from` has every {family} network of `allow_from`, so no client can use this forward"),
            hint: ("deny smaller networks; to switch the forward off, write `enabled: false`"),
            other: (allow, "the clients"),
        }
        DeniesEverybody { family: Family } => {
            text: ("`deny_from` has every {family} address, so no client can use this forward"),
            hint: ("deny smaller networks; to switch the forward off, write `enabled: false`"),
        }
        DeniesEverything { key: &'static str, family: Family } => {
            text: ("`{key}` has every {family} address, so this entry accepts nothing"),
            hint: ("deny smaller networks; to switch the entry off, write `enabled: false`"),
        }
        DeniesAllowedPart { deny: &'static str, allow: &'static str, family: Family, allowed: Span } => {
            text: ("`{deny}` has every {family} network of `{allow}`, so this entry accepts nothing of {family}"),
            hint: ("deny smaller networks; to switch the entry off, write `enabled: false`"),
            other: (allowed, "all of these are denied"),
        }
        NoCommonFamily { from: Span } => {
            text: ("`allow_from` and `allow_to` have no address family in common, so this entry accepts nothing"),
            hint: ("write networks of one family in both"),
            other: (from, "the sources"),
        }
    }
    "allows-everything": Error, AllowsEverything {
        meaning: "an outbound entry from every address, or to every address, private ones included",
        example: "`allow_to: [0.0.0.0/0]`",
        AllowsEverything { family: Family } => {
            text: ("`allow_to` has every {family} address, so these sources would reach every private network, with this VM's address"),
            hint: ("write `allow_to: [internet]`, and beside it only the private networks that they need"),
        }
        AllowsEverySource { family: Family } => {
            text: ("`allow_from` has every {family} address, so whoever reaches this VM could send packets through it"),
            hint: ("write the networks behind this VM, as `allow_from: {}`", hint::behind(*family)),
        }
    }
    "ports-without-protocol": Error, PortsWithoutProtocol {
        meaning: "`ports` of an outbound entry that is for ping too",
        example: "`ports: [443]`",
        PortsWithoutProtocol => {
            text: ("ping has no ports, and an entry without `protocol` is for ping as well"),
            hint: ("add `protocol: tcp` or `protocol: [tcp, udp]`, and write another entry for ping"),
        }
        PortsOfPing => {
            text: ("ping has no ports, but this entry is for ping as well"),
            hint: ("write `protocol: tcp` or `protocol: [tcp, udp]`, and another entry for ping"),
        }
    }
    "too-many-pods": Error, TooManyPods {
        meaning: "more pods than can share connections",
        example: "33 pods",
        TooManyPods { count: usize, most: u32 } => {
            text: ("this forward has {count} pods, but at most {most} can share connections"),
            hint: ("put an internal load balancer in front of the pods: `target: {{ilb: IP:PORT}}`"),
        }
    }
    "hairpin-keeps-clients": Error, HairpinKeepsClients {
        meaning: "a hairpin that keeps the client's address",
        example: "`snat: none` with `hairpin: true`",
        HairpinKeepsClients { snat: Span } => {
            text: ("a hairpin needs a `snat` address: targets would answer hosts behind the firewall directly, not through it"),
            hint: ("give this forward an address of the VM, as `snat: 10.3.0.4`"),
            other: (snat, "keeps the client's address"),
        }
    }
    "overlapping-listen": Error, OverlappingListen {
        meaning: "two forwards, or two items of one list, that listen on one port",
        example: "`listen: 5000-5010` and `listen: 5010`",
        OverlappingListen { ports: String, name: String, other: Span } => {
            text: ("the forward `{name}` already listens on {ports}"),
            hint: ("give one of the two another port, protocol or listen address"),
            other: (other, "the other listener"),
        }
        OverlappingPieces { piece: String, other: Span } => {
            text: ("`{piece}` shares a port with another item of the list"),
            hint: ("remove one of the two, or narrow its ports"),
            other: (other, "the other item"),
        }
    }
    "takes-ssh": Error, TakesSsh {
        meaning: "a listener that takes the firewall's own ssh",
        example: "`listen: 20-30`",
        TakesSsh => {
            text: ("this listener takes TCP port 22 from the firewall's own ssh: new sessions would go to the target"),
            hint: ("listen on another port; if you reach the VM by other means, add `silence: [takes-ssh]` to the forward"),
        }
    }

    // Warnings.
    "takes-local-service": Warning, TakesLocalService {
        meaning: "a listen range that takes DNS, DHCP or WinRM from the firewall",
        example: "`listen: 50-60, protocol: udp`",
        TakesLocalService { service: &'static str, protocol: Protocol, port: Port } => {
            text: ("this range takes {protocol} port {port} ({service}) away from the firewall itself"),
            hint: ("{}", hint::FEWER_PORTS),
        }
    }
    "target-is-firewall": Warning, TargetIsFirewall {
        meaning: "a target that is the firewall itself",
        example: "`snat: 10.3.0.4` and `target: {ilb: \"10.3.0.4:8080\"}`",
        TargetIsFirewall { address: IpAddr, other: Span } => {
            text: ("the target {address} is an address of the firewall: packets would come back to it"),
            hint: ("{}", hint::TARGET),
            other: (other, "the firewall's address"),
        }
    }
    "unused-network": Warning, UnusedNetwork {
        meaning: "named networks that no list and no test has",
        example: "`networks: {office: [198.51.100.0/24]}` alone",
        UnusedNetwork { name: String } => {
            text: ("no list and no test has the networks `{name}`"),
            hint: ("write `allow_from: [{name}]` where it belongs, or remove it; if it is for later, add `silence: [unused-network]` at the top"),
        }
    }
    "unknown-interface": Warning, UnknownInterface {
        meaning: "tests that come in by an interface that the spec has nowhere else",
        example: "`in: eth7`",
        UnknownInterface { name: String, near: Option<String> } => {
            text: ("the spec names no interface `{name}`, so `nvactl test` makes one up"),
            hint: ("{}", hint::interface(name, near.as_deref())),
        }
    }
    "policy-kept": Warning, PolicyKept {
        meaning: "`forward_policy: keep`, and nothing that drops other packets",
        example: "`forward_policy: keep`",
        PolicyKept => {
            text: ("with `forward_policy: keep`, nvactl does not drop packets that belong to no forward"),
            hint: ("write `forward_policy: drop`; if other rules drop them, add `silence: [policy-kept]` at the top"),
        }
    }
    "address-beside-all": Warning, AddressBesideAll {
        meaning: "a listener for all addresses beside one for an address",
        example: "`listen: 80` and `listen: \"10.3.0.5:80\"`",
        AddressBesideAll { this: String, ports: PortRange, address: IpAddr, name: String, other: Span } => {
            text: ("`{this}` gets {} only for addresses other than {address}, because `{name}` listens on that one", hint::port_words(*ports)),
            hint: ("give each listener an address; if this is intended, add `silence: [address-beside-all]` to one of the two"),
            other: (other, "the listener that goes first"),
        }
    }
    "wide-range": Warning, WideRange {
        meaning: "a listener of a thousand ports or more",
        example: "`listen: 20000-30000`",
        WideRange { count: u32 } => {
            text: ("this listener takes {count} ports away from the firewall itself"),
            hint: ("{}", hint::FEWER_PORTS),
        }
    }
    "keeps-probes-out": Warning, KeepsProbesOut {
        meaning: "a list that keeps out the probes of Azure's load balancer",
        example: "`allow_from: [198.51.100.0/24]`",
        KeepsProbesOut { address: IpAddr, list: &'static str } => {
            text: ("`{list}` keeps out {address}, the address from which Azure's load balancer probes"),
            hint: ("{}", hint::probes(*address, list)),
        }
    }
    "metadata-open": Warning, MetadataOpen {
        meaning: "an outbound entry to the metadata service or to Azure's host agent",
        example: "`allow_to: [169.254.169.254/32]`",
        MetadataOpen { address: IpAddr } => {
            text: ("these sources reach {address}, the metadata service, which takes them for this VM and gives out its identity"),
            hint: ("remove the address from `allow_to`; if these sources may act as this VM, add `silence: [metadata-open]` to the entry"),
        }
        HostAgentOpen { address: IpAddr } => {
            text: ("these sources reach {address}, Azure's host agent, which takes them for this VM"),
            hint: ("remove the address from `allow_to`; if these sources may act as this VM, add `silence: [metadata-open]` to the entry"),
        }
    }
    "outbound-overlap": Warning, OutboundOverlap {
        meaning: "an outbound entry that takes packets of a later one",
        example: "`protocol: tcp` in one entry, no `protocol` in the next",
        OutboundOverlap { this: String, name: String, other: Span } => {
            text: ("`{name}` comes first and takes some packets of `{this}`: its drops, limits and source apply to them"),
            hint: ("make the lists, protocols or ports of the two different; if the order is intended, add `silence: [outbound-overlap]` to one of them"),
            other: (other, "the entry that comes first"),
        }
        OutboundHidden { this: String, name: String, family: Family, other: Span } => {
            text: ("`{name}` comes first and takes every {family} packet of `{this}`, which has no effect on them"),
            hint: ("move `{this}` before `{name}`, or remove it; if the order is intended, add `silence: [outbound-overlap]` to one of them"),
            other: (other, "the entry that comes first"),
        }
    }
    "client-kept": Warning, ClientKept {
        meaning: "targets that answer the client itself, by their own routes",
        example: "`snat: none`",
        ClientKept => {
            text: ("with `snat: none`, targets see the client's own address and answer it by their own routes"),
            hint: (
                "give the targets' subnet a route table whose default route has this VM as next hop, and this VM's NIC \
                 IP forwarding (az network nic update --ip-forwarding true); then add `silence: [client-kept]`"
            ),
        }
    }
    "not-in-cluster": Warning, NotInCluster {
        meaning: "a target whose address no object has, with `check --kubernetes`",
        example: "`pod: \"10.224.0.77:80\"` of a pod that is gone",
        NotInCluster { address: IpAddr, contents: String, with_pods: bool, namespace: Option<String> } => {
            text: ("no object in the file of Kubernetes has the address {address}; the file has {contents}"),
            hint: ("{}", hint::not_in_cluster(*with_pods, namespace.as_deref())),
        }
    }
    "cluster-address": Warning, ClusterAddress {
        meaning: "a target that is a Service's cluster address, with `check --kubernetes`",
        example: "`ilb: 10.0.14.2:49180`, and the Service's load balancer has 10.224.0.222",
        ClusterAddress { address: IpAddr, service: KubeName, write: Option<String> } => {
            text: ("{address} is the cluster address of the Service `{service}`: it exists on the nodes of the cluster alone, so the firewall cannot reach it"),
            hint: ("{}", hint::cluster_address(write.as_deref())),
        }
    }
    "not-exposed": Warning, NotExposed {
        meaning: "a target port that the objects of its address do not have, with `check --kubernetes`",
        example: "`ilb: 10.224.0.222:49181`, and a Service that exposes 49180",
        NotExposed { address: IpAddr, ports: Box<WrongPorts>, edit: Option<TargetEdit> } => {
            text: ("{} the address {address}, but not {}; its ports are: {}", ports.holders, ports.missing, ports.has),
            hint: ("{}", hint::not_exposed(edit.as_ref())),
        }
    }

    // Notes.
    "port-kept": Note, PortKept {
        meaning: "an `ilb` without a port, which keeps the listen port",
        example: "`ilb: 10.224.0.222`",
        PortKept { ports: String } => {
            text: ("the `ilb` has no port, so connections go to the listen port {ports}"),
            hint: ("if the Service has another port, write it: `ilb: IP:PORT`"),
        }
    }
    "pod-address": Note, PodAddress {
        meaning: "a pod's address, which changes when the pod restarts",
        example: "`pod: \"10.224.0.118:80\"`",
        PodAddress { address: IpAddr } => {
            text: ("the pod has the address {address} only until it restarts"),
            hint: ("an internal load balancer keeps its address: `ilb: IP:PORT`"),
        }
    }
    "cuts-transit": Note, CutsTransit {
        meaning: "a FORWARD policy that drops traffic that the VM routes for others",
        example: "a spec that does not set the policy",
        CutsTransit => {
            text: ("the FORWARD policy drops packets that this machine routes for others, unless a rule accepts them"),
            hint: (
                "to let hosts behind this machine out, add an entry of `outbound`; to leave all other forwarding to other \
                 programs, write `forward_policy: keep`; if neither, add `silence: [cuts-transit]` at the top"
            ),
        }
        CutsOtherTransit => {
            text: ("the FORWARD policy drops packets that this machine routes for others, unless an entry of `outbound` or another program's rule accepts them"),
            hint: (
                "to let more of them pass, name them in an entry of `outbound`; to leave all other forwarding to other \
                 programs, write `forward_policy: keep`; if neither, add `silence: [cuts-transit]` at the top"
            ),
        }
    }
    "needs-linux-5-5": Note, NeedsLinux55 {
        meaning: "forwards that only the interface by which packets came in can separate, or an outbound entry on two NICs",
        example: "`interface: {ingress: eth2}, snat: 10.4.0.9` beside another forward to the same target",
        NeedsLinux55 => {
            text: ("another forward sends packets to the same target with another `snat`: only Linux 5.5 or later can tell them apart"),
            hint: ("if the kernel is older, give both the same `snat`; if not, add `silence: [needs-linux-5-5]` to the forward"),
        }
        OutboundNeedsLinux55 => {
            text: ("the rule for the source must know by which interface a packet came in: only Linux 5.5 or later does"),
            hint: ("`apply` refuses the entry on an older kernel; if the kernel is new enough, add `silence: [needs-linux-5-5]` to the entry"),
        }
    }
    "spoofed-source": Note, SpoofedSource {
        meaning: "an outbound entry on one NIC, whose sources anybody there can claim",
        example: "`allow_from: [10.224.0.0/16]`",
        SpoofedSource { interface: String } => {
            text: ("packets arrive and leave by {interface}, so whoever can send to {interface} with such a source gets out"),
            hint: ("let only these networks send to the NIC, by its network security group; then add `silence: [spoofed-source]` to the entry"),
        }
    }
}
