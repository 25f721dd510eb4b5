//! The matches and targets of iptables and their options, in the order in which iptables-save prints them.
//!
//! Each is as iptables 1.8.9 registers it (`xtables_register_matches` and `xtables_register_targets` of each file in
//! its folder `xtables`). In a word, `!` in front is an option that can be negated, `|` divides its names, the first
//! of which iptables-save prints, each `=` is a value, and `~` a value that may be missing.

use crate::net::Family;

/// A match or a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extension {
    pub name: &'static str,
    options: &'static str,
}

/// One option of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExtensionOption {
    /// Its place in the order of iptables-save.
    pub at: usize,
    names: &'static str,
    pub is_negatable: bool,
    pub values: Values,
}

/// The values behind an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Exactly(usize),
    /// One, unless an option follows.
    Optional,
}

impl Extension {
    pub fn options(self) -> impl Iterator<Item = ExtensionOption> {
        let words = self.options.split_ascii_whitespace().enumerate();
        words.map(|(at, word)| {
            let names = word.trim_start_matches('!').trim_end_matches(['=', '~']);
            ExtensionOption {
                at,
                names,
                is_negatable: word.starts_with('!'),
                values: match word.strip_suffix('~') {
                    Some(_) => Values::Optional,
                    None => Values::Exactly(word.matches('=').count()),
                },
            }
        })
    }

    /// Returns an option by the name that iptables-save prints.
    pub fn option(self, name: &str) -> Option<ExtensionOption> {
        self.options().find(|option| option.name() == name)
    }
}

impl ExtensionOption {
    /// Returns the name that iptables-save prints, without its hyphens.
    pub fn name(self) -> &'static str {
        self.names.split('|').next().unwrap_or_default()
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.names.split('|')
    }
}

/// Returns a match of a family.
pub(super) fn match_named(name: &str, family: Family) -> Option<Extension> {
    let own: &[_] = match family {
        Family::V4 => &MATCHES_V4,
        Family::V6 => &MATCHES_V6,
    };
    named(name, [&MATCHES[..], own])
}

/// Returns a target of a family. `ACCEPT`, `DROP`, `RETURN` and `QUEUE` are none: iptables has them as numbers.
pub(super) fn target_named(name: &str, family: Family) -> Option<Extension> {
    let own: &[_] = match family {
        Family::V4 => &TARGETS_V4,
        Family::V6 => &TARGETS_V6,
    };
    named(name, [&TARGETS[..], own])
}

