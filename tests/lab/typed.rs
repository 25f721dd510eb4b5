//! Rules as people type them are read as the kernel gets them: iptables runs the commands, or loads the text, and
//! iptables-save prints what nvactl says.

use nvactl::net::Family;
use nvactl::netfilter::names::Policy;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::text::parse::parse;
use nvactl::netfilter::text::typed::read_typed;

use crate::lab::{Backend, host_with};
use crate::namespace::Host;

/// Commands that iptables takes, one script a row.
const TAKEN: &[&str] = &[
    // The article's.
    "iptables -A FORWARD -p tcp --syn --dport 49181 -m conntrack --ctstate NEW -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\niptables -P FORWARD DROP",
    "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.222",
    "iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 49181 -d 10.224.0.222 -j SNAT --to-source 10.3.0.4",
    "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80",
    // Long options, abbreviations, several letters in a word.
    "iptables --table nat --append PREROUTING --protocol tcp --destination-port 80 --jump DNAT --to 10.0.0.2:80",
    "iptables --append FORWARD --source 10.0.0.1 --destination 10.0.0.2 --in-interface eth0 --out-interface eth1 --jump ACCEPT",
    "iptables -N X\niptables -A FORWARD --src 10.0.0.1 --dst 10.0.0.2 --in-i eth0 --out eth1 --proto udp --goto=X",
    "iptables -tnat -APOSTROUTING -o eth0 -j MASQUERADE",
    "iptables -N X\niptables -vA FORWARD -mtcp -p tcp -gX",
    "iptables --table=filter --append=FORWARD -p tcp --match=tcp --dport=80 -j ACCEPT",
    "iptables -A FORWARD -p tcp --source-port 53 --destination-port 1024:65535 -j ACCEPT",
    "iptables -A FORWARD -p tcp --dpo 80 --spo 90 -j ACCEPT",
    "iptables -A FORWARD -p udp -m multiport --destination-ports 53,67:68 -j ACCEPT",
    "iptables -A FORWARD -p tcp -m multiport --dport 80,443 -j ACCEPT",
    "iptables -A FORWARD -p tcp -m multiport --source-ports http,https,8000:8080 -j ACCEPT",
    "iptables -A FORWARD -p tcp -m multiport ! --ports 80:90,443 -j ACCEPT",
    "iptables -w -A FORWARD -j ACCEPT",
    "iptables -w 5 -A FORWARD -j ACCEPT",
    "iptables -A FORWARD -j ACCEPT -w 5 -t filter",
    "iptables -v -4 -A FORWARD -j ACCEPT -M /sbin/modprobe",
    "ip6tables -6 -A FORWARD -j ACCEPT",
    "iptables -A FORWARD -c 5 6 -j ACCEPT",
    "iptables -A FORWARD --set-counters 5 6 -j ACCEPT",
    // Programs and quotes.
    "/run/bin/iptables -A FORWARD -j ACCEPT",
    "iptables -A FORWARD \\\n  -p tcp \\\n  --dport 80 -j ACCEPT # the web",
    "# nothing\n\niptables -A FORWARD -m comment --comment 'it'\\''s \"my\" rule' -j ACCEPT",
    "iptables -A FORWARD -m comment --comment \"two words; \\\"and\\\" \\$more\" -j ACCEPT",
    "iptables -A FORWARD -m comment --comment plain-word_1 -j ACCEPT",
    "iptables -A FORWARD -m comment --comment '' -j ACCEPT",
    "iptables -A FORWARD -m comment --comment -j -j ACCEPT",
    "iptables -A FORWARD -m comment --comment ! -j ACCEPT",
    // Negation.
    "iptables -A FORWARD ! -s 10.0.0.0/8 ! -d 10.1.0.0/16 ! -i eth0 ! -o eth1 ! -p tcp -j DROP",
    "iptables -A FORWARD -p tcp ! --dport 80 ! --syn -j DROP",
    "iptables -A FORWARD -m conntrack ! --ctstate NEW -j DROP",
    "iptables -A FORWARD -m state ! --state NEW -j DROP",
    // Addresses.
    "iptables -A FORWARD -s 10.0.0.5/24 -j ACCEPT",
    "iptables -A FORWARD -s 10.0.0.0/255.255.255.0 -d 0/0 -j ACCEPT",
    "iptables -A FORWARD -s 10/8 -d 192.168/16 -j ACCEPT",
    "iptables -A FORWARD -s 010.0.0.1 -d 0x0a.1.2.3 -j ACCEPT",
    "iptables -A FORWARD -s 10.0.0.1/255.0.255.0 -j ACCEPT",
    "iptables -A FORWARD -s any/0 -d 0.0.0.0/0.0.0.0 -j ACCEPT",
    "iptables -A FORWARD -s 10.0.0.1,10.0.0.2/31 -d 10.1.0.1,10.1.0.2 -j ACCEPT",
    "iptables -A FORWARD -j DROP\niptables -I FORWARD -s 10.0.0.1,10.0.0.2 -j ACCEPT",
    "iptables -A FORWARD -j DROP\niptables -I FORWARD 2 -s 10.0.0.1,10.0.0.2 -d 10.0.0.3,10.0.0.4 -j ACCEPT",
    "iptables -A FORWARD -s 10.0.0.1,10.0.0.1 -j ACCEPT",
    "ip6tables -A FORWARD -s fd00::5/64 -d 2001:DB8::1 -j ACCEPT",
    "ip6tables -A FORWARD -s fd00::5/ffff:ffff:: -d ::/0 -j ACCEPT",
    "ip6tables -A FORWARD -s ::ffff:10.0.0.1,::1.2.3.4 -j ACCEPT",
    // Interfaces and protocols.
    "iptables -A FORWARD -i eth+ -o + -j ACCEPT",
    "iptables -A FORWARD -i eth0.100 -o br-1a2b -j ACCEPT",
    "iptables -A FORWARD -i eth0:1 -j ACCEPT",
    "iptables -A FORWARD -p 6 --dport 80 -j ACCEPT",
    "iptables -A FORWARD -p TCP --dport 80 -j ACCEPT",
    "iptables -A FORWARD -p all -j ACCEPT\niptables -A FORWARD -p 0 -j DROP",
    "iptables -A FORWARD -p 50 -j ACCEPT\niptables -A FORWARD -p ah -j ACCEPT\niptables -A FORWARD -p gre -j ACCEPT",
    "iptables -A FORWARD -p 47 -j ACCEPT\niptables -A FORWARD -p igmp -j ACCEPT\niptables -A FORWARD -p 254 -j ACCEPT",
    "iptables -A FORWARD -p tcp -j ACCEPT\niptables -A FORWARD -p tcp -m tcp -j ACCEPT",
    "iptables -A FORWARD -f -j DROP\niptables -A FORWARD ! -f -p udp -j DROP",
    "iptables -A FORWARD -p sctp --dport 80 -j ACCEPT",
    "ip6tables -A FORWARD -p icmpv6 -j ACCEPT\nip6tables -A FORWARD -p 58 -j ACCEPT",
    // Ports.
    "iptables -A FORWARD -p tcp --dport 0x50 --sport 010 -j ACCEPT",
    "iptables -A FORWARD -p tcp --dport http --sport :1024 -j ACCEPT",
    "iptables -A FORWARD -p udp --dport domain --sport 1024: -j ACCEPT",
    "iptables -A FORWARD -p tcp --dport 0:65535 -j ACCEPT\niptables -A FORWARD -p udp --dport 0:65535 -j ACCEPT",
    "iptables -A FORWARD -p tcp --dport 80:80 -j ACCEPT\niptables -A FORWARD -p tcp --dport ssh:http -j ACCEPT",
    // The order of options and of loading.
    "iptables -A FORWARD -j ACCEPT -m conntrack --ctstate new,established -p tcp --dport 80 -d 10.0.0.1 -i eth0",
    "iptables -A FORWARD -p tcp --tcp-flags ALL,SYN syn,ack --dport 80 --sport 90 -j ACCEPT",
    "iptables -A FORWARD -p tcp --tcp-flags ALL NONE -j DROP",
    "iptables -A FORWARD -p tcp -m comment --comment web --dport 80 -m limit -j ACCEPT",
    "iptables -A FORWARD -p tcp -m tcp -m tcp --dport 80 -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctorigdstport 80:90 --ctorigdst 10.0.0.1 --ctdir original --ctstate DNAT,NEW -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctstate NEW -m conntrack --ctproto tcp -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctstate EST,rel --ctstatus seen,ASSURED -j ACCEPT",
    "iptables -A FORWARD -m state --state RELATED,ESTABLISHED,new -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctorigsrc 10.0.0.7/24 --ctorigsrcport 0:65535 --ctexpire 5 -j ACCEPT",
    "iptables -A FORWARD -m conntrack --ctorigdst 10.0.0.7/24 -j ACCEPT\niptables -A FORWARD -m conntrack --ctorigdst 0/0 -j LOG",
    // ICMP.
    "iptables -A FORWARD -p icmp --icmp-type echo-request -j ACCEPT\niptables -A FORWARD -p icmp --icmp-type ping -j ACCEPT",
    "iptables -A FORWARD -p icmp --icmp-type fragmentation-needed -j ACCEPT\niptables -A FORWARD -p icmp --icmp-type 3/4 -j ACCEPT",
    "iptables -A FORWARD -p icmp ! --icmp-type any -j ACCEPT\niptables -A FORWARD -p icmp --icmp-type 255 -j ACCEPT",
    "iptables -A FORWARD -p icmp -m icmp --icmp-type echo-req -j ACCEPT",
    "ip6tables -A FORWARD -p ipv6-icmp --icmpv6-type neighbour-solicitation -j ACCEPT",
    "ip6tables -A FORWARD -p icmpv6 --icmpv6-type 1/4 -m icmp6 --icmpv6-type packet-too-big -j ACCEPT",
    // Limits.
    "iptables -A FORWARD -m limit --limit 5/second -j ACCEPT\niptables -A FORWARD -m limit --limit 3/m -j LOG",
    "iptables -A FORWARD -m limit --limit 10 --limit-burst 20 -j ACCEPT\niptables -A FORWARD -m limit --limit 60/minute -j ACCEPT",
    "iptables -A FORWARD -m limit -j ACCEPT\niptables -A FORWARD -m limit --limit 7/day --limit-burst 5 -j ACCEPT",
    "iptables -A FORWARD -m hashlimit --hashlimit-above 20/sec --hashlimit-mode srcip --hashlimit-name a -j DROP",
    "iptables -A FORWARD -m hashlimit --hashlimit 60/min --hashlimit-mode dstip,srcip --hashlimit-name b -j ACCEPT",
    "iptables -A FORWARD -m hashlimit ! --hashlimit-upto 600/hour --hashlimit-burst 9 --hashlimit-name c --hashlimit-htable-expire 5000 -j DROP",
    "iptables -A FORWARD -m hashlimit --hashlimit-upto 3000/s --hashlimit-srcmask 24 --hashlimit-mode srcip --hashlimit-name d -j DROP",
    "iptables -A FORWARD -m hashlimit --hashlimit-above 7/day --hashlimit-name e --hashlimit-htable-size 64 --hashlimit-htable-max 100 -j DROP",
    "iptables -A FORWARD -p tcp -m connlimit --connlimit-above 5 -j REJECT",
    "iptables -A FORWARD -m connlimit ! --connlimit-above 5 --connlimit-mask 24 -j ACCEPT",
    "iptables -A FORWARD -m connlimit --connlimit-upto 5 --connlimit-daddr -j ACCEPT",
    "ip6tables -A FORWARD -m connlimit --connlimit-above 5 -j DROP",
    // Other matches.
    "iptables -A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 10.1.0.1 -j ACCEPT",
    "iptables -A FORWARD -m addrtype --dst-type local -j ACCEPT\niptables -A FORWARD -m addrtype --src-type MULTICAST,UNICAST -j DROP",
    "iptables -A FORWARD -m mark --mark 16 -j ACCEPT\niptables -A FORWARD -m mark ! --mark 0x1/255 -j DROP",
    "iptables -A FORWARD -m connmark --mark 1/0xffffffff -j ACCEPT",
    "iptables -A FORWARD -m mac --mac-source AA:BB:CC:DD:EE:F -j ACCEPT",
    "iptables -A FORWARD -m statistic --mode nth --every 3 --packet 2 -j ACCEPT",
    "iptables -A FORWARD -m statistic --probability .5 --mode random -j ACCEPT",
    "iptables -A FORWARD -m recent --set --name ssh --rsource\niptables -A FORWARD -m recent --update --seconds 60 --hitcount 4 -j DROP",
    "iptables -A FORWARD -m length --length 100: -m pkttype --pkt-type unicast -m ttl --ttl 5 -j ACCEPT",
    "iptables -A FORWARD -m helper --helper ftp -m physdev --physdev-is-bridged -j ACCEPT",
    "iptables -A FORWARD -m string --string 'a b' --algo bm --to 65 -j DROP",
    "iptables -A FORWARD -m set --match-set listed src -j DROP\niptables -A FORWARD -m set ! --set listed dst,src -j DROP",
    "iptables -t raw -A PREROUTING -m rpfilter --invert -j DROP",
    // Targets.
    "iptables -A FORWARD -j REJECT\nip6tables -A FORWARD -j REJECT",
    "iptables -A FORWARD -p tcp -j REJECT --reject-with tcp-rst\niptables -A FORWARD -j REJECT --reject-with host-prohib",
    "ip6tables -A FORWARD -j REJECT --reject-with adm-prohibited\nip6tables -A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
    "iptables -A FORWARD -j LOG\niptables -A FORWARD -j LOG --log-level warning --log-prefix 'a b: '",
    "iptables -A FORWARD -j LOG --log-level debug --log-uid --log-prefix fw --log-ip-options",
    "iptables -A FORWARD -j LOG --log-level 4\niptables -A FORWARD -j LOG --log-level crit",
    "iptables -A FORWARD -j LOG --log-prefix 'a prefix of more than 29 bytes is cut'",
    "iptables -A FORWARD -j NFLOG --nflog-group 3 --nflog-prefix 'a b'",
    "iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.2-10.0.0.5:8080-8090 --random --persistent",
    "iptables -t nat -A PREROUTING -p tcp --dport 5000:5010 -j DNAT --to 10.0.0.2:2000-2010/5000",
    "iptables -t nat -A PREROUTING -p udp -j DNAT --to 10.0.0.2-10.0.0.2:53-53",
    "iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to 8080\niptables -t nat -A OUTPUT -p tcp -j REDIRECT",
    "iptables -t nat -A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -o eth0 -j MASQUERADE --random",
    "iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 1024-65535 --random-fully",
    "iptables -t nat -A POSTROUTING -j SNAT --to 10.3.0.4-10.3.0.7 --persistent --random",
    "iptables -t nat -A PREROUTING -d 10.5.0.0/24 -j NETMAP --to 10.6.0.0/24",
    "ip6tables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination [fd00::2]:8080",
    "ip6tables -t nat -A PREROUTING -j DNAT --to-destination fd00::2\nip6tables -t nat -A POSTROUTING -j SNAT --to fd00::1-fd00::4",
    "ip6tables -t nat -A PREROUTING -p tcp -j DNAT --to-destination [fd00::2-fd00::5]:80-90",
    "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    "iptables -t mangle -A FORWARD -p tcp --syn -j TCPMSS --set-mss 1400",
    "iptables -t mangle -A FORWARD -j MARK --set-mark 5\niptables -t mangle -A FORWARD -j MARK --set-mark 0x5/0xff",
    "iptables -t mangle -A FORWARD -j MARK --or-mark 5\niptables -t mangle -A FORWARD -j MARK --and-mark 5\niptables -t mangle -A FORWARD -j MARK --xor-mark 5",
    "iptables -t mangle -A FORWARD -j CONNMARK --set-mark 1/2\niptables -t mangle -A FORWARD -j CONNMARK --save-mark --mask 0xff",
    "iptables -t mangle -A FORWARD -j CONNMARK --restore-mark\niptables -t mangle -A FORWARD -j CONNMARK --save-mark --nfmask 1 --ctmask 2",
    "iptables -t raw -A PREROUTING -p udp --dport 53 -j CT --notrack",
    "iptables -A FORWARD -p tcp",
    "iptables -A FORWARD",
    "iptables -t nat -A PREROUTING -p tcp -j DNAT --to :80\niptables -t nat -A PREROUTING -p tcp -j DNAT --to 10.0.0.1:http",
    "iptables -t nat -A PREROUTING -p tcp -j DNAT --to 10.0.0.9-10.0.0.1\niptables -t nat -A INPUT -j SNAT --to 10.0.0.1",
    "iptables -A FORWARD -j REJECT --reject-with icmp-p\niptables -A FORWARD -p tcp -j REJECT --reject-with tcp",
    "iptables -A FORWARD -p esp --espspi 5 -j ACCEPT\niptables -A FORWARD -p tcp --tcp-option 5 -j DROP",
    // Chains.
    "iptables -N X\niptables -A FORWARD -j X\niptables -A X -j RETURN\niptables -N Y\niptables -A X -g Y",
    "iptables --new-chain web\niptables --append web --jump RETURN\niptables --rename-chain web mail\niptables -A FORWARD -j mail",
    "iptables -N X\niptables -A FORWARD -j X\niptables -A INPUT -g X\niptables -E X Y",
    "iptables -N X\niptables -A X -j DROP\niptables -F X\niptables -X X",
    "iptables -N X\niptables -N Y\niptables -X\niptables -A FORWARD -j DROP",
    "iptables -A FORWARD -j DROP\niptables -A INPUT -j DROP\niptables -F FORWARD",
    "iptables -A FORWARD -j DROP\niptables -t nat -A POSTROUTING -j MASQUERADE\niptables -F",
    "iptables -A FORWARD -s 10.0.0.1 -j DROP\niptables -A FORWARD -s 10.0.0.2 -j DROP\niptables -D FORWARD 1",
    "iptables -A FORWARD -p tcp --dport 80 -j DROP\niptables -A FORWARD -j LOG\niptables -D FORWARD --protocol 6 --dport http -j DROP",
    "iptables -A FORWARD -s 10.0.0.1,10.0.0.2,10.0.0.3 -j DROP\niptables -D FORWARD -s 10.0.0.1,10.0.0.3 -j DROP",
    "iptables -A FORWARD -j DROP\niptables -R FORWARD 1 -p udp -j ACCEPT\niptables -I FORWARD 1 -j LOG\niptables -I FORWARD 3 -j LOG",
    "iptables -P FORWARD DROP\niptables -P INPUT DROP\niptables -P INPUT ACCEPT\niptables --policy OUTPUT ACCEPT",
    "iptables -L -n -v\niptables -S FORWARD\niptables -Z\niptables -L FORWARD 1 --line-numbers\niptables -h\niptables -V\niptables -A FORWARD -j DROP\niptables -C FORWARD -j DROP",
    "iptables -A FORWARD -j DROP\nip6tables -P FORWARD DROP\nip6tables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
];

