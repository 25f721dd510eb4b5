//! Several pods behind one listener.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::lab::{Backend, FIREWALL, ILB, Lab, OTHER, POD};
use crate::traffic::serve_tcp;

const PODS: [&str; 3] = [ILB, POD, OTHER];

fn lab(backend: Backend, balance: &str) -> Lab {
    lab_with(backend, balance, FIREWALL)
}

fn lab_with(backend: Backend, balance: &str, snat: &str) -> Lab {
    let lab = Lab::one_nic(backend);
    for (host, name) in [(&lab.ilb, "ilb"), (&lab.pod, "pod"), (&lab.other, "other")] {
        serve_tcp(host, name, 80);
    }
    let pods = PODS.map(|pod| format!("{pod}:80")).join(", ");
    lab.apply(&format!(
        "firewall: {{interface: eth0, snat: {snat}}}
forwards: [{{name: web, listen: 8080, balance: {balance}, target: {{pod: [{pods}]}}}}]"
    ));
    lab
}

/// Who answers a connection from `from`, and the peer that it saw.
fn ask_whole(from: IpAddr, to: SocketAddr) -> (String, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
    socket
        .bind(&SocketAddr::new(from, 0).into())
        .expect("the address is the client's");
    socket
        .connect(&to.into())
        .expect("the firewall forwards it");
    let mut stream = std::net::TcpStream::from(socket);
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it takes the request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let body = text.rsplit("\r\n").next().expect("it has a body");
    let (name, peer) = body.split_once(' ').expect("it has both");
    (name.to_owned(), peer.to_owned())
}

fn ask(from: IpAddr, to: SocketAddr) -> String {
    ask_whole(from, to).0
}

fn listener() -> SocketAddr {
    SocketAddr::new(FIREWALL.parse().expect("an address"), 8080)
}

lab_test!(connections_are_shared_evenly);
/// Five standard deviations of a fair draw: 3,000 connections, each with one in three.
fn connections_are_shared_evenly(backend: Backend) {
    const CONNECTIONS: u32 = 3000;
    let lab = lab(backend, "random");
    let client: IpAddr = crate::lab::CLIENT.parse().expect("an address");
    let names: Vec<String> = lab
        .client
        .enter(move || (0..CONNECTIONS).map(|_| ask(client, listener())).collect());
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for name in &names {
        *counts.entry(name).or_default() += 1.0;
    }
    let share = 1.0 / 3.0;
    let expected = f64::from(CONNECTIONS) * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    assert_eq!(counts.len(), PODS.len(), "{counts:?}");
    for count in counts.values() {
        assert!((count - expected).abs() < 5.0 * deviation, "{counts:?}");
    }
}

fn forty_clients(lab: &Lab) -> Vec<IpAddr> {
    let clients: Vec<IpAddr> = (20..60u8).map(|n| [198, 51, 100, n].into()).collect();
    lab.vnet.run("ip route add 198.51.100.0/24 dev client");
    for client in &clients {
        lab.client
            .run(&format!("ip address add {client}/32 dev eth0"));
    }
    clients
}

lab_test!(a_client_keeps_its_pod);
/// Whatever comes in between: another apply of the same, and other clients.
fn a_client_keeps_its_pod(backend: Backend) {
    let lab = lab(backend, "client");
    let clients = forty_clients(&lab);
    let mut pods: BTreeMap<IpAddr, String> = BTreeMap::new();
    for _ in 0..5 {
        let clients = clients.clone();
        let round: Vec<(IpAddr, String)> = lab.client.enter(move || {
            let each = clients
                .into_iter()
                .map(|client| (client, ask(client, listener())));
            each.collect()
        });
        for (client, pod) in round {
            let first = pods.entry(client).or_insert_with(|| pod.clone());
            assert_eq!(*first, pod, "{client} has left its pod");
        }
    }
    // Forty clients that all fell on one pod would be shared by nothing.
    let mut used: Vec<&String> = pods.values().collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), PODS.len(), "{pods:?}");
}

lab_test!(a_client_keeps_its_address_of_a_range);
/// Whichever pod a connection goes to.
fn a_client_keeps_its_address_of_a_range(backend: Backend) {
    let lab = lab_with(backend, "random", "10.3.0.4-10.3.0.7");
    for n in 5..=7 {
        lab.firewall
            .run(&format!("ip address add 10.3.0.{n}/24 dev eth0"));
    }
    let clients = forty_clients(&lab);
    let asked: Vec<(IpAddr, String, String)> = lab.client.enter(move || {
        let each = clients.iter().flat_map(|client| [*client; 8]);
        each.map(|client| {
            let (pod, source) = ask_whole(client, listener());
            (client, pod, source)
        })
        .collect()
    });
    let mut sources: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (client, pod, source) in &asked {
        let first = sources.entry(*client).or_insert(source);
        assert_eq!(first, source, "{client} at {pod}");
    }
    // One pod for all, or one address for all, would show nothing.
    let pods: BTreeSet<&String> = asked.iter().map(|(_, pod, _)| pod).collect();
    let used: BTreeSet<&&str> = sources.values().collect();
    assert_eq!((pods.len(), used.len()), (PODS.len(), 4), "{asked:?}");
}