fn named(name: &str, lists: [&'static [(&'static str, &'static str)]; 2]) -> Option<Extension> {
    let mut all = lists.into_iter().flatten();
    let (name, options) = all.find(|(known, _)| *known == name)?;
    Some(Extension { name, options })
}

const MATCHES: [(&str, &str); 49] = [
    (
        "addrtype",
        "!src-type= !dst-type= limit-iface-in limit-iface-out",
    ),
    ("bpf", "bytecode= object-pinned="),
    ("cgroup", "!path= !cgroup="),
    (
        "cluster",
        "!cluster-local-node= !cluster-local-nodemask= cluster-total-nodes= cluster-hash-seed=",
    ),
    ("comment", "comment="),
    ("connbytes", "!connbytes= connbytes-mode= connbytes-dir="),
    ("connlabel", "!label= set"),
    (
        "connlimit",
        "!connlimit-upto= !connlimit-above= connlimit-mask= connlimit-saddr connlimit-daddr",
    ),
    ("connmark", "!mark="),
    (
        "conntrack",
        "!ctstate= !ctproto= !ctorigsrc= !ctorigdst= !ctreplsrc= !ctrepldst= !ctorigsrcport= !ctorigdstport= \
         !ctreplsrcport= !ctrepldstport= !ctstatus= !ctexpire= ctdir=",
    ),
    ("cpu", "!cpu="),
    (
        "dccp",
        "!sport|source-port= !dport|destination-port= !dccp-types= !dccp-option=",
    ),
    ("devgroup", "!src-group= !dst-group="),
    ("dscp", "!dscp= !dscp-class="),
    ("ecn", "!ecn-tcp-cwr !ecn-tcp-ece !ecn-ip-ect="),
    ("esp", "!espspi="),
    // It is one of xtables-addons.
    (
        "geoip",
        "!src-cc|source-country= !dst-cc|destination-country=",
    ),
    (
        "hashlimit",
        "!hashlimit-upto|hashlimit= !hashlimit-above= hashlimit-burst= hashlimit-mode= hashlimit-name= \
         hashlimit-htable-size= hashlimit-htable-max= hashlimit-htable-gcinterval= hashlimit-htable-expire= \
         hashlimit-srcmask= hashlimit-dstmask= hashlimit-rate-match hashlimit-rate-interval=",
    ),
    ("helper", "!helper="),
    ("ipcomp", "!ipcompspi= compres"),
    ("iprange", "!src-range= !dst-range="),
    (
        "ipvs",
        "!ipvs !vproto= !vaddr= !vport= vdir= !vmethod= !vportctl=",
    ),
    ("length", "!length="),
    ("limit", "limit= limit-burst="),
    ("mac", "!mac-source="),
    ("mark", "!mark="),
    (
        "multiport",
        "!sports|source-ports= !dports|destination-ports= !ports=",
    ),
    ("nfacct", "nfacct-name="),
    ("osf", "!genre= ttl= log="),
    (
        "owner",
        "!uid-owner= !gid-owner= !socket-exists suppl-groups",
    ),
    (
        "physdev",
        "!physdev-is-in !physdev-in= !physdev-is-out !physdev-out= !physdev-is-bridged",
    ),
    ("pkttype", "!pkt-type="),
    (
        "policy",
        "dir= pol= strict !reqid= !spi= !proto= !mode= !tunnel-src= !tunnel-dst= next",
    ),
    ("quota", "!quota="),
    (
        "rateest",
        "rateest-delta rateest= rateest1= rateest2= !rateest-lt !rateest-gt !rateest-eq rateest-bps~ rateest-pps~ \
         rateest-bps1~ rateest-pps1~ rateest-bps2~ rateest-pps2~",
    ),
    (
        "recent",
        "!set !rcheck !update !remove seconds= reap hitcount= rttl name= mask= rsource rdest",
    ),
    ("rpfilter", "loose validmark accept-local invert"),
    (
        "sctp",
        "!sport|source-port= !dport|destination-port= !chunk-types==",
    ),
    (
        "set",
        "!match-set|set== return-nomatch !update-counters !update-subcounters !packets-eq= packets-lt= packets-gt= \
         !bytes-eq= bytes-lt= bytes-gt=",
    ),
    ("socket", "transparent nowildcard restore-skmark"),
    ("state", "!state="),
    ("statistic", "mode= !probability= !every= packet="),
    ("string", "!string= !hex-string= algo= from= to= icase"),
    (
        "tcp",
        "!sport|source-port= !dport|destination-port= !tcp-option= !tcp-flags== !syn",
    ),
    ("tcpmss", "!mss="),
    (
        "time",
        "timestart= timestop= !monthdays= !weekdays= datestart= datestop= kerneltz contiguous localtz utc",
    ),
    ("tos", "!tos="),
    ("u32", "!u32="),
    ("udp", "!sport|source-port= !dport|destination-port="),
];

const MATCHES_V4: [(&str, &str); 4] = [
    ("ah", "!ahspi="),
    ("icmp", "!icmp-type="),
    ("realm", "!realm="),
    ("ttl", "!ttl-eq|ttl= ttl-lt= ttl-gt="),
];

const MATCHES_V6: [(&str, &str); 11] = [
    ("ah", "!ahspi= !ahlen= ahres"),
    ("dst", "!dst-len= dst-opts="),
    ("eui64", ""),
    (
        "frag",
        "!fragid= !fraglen= fragres fragfirst fragmore fraglast",
    ),
    ("hbh", "!hbh-len= hbh-opts="),
    ("hl", "!hl-eq|hl= hl-lt= hl-gt="),
    ("icmp6", "!icmpv6-type="),
    ("ipv6header", "!header= soft"),
    ("mh", "!mh-type="),
    (
        "rt",
        "!rt-type= !rt-segsleft= !rt-len= rt-0-res rt-0-addrs= rt-0-not-strict",
    ),
    (
        "srh",
        "!srh-next-hdr= !srh-hdr-len-eq= !srh-hdr-len-gt= !srh-hdr-len-lt= !srh-segs-left-eq= !srh-segs-left-gt= \
         !srh-segs-left-lt= !srh-last-entry-eq= !srh-last-entry-gt= !srh-last-entry-lt= !srh-tag= !srh-psid= \
         !srh-nsid= !srh-lsid=",
    ),
];

const TARGETS: [(&str, &str); 32] = [
    ("AUDIT", "type="),
    ("CHECKSUM", "checksum-fill"),
    ("CLASSIFY", "set-class="),
    (
        "CONNMARK",
        "set-xmark= set-mark= and-mark= or-mark= xor-mark= save-mark restore-mark nfmask= ctmask= mask= \
         left-shift-mark= right-shift-mark=",
    ),
    ("CONNSECMARK", "save restore"),
    (
        "CT",
        "notrack helper= timeout= ctevents= expevents= zone-orig= zone-reply= zone=",
    ),
    ("DNAT", "to-destination= random persistent"),
    ("DSCP", "set-dscp= set-dscp-class="),
    (
        "HMARK",
        "hmark-tuple= hmark-src-prefix= hmark-dst-prefix= hmark-sport-mask= hmark-dport-mask= hmark-spi-mask= \
         hmark-sport= hmark-dport= hmark-spi= hmark-proto-mask= hmark-rnd= hmark-mod= hmark-offset=",
    ),
    ("IDLETIMER", "timeout= label= alarm"),
    ("LED", "led-trigger-id= led-delay= led-always-blink"),
    (
        "LOG",
        "log-prefix= log-level= log-tcp-sequence log-tcp-options log-ip-options log-uid log-macdecode",
    ),
    ("MARK", "set-xmark= set-mark= and-mark= or-mark= xor-mark="),
    ("MASQUERADE", "to-ports= random random-fully"),
    ("NETMAP", "to="),
    (
        "NFLOG",
        "nflog-prefix= nflog-group= nflog-range= nflog-size= nflog-threshold=",
    ),
    (
        "NFQUEUE",
        "queue-num= queue-balance= queue-bypass queue-cpu-fanout",
    ),
    ("NOTRACK", ""),
    (
        "RATEEST",
        "rateest-name= rateest-interval= rateest-ewmalog=",
    ),
    ("REDIRECT", "to-ports= random"),
    ("REJECT", "reject-with="),
    ("SECMARK", "selctx="),
    (
        "SET",
        "add-set== del-set== map-set== exist timeout= map-mark map-prio map-queue",
    ),
    ("SNAT", "to-source= random random-fully persistent"),
    ("SYNPROXY", "sack-perm timestamp wscale= mss= ecn"),
    // It is one of xtables-addons.
    ("TARPIT", "tarpit honeypot reset"),
    ("TCPMSS", "set-mss= clamp-mss-to-pmtu"),
    ("TCPOPTSTRIP", "strip-options="),
    ("TEE", "gateway= oif="),
    ("TOS", "set-tos= and-tos= or-tos= xor-tos="),
    ("TPROXY", "on-port= on-ip= tproxy-mark="),
    ("TRACE", ""),
];

const TARGETS_V4: [(&str, &str); 4] = [
    (
        "CLUSTERIP",
        "new hashmode= clustermac= total-nodes= local-node= hash-init=",
    ),
    (
        "ECN",
        "ecn-tcp-remove ecn-tcp-cwr= ecn-tcp-ece= ecn-ip-ect=",
    ),
    ("TTL", "ttl-set= ttl-dec= ttl-inc="),
    (
        "ULOG",
        "ulog-prefix= ulog-nlgroup= ulog-cprange= ulog-qthreshold=",
    ),
];

const TARGETS_V6: [(&str, &str); 3] = [
    ("DNPT", "src-pfx= dst-pfx="),
    ("HL", "hl-set= hl-dec= hl-inc="),
    ("SNPT", "src-pfx= dst-pfx="),
];