/// Commands that iptables refuses.
const REFUSED: &[&str] = &[
    "iptables -A FORWARD --dport 80 -p tcp",
    "iptables -A FORWARD --dport 80",
    "iptables -A FORWARD -p tcp --dports 80",
    "iptables -A FORWARD --in eth0",
    "iptables -A FORWARD -p tcp ACCEPT",
    "iptables -A FORWARD -p tcp -p udp",
    "iptables -A FORWARD -p tcp --dport 80 --dport 81",
    "iptables -A FORWARD -p tcp --dport 80 --destination-port 81",
    "iptables -A FORWARD -p tcp --dport 90:80",
    "iptables -A FORWARD -p tcp --dport 65536",
    "iptables -A FORWARD -p tcp --dport nosuchservice",
    "iptables -A FORWARD -p nosuch",
    "iptables -A FORWARD -p 256",
    "iptables -A FORWARD ! -p all",
    "iptables -A FORWARD ! ! -p tcp",
    "iptables -A FORWARD ! -j ACCEPT",
    "iptables -A FORWARD -s 10.0.0.256",
    "iptables -A FORWARD -s 10.0.0.1/33",
    "iptables -A FORWARD -s 10.0.0.1.2",
    "iptables -A FORWARD -s fd00::1",
    "ip6tables -A FORWARD -s 10.0.0.1",
    "iptables -A FORWARD ! -s 10.0.0.1,10.0.0.2",
    "iptables -A FORWARD -i a-name-of-16-byt",
    "iptables -A FORWARD -i ''",
    "iptables -A INPUT -o eth0",
    "iptables -t nat -A POSTROUTING -i eth0 -j MASQUERADE",
    "iptables -A FORWARD -m nosuch",
    "iptables -A FORWARD -m conntrack",
    "iptables -A FORWARD -m conntrack --ctstate NEW,,RELATED",
    "iptables -A FORWARD -m conntrack --ctstate OLD",
    "iptables -A FORWARD -m conntrack --ctstate NEW --ctstate RELATED",
    "iptables -A FORWARD -m state --state DNAT",
    "iptables -A FORWARD -m multiport --dports 80",
    "iptables -A FORWARD -p tcp -m multiport",
    "iptables -A FORWARD -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
    "iptables -A FORWARD -p icmp -m icmp",
    "iptables -A FORWARD -p icmp --icmp-type nosuch",
    "iptables -A FORWARD -m limit --limit 0/s",
    "iptables -A FORWARD -m limit --limit 5/fortnight",
    "iptables -A FORWARD -m limit --limit 20000/s",
    "iptables -A FORWARD ! -m limit --limit 5/s",
    "iptables -A FORWARD -m limit ! --limit 5/s",
    "iptables -A FORWARD -m hashlimit --hashlimit-name x",
    "iptables -A FORWARD -m hashlimit --hashlimit-above 5/s",
    "iptables -A FORWARD -m comment",
    "iptables -A FORWARD -m mark",
    "iptables -A FORWARD -m mark --mark x",
    "iptables -A FORWARD -m statistic --mode random --probability 2",
    "iptables -A FORWARD -m addrtype --dst-type mine",
    "iptables -A FORWARD -m mac --mac-source aa:bb",
    "iptables -A FORWARD -p tcp --tcp-flags SYN",
    "iptables -A FORWARD -p tcp --tcp-flags SIN SYN",
    "iptables -A FORWARD -j NOSUCH",
    "iptables -A FORWARD -j accept",
    "iptables -A FORWARD -g NOSUCH",
    "iptables -A FORWARD -j INPUT",
    "iptables -A FORWARD -j ACCEPT -j DROP",
    "iptables -A FORWARD -j REJECT --reject-with nothing",
    "iptables -A FORWARD -j REJECT --reject-with tcp-reset",
    "iptables -A FORWARD -j LOG --log-level loud",
    "iptables -A FORWARD -j LOG --log-prefix",
    "iptables -A FORWARD -j LOG --log-prefix ''",
    "iptables -A FORWARD -j DNAT --to-destination 10.0.0.1",
    "iptables -t nat -A POSTROUTING -j DNAT --to-destination 10.0.0.1",
    "iptables -t nat -A PREROUTING -j DNAT",
    "iptables -t nat -A PREROUTING -j DNAT --to-destination 10.0.0.1:80",
    "iptables -t nat -A PREROUTING -j DNAT --to-destination web",
    "iptables -t nat -A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:99999",
    "iptables -t nat -A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1 --to-destination 10.0.0.2",
    "iptables -t nat -A PREROUTING -j SNAT --to-source 10.0.0.1",
    "iptables -A FORWARD -j MASQUERADE",
    "iptables -t nat -A PREROUTING -j REDIRECT --to-ports 80",
    "iptables -t nat -A PREROUTING -j DROP",
    "iptables -t nat -P PREROUTING DROP",
    "iptables -t nat -A FORWARD -j ACCEPT",
    "iptables -t nosuch -A FORWARD -j ACCEPT",
    "iptables -t mangle -A FORWARD -j MARK",
    "iptables -t mangle -A FORWARD -j MARK --set-mark x",
    "iptables -t mangle -A FORWARD -j TCPMSS --set-mss 1400",
    "iptables -A FORWARD -j CT --notrack",
    "iptables -A NOSUCH -j ACCEPT",
    "iptables -F NOSUCH",
    "iptables -X NOSUCH",
    "iptables -X FORWARD",
    "iptables -N FORWARD",
    "iptables -N X\niptables -N X",
    "iptables -N -x",
    "iptables -N DROP",
    "iptables -N a-name-of-more-than-28-bytes-x",
    "iptables -N X\niptables -A X -j DROP\niptables -X X",
    "iptables -N X\niptables -A FORWARD -j X\niptables -X X",
    "iptables -N X\niptables -P X DROP",
    "iptables -P FORWARD REJECT",
    "iptables -P FORWARD",
    "iptables -D FORWARD -j ACCEPT",
    "iptables -D FORWARD 1",
    "iptables -D FORWARD 0",
    "iptables -I FORWARD 2 -j ACCEPT",
    "iptables -R FORWARD 1 -j ACCEPT",
    "iptables -R FORWARD -j ACCEPT",
    "iptables -A FORWARD -j DROP\niptables -R FORWARD 1 -s 10.0.0.1,10.0.0.2 -j DROP",
    "iptables -A FORWARD -I FORWARD",
    "iptables -N X -p tcp",
    "iptables -p tcp -j ACCEPT",
    "iptables",
    "iptables -A",
    "iptables -6 -A FORWARD",
    "ip6tables -4 -A FORWARD",
    "ip6tables -A FORWARD -f",
    "ip6tables -A FORWARD -p icmp -m icmp --icmp-type 8",
    "iptables -A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128",
    "iptables -Q",
    "iptables --nosuch",
    "iptables -A FORWARD –p tcp",
    "iptables -A FORWARD -n -j DROP",
    "iptables -A FORWARD --line-numbers -j DROP",
    "iptables -A FORWARD -ptcp -j DROP",
    "iptables -A FORWARD --protocol=tcp -j DROP",
    "iptables -A FORWARD -s10.0.0.1",
    "iptables -A FORWARD -jACCEPT",
    "iptables -A FORWARD -m multiport --dports 80 -p tcp",
    "iptables -A FORWARD -p tcp -m multiport --dports 80 --sports 81",
    "iptables -A FORWARD -m statistic --mode nth --every 3",
    "iptables -A FORWARD -m statistic --mode nth --every 3 --packet 3",
    "iptables -A FORWARD -m statistic --mode random",
    "iptables -A FORWARD -m recent --seconds 5",
    "iptables -A FORWARD -m recent --set --update",
    "iptables -A FORWARD -m string --string x",
    "iptables -A FORWARD -m hashlimit --hashlimit-above 5/s --hashlimit-upto 6/s --hashlimit-name x",
    "iptables -A FORWARD -m connlimit --connlimit-above 5 --connlimit-upto 6",
    "iptables -A FORWARD -m connlimit --connlimit-saddr",
    "iptables -A FORWARD -m addrtype",
    "iptables -A FORWARD -m owner --uid-owner 0",
    "iptables -A FORWARD -m mark --mark 1 --mark 2",
    "iptables -A FORWARD -m mac --mac-source aabbccddeeff",
    "iptables -A FORWARD -m limit --limit 5/secs",
    "iptables -A FORWARD -m limit --limit 5/",
    "iptables -A FORWARD -j LOG --log-level warn",
    "iptables -A FORWARD -j LOG --log-level 8",
    "iptables -A FORWARD -p tcp --dport 08",
    "iptables -A FORWARD -p tcp --dport 80,443",
    "iptables -A FORWARD -p tcp -m multiport --dports 80,",
    "iptables -A FORWARD -s 10.0.0.1,",
    "iptables -A FORWARD -s 10.0.0.1/08",
    "iptables -t nat -A OUTPUT -j MASQUERADE",
    "iptables -t nat -A PREROUTING -p tcp -j DNAT --to 10.0.0.1:",
    "iptables -t nat -A PREROUTING -j DNAT --to 10.0.0.1/24",
    "iptables -t mangle -A FORWARD -j MARK --set-mark 1 --or-mark 2",
    "iptables -D FORWARD 1 -p tcp",
    "iptables -L -A FORWARD",
    "iptables -w x -A FORWARD",
];

