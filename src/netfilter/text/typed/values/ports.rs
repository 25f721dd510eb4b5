//! Ports and their ranges, by number or by the names of services.

/// The services of `/etc/services` that firewalls name.
const SERVICES: [(&str, u16); 66] = [
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("time", 37),
    ("whois", 43),
    ("tacacs", 49),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("finger", 79),
    ("http", 80),
    ("www", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("auth", 113),
    ("nntp", 119),
    ("ntp", 123),
    ("epmap", 135),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("imap", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("snmptrap", 162),
    ("xdmcp", 177),
    ("bgp", 179),
    ("irc", 194),
    ("ldap", 389),
    ("svrloc", 427),
    ("https", 443),
    ("microsoft-ds", 445),
    ("submissions", 465),
    ("ssmtp", 465),
    ("smtps", 465),
    ("isakmp", 500),
    ("syslog", 514),
    ("printer", 515),
    ("rtsp", 554),
    ("submission", 587),
    ("ipp", 631),
    ("ldaps", 636),
    ("domain-s", 853),
    ("rsync", 873),
    ("imaps", 993),
    ("pop3s", 995),
    ("socks", 1080),
    ("openvpn", 1194),
    ("ms-sql-s", 1433),
    ("l2f", 1701),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("nfs", 2049),
    ("mysql", 3306),
    ("ms-wbt-server", 3389),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("mdns", 5353),
    ("postgresql", 5432),
    ("redis", 6379),
    ("http-alt", 8080),
];

fn port(typed: &str) -> Option<u16> {
    match super::number(typed) {
        Some(number) => number.try_into().ok(),
        None => {
            let mut services = SERVICES.iter();
            services
                .find(|(name, _)| *name == typed)
                .map(|(_, port)| *port)
        }
    }
}

/// A port or a range as typed: `80`, `http`, `1000:2000`, `:1024`, `1024:`. The ends may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Reads a range whose ends a separator divides: `:` in matches, `-` in targets.
    pub fn read(typed: &str, separator: char) -> Option<Self> {
        let end = |text: &str, open| match text {
            "" => Some(open),
            text => port(text),
        };
        let (first, last) = match typed.split_once(separator) {
            // A name of a service may have a hyphen.
            Some(_) if port(typed).is_some() => (port(typed)?, port(typed)?),
            Some((first, last)) => (end(first, 0)?, end(last, u16::MAX)?),
            None => (port(typed)?, port(typed)?),
        };
        (first <= last).then_some(Self { first, last })
    }

    /// Returns whether it is every port, which iptables-save leaves out unless it is negated.
    pub fn are_all(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    pub fn is_one(self) -> bool {
        self.first == self.last
    }

    pub fn spelled(self, separator: char) -> String {
        let Self { first, last } = self;
        if first == last {
            first.to_string()
        } else {
            format!("{first}{separator}{last}")
        }
    }
}