/// Commands that nvactl reads although iptables 1.8.9 refuses them, each with what it reads.
const READ_ALL_THE_SAME: &[(&str, &str)] = &[
    // iptables took `!` behind the option until 1.4; scripts of that time still stand on machines.
    (
        "iptables -A FORWARD -s ! 10.0.0.0/8 -p tcp --dport ! 80 -j DROP",
        "-A FORWARD ! -s 10.0.0.0/8 -p tcp -m tcp ! --dport 80 -j DROP",
    ),
    // iptables wants the protocol first.
    (
        "iptables -t nat -A PREROUTING -j DNAT --to 10.0.0.2:80 -p tcp",
        "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.2:80",
    ),
    // The set is on another machine.
    (
        "iptables -A FORWARD -m set --match-set nosuch src -j DROP",
        "-A FORWARD -m set --match-set nosuch src -j DROP",
    ),
    // Another program makes the chain.
    (
        "iptables -A FORWARD -j DOCKER-USER\niptables -I DOCKER-USER -j DROP",
        ":DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j DROP",
    ),
];

/// Commands that iptables takes and nvactl refuses, since it does not ask the machine.
const REFUSED_HERE: &[&str] = &[
    "iptables -A FORWARD -s localhost -j DROP",
    "PORT=80; iptables -A FORWARD -p tcp --dport $PORT -j DROP",
    "iptables -A FORWARD -j DROP && true",
    "iptables -A FORWARD -j DROP > /dev/null",
    "iptables -S | iptables -A FORWARD -j DROP",
    "true",
];

/// Texts of iptables-save as people write them, and the programs that load them.
const LOADED: &[(&str, &[&str])] = &[
    (
        "*nat\n-A PREROUTING -p tcp --dport 80 -j DNAT --to 10.0.0.2:80\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n",
        &["iptables-restore"],
    ),
    (
        "# mine\n*filter\n:FORWARD DROP\n:web -\n[3:4] -A FORWARD -d 10.0.0.2 -p tcp --dport http -j web\n\
         -I web -m comment --comment \"a \\\"b\\\" c\" -j ACCEPT\n-N more\n-A more -s 10.0.0.1,10.0.0.2 -j web\nCOMMIT\n",
        &["iptables-restore"],
    ),
    (
        "*filter\n-A FORWARD -4 -s 10.0.0.1 -j ACCEPT\n-A FORWARD -6 -s fd00::1 -j ACCEPT\n-A FORWARD -p tcp --syn -j DROP\nCOMMIT\n",
        &["iptables-restore", "ip6tables-restore"],
    ),
    (
        "*filter\n-A FORWARD -p ipv6-icmp -j ACCEPT\n-A FORWARD -p icmpv6 --icmpv6-type echo-request -j ACCEPT\nCOMMIT\n",
        &["ip6tables-restore"],
    ),
    (
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\n-D FORWARD 1\n-P FORWARD DROP\n-A FORWARD -j LOG\n-F FORWARD\nCOMMIT\n",
        &["iptables-restore"],
    ),
];

/// Returns the tables that hold something, with their built-in chains.
fn told(ruleset: Ruleset) -> Ruleset {
    let mut ruleset = ruleset.with_builtin_chains();
    ruleset.tables.retain(|_, chains| {
        chains.iter().any(|(name, chain)| {
            !chain.rules.is_empty() || !name.is_builtin() || chain.policy == Some(Policy::Drop)
        })
    });
    ruleset
}

/// Returns the rules that nvactl reads of a family.
fn read(text: &str, family: Family) -> Result<Ruleset, String> {
    let read = read_typed(text).map_err(|error| error.to_string())?;
    let of_family = read.rules.into_iter().find(|(of, _)| *of == family);
    Ok(told(
        of_family.map(|(_, ruleset)| ruleset).unwrap_or_default(),
    ))
}

/// Runs a script in a namespace of its own and returns what the kernel has of both families behind it; `None` if a
/// command of it failed.
fn run(host: &Host, script: &str) -> Option<[Ruleset; 2]> {
    let script = format!(
        "ipset create listed hash:ip,port\n( set -e; {script}\n) > /dev/null 2>&1\niptables-save\necho ====\nip6tables-save"
    );
    let output = host.feed("unshare", &["--net", "sh", "-e", "-s"], &script);
    let printed = String::from_utf8(output.stdout).expect("it prints text");
    let (v4, v6) = output
        .status
        .success()
        .then(|| printed.split_once("====\n"))??;
    Some([v4, v6].map(|saved| told(parse(saved).expect("iptables-save printed it"))))
}

lab_test!(either typed_commands_are_read_as_the_kernel_gets_them);
fn typed_commands_are_read_as_the_kernel_gets_them(backend: Backend) {
    let host = host_with(backend);
    let mut wrong = Vec::new();
    for script in TAKEN {
        let Some(kernel) = run(&host, script) else {
            wrong.push(format!("iptables refuses:\n{script}"));
            continue;
        };
        for (family, kernel) in Family::ALL.into_iter().zip(kernel) {
            let ours = read(script, family);
            if ours.as_ref() != Ok(&kernel) {
                let ours = ours.map_or_else(|error| error, |ours| ours.to_string());
                wrong.push(format!("{script}\nnvactl:\n{ours}\nkernel:\n{kernel}"));
            }
        }
    }
    for script in REFUSED {
        let kernel = run(&host, script);
        let ours = read_typed(script);
        if kernel.is_some() || ours.is_ok() {
            wrong.push(format!(
                "{script}\nkernel takes: {}, nvactl: {ours:?}",
                kernel.is_some()
            ));
        }
    }
    for (script, expected) in READ_ALL_THE_SAME {
        let table = if expected.starts_with('*') {
            ""
        } else {
            "*filter\n"
        };
        let expected = format!("{table}{expected}\nCOMMIT\n");
        let expected = told(parse(&expected).expect("it is readable"));
        let ours = read(script, Family::V4);
        if run(&host, script).is_some() || ours.as_ref() != Ok(&expected) {
            wrong.push(format!("{script}: {ours:?}"));
        }
    }
    for script in REFUSED_HERE {
        if run(&host, script).is_none() || read_typed(script).is_ok() {
            wrong.push(format!("{script}: refused by the kernel, or read"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} wrong",
        wrong.join("\n\n"),
        wrong.len()
    );
}

lab_test!(either typed_text_is_read_as_the_kernel_gets_it);
fn typed_text_is_read_as_the_kernel_gets_it(backend: Backend) {
    let host = host_with(backend);
    for (text, programs) in LOADED {
        let loads: String = programs
            .iter()
            .map(|program| format!("{program} <<'END'\n{text}END\n"))
            .collect();
        let kernel = run(&host, &loads).unwrap_or_else(|| panic!("{programs:?} refuses {text}"));
        for (family, kernel) in Family::ALL.into_iter().zip(kernel) {
            assert_eq!(read(text, family), Ok(kernel), "{family}: {text}");
        }
    }
}
