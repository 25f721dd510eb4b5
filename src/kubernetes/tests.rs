//! Objects in, forwards and faults out.

use super::*;
use crate::forwards::{Firewall, ForwardPolicy, Snat, Snats};
use crate::net::{PortRange, Protocol};

/// The Service of the article.
const TMP_SHELL: &str = r#"{"apiVersion": "v1", "kind": "Service",
 "metadata": {"name": "tmp-shell", "namespace": "default", "annotations": {
  "service.beta.kubernetes.io/azure-load-balancer-internal": "true"}},
 "spec": {"type": "LoadBalancer", "clusterIP": "10.0.14.2", "clusterIPs": ["10.0.14.2"],
  "ports": [{"port": 49180, "targetPort": 80, "nodePort": 31990, "protocol": "TCP"}]},
 "status": {"loadBalancer": {"ingress": [{"ip": "10.224.0.222", "ipMode": "VIP"}]}}}"#;

fn list(items: &[&str]) -> String {
    let items = items.join(",\n");
    format!(r#"{{"apiVersion": "v1", "kind": "List", "metadata": {{}}, "items": [{items}]}}"#)
}

/// A load balancer with these fields of its spec, and these addresses.
fn balancer(name: &str, spec: &str, ingress: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("it has a namespace");
    format!(
        r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}", "namespace": "{namespace}"}},
 "spec": {{"type": "LoadBalancer", {spec}}}, "status": {{"loadBalancer": {{"ingress": [{ingress}]}}}}}}"#
    )
}

fn objects(text: &str) -> KubeObjects {
    read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn firewall() -> Firewall {
    Firewall {
        ingress: vec!["eth0".parse().expect("an interface")],
        egress: "eth0".parse().expect("an interface"),
        snat: Snats {
            v4: Some(Snat::Masquerade),
            v6: Some(Snat::Masquerade),
        },
        mss: None,
        forward_policy: ForwardPolicy::Drop,
        layout: None,
    }
}

#[test]
fn one_object_and_lists_of_each_form_are_the_same() {
    let typed = TMP_SHELL.replace(r#""apiVersion": "v1", "kind": "Service","#, "");
    let typed = format!(r#"{{"kind": "ServiceList", "apiVersion": "v1", "items": [{typed}]}}"#);
    let expected = objects(TMP_SHELL).services;
    assert_eq!(expected.len(), 1);
    for text in [
        list(&[TMP_SHELL]),
        typed,
        format!("\u{feff}{TMP_SHELL}\n"),
        TMP_SHELL.replace('\n', "\r\n"),
    ] {
        assert_eq!(objects(&text).services, expected, "{text}");
    }
    for empty in [
        r#"{"apiVersion": "v1", "kind": "List", "items": []}"#,
        r#"{"apiVersion": "v1", "kind": "ServiceList", "items": null}"#,
    ] {
        assert_eq!(objects(empty).services, []);
    }
}

/// A cluster has kinds of its own, whose fields may have the names and not the types of those that are read.
#[test]
fn objects_of_other_kinds_may_have_any_form() {
    let others = [
        r#"{"apiVersion": "example.com/v1", "kind": "Router", "metadata": {"name": 7}, "spec": {"ports": "all", "type": []}, "items": null}"#,
        r#"{"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello"}, "spec": {"ports": "none"}}"#,
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "data": {"kind": "Service"}}"#,
    ];
    let text = list(&[others[0], TMP_SHELL, others[1], others[2]]);
    assert_eq!(objects(&text).services, objects(TMP_SHELL).services);
    assert_eq!(objects(others[1]).services, []);
}

#[test]
fn an_error_names_its_line_and_column() {
    let in_list = |from: &str, to: &str| list(&["{\"kind\": \"X\"}", &TMP_SHELL.replace(from, to)]);
    let texts = [
        "",
        " \n",
        "kind: List\nitems: []\n",
        "apiVersion: v1\n",
        &TMP_SHELL[..100],
        "[]",
        "{}",
        "{\"kind\": \"List\",\n \"items\": [\n  {}]}",
        &in_list("49180", "70000"),
        &in_list("49180", "0"),
        &in_list("49180", "\"http\""),
        &in_list("\"TCP\"", "\"QUIC\""),
        &in_list("10.224.0.222", "10.224.0"),
        &in_list("\"name\": \"tmp-shell\", ", ""),
        &list(&[r#"{"apiVersion": "v1", "kind": "Service"}"#]),
        &TMP_SHELL.replace(r#""apiVersion": "v1", "#, ""),
        &list(&[TMP_SHELL]).replace(r#""apiVersion": "v1", "#, ""),
    ];
    let errors = texts.map(|text| {
        let error = read(text.as_bytes()).expect_err(text);
        format!("{error}\n")
    });
    insta::assert_snapshot!(errors.concat());
    assert_eq!(read(b"\xff{}").map(|_| ()), Err(KubeError::NotUtf8));
    // PowerShell 5 writes such text with `>`.
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let text = TMP_SHELL.encode_utf16();
        let text: Vec<u8> = [0xfeff].into_iter().chain(text).flat_map(bytes).collect();
        let error = read(&text).expect_err("it is UTF-16");
        assert_eq!(error, KubeError::Utf16);
        assert!(error.hint().contains("Out-File -Encoding utf8"));
    }
    // The depth that serde_json allows, and beyond.
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let deep = format!("{{\"kind\": \"List\", \"apiVersion\": {deep}}}");
    assert!(read(deep.as_bytes()).is_err());
}

/// Returns the account of each Service in words, then the forwards.
fn drafted(items: &[&str]) -> String {
    let objects = objects(&list(items));
    let draft = draft(&objects.services, firewall());
    let mut text = String::new();
    for account in &draft.accounts {
        let place = account.endpoint.as_ref().map(|one| {
            let protocols: Vec<String> = one.protocols.iter().map(ToString::to_string).collect();
            format!(" {} {}:{}", protocols.join(","), one.address, one.port)
        });
        let fate = match &account.fate {
            ServiceFate::Forward(name) => format!("forward {name}"),
            ServiceFate::Sketched(name, reason) => format!("commented out {name}: {reason}"),
            ServiceFate::LeftOut(reason) => format!("left out: {reason}"),
        };
        text += &format!("{}{}: {fate}\n", account.service, place.unwrap_or_default());
    }
    for one in &draft.set.forwards {
        text += &format!(
            "{} {} {} -> {}\n",
            one.name,
            one.protocol,
            one.listen.ports,
            one.reaches()
        );
    }
    text
}

#[test]
fn a_load_balancer_is_forwarded_by_the_port_that_it_exposes() {
    assert_eq!(
        drafted(&[TMP_SHELL]),
        "default/tmp-shell tcp 10.224.0.222:49180: forward default-tmp-shell-49180\n\
         default-tmp-shell-49180 tcp 49180 -> 10.224.0.222:49180\n"
    );
}

#[test]
fn a_port_of_two_protocols_is_one_forward_and_each_family_has_its_own() {
    let dns = balancer(
        "infra/dns",
        r#""ports": [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "name": "dns-tcp"},
            {"port": 53, "protocol": "SCTP"}]"#,
        r#"{"ip": "10.224.0.230"}, {"ip": "fd00:224::230"}"#,
    );
    insta::assert_snapshot!(drafted(&[&dns]), @r"
    infra/dns tcp,udp 10.224.0.230:53: forward infra-dns-53
    infra/dns sctp 10.224.0.230:53: left out: a forward takes tcp and udp only
    infra/dns tcp,udp fd00:224::230:53: forward infra-dns-53-v6
    infra/dns sctp fd00:224::230:53: left out: a forward takes tcp and udp only
    infra-dns-53 tcp 53 -> 10.224.0.230:53
    infra-dns-53 udp 53 -> 10.224.0.230:53
    infra-dns-53-v6 tcp 53 -> [fd00:224::230]:53
    infra-dns-53-v6 udp 53 -> [fd00:224::230]:53
    ");
}

#[test]
fn a_port_that_is_taken_is_the_users_to_decide() {
    let web = balancer(
        "shop/web",
        r#""ports": [{"port": 443}, {"port": 22}]"#,
        r#"{"ip": "10.224.0.231"}"#,
    );
    let quic = balancer(
        "shop/quic",
        r#""ports": [{"port": 443, "protocol": "UDP"}, {"port": 22, "protocol": "UDP"}]"#,
        r#"{"ip": "10.224.0.232"}"#,
    );
    let both = balancer(
        "shop/both",
        r#""ports": [{"port": 443}, {"port": 443, "protocol": "UDP"}]"#,
        r#"{"ip": "10.224.0.233"}, {"ip": "fd00:224::233"}"#,
    );
    insta::assert_snapshot!(drafted(&[&web, &quic, &both]), @r"
    shop/web tcp 10.224.0.231:443: forward shop-web-443
    shop/web tcp 10.224.0.231:22: commented out shop-web-22: it would take port 22 from the firewall's own ssh
    shop/quic udp 10.224.0.232:443: forward shop-quic-443
    shop/quic udp 10.224.0.232:22: forward shop-quic-22
    shop/both tcp,udp 10.224.0.233:443: commented out shop-both-443: `shop-web-443` listens on this port already
    shop/both tcp,udp fd00:224::233:443: forward shop-both-443-v6
    shop-web-443 tcp 443 -> 10.224.0.231:443
    shop-quic-443 udp 443 -> 10.224.0.232:443
    shop-quic-22 udp 22 -> 10.224.0.232:22
    shop-both-443-v6 tcp 443 -> [fd00:224::233]:443
    shop-both-443-v6 udp 443 -> [fd00:224::233]:443
    ");
}

#[test]
fn a_protocol_that_is_free_does_not_wait_for_the_other() {
    let ports = r#""ports": [{"port": 443}, {"port": 443, "protocol": "UDP"}, {"port": 22}, {"port": 22, "protocol": "UDP"}]"#;
    let web = balancer(
        "a/web",
        r#""ports": [{"port": 443}]"#,
        r#"{"ip": "10.0.0.1"}"#,
    );
    let both = balancer("a/both", ports, r#"{"ip": "10.0.0.2"}"#);
    insta::assert_snapshot!(drafted(&[&web, &both]), @r"
    a/web tcp 10.0.0.1:443: forward a-web-443
    a/both udp 10.0.0.2:443: forward a-both-443
    a/both tcp 10.0.0.2:443: commented out a-both-443-2: `a-web-443` listens on this port already
    a/both udp 10.0.0.2:22: forward a-both-22
    a/both tcp 10.0.0.2:22: commented out a-both-22-2: it would take port 22 from the firewall's own ssh
    a-web-443 tcp 443 -> 10.0.0.1:443
    a-both-443 udp 443 -> 10.0.0.2:443
    a-both-22 udp 22 -> 10.0.0.2:22
    ");
}

/// Two lists that were put together, or a controller that reports an address twice.
#[test]
fn a_service_or_an_address_that_is_there_twice_counts_once() {
    let once = drafted(&[TMP_SHELL]);
    assert_eq!(drafted(&[TMP_SHELL, TMP_SHELL]), once);
    let address = r#"{"ip": "10.224.0.222", "ipMode": "VIP"}"#;
    let twice = TMP_SHELL.replace(address, &format!("{address}, {address}"));
    assert_eq!(drafted(&[&twice]), once);
    let contents = objects(&list(&[TMP_SHELL, TMP_SHELL])).contents();
    assert_eq!(contents, "1 Service and no pods");
}

#[test]
fn only_internal_load_balancers_with_an_address_are_forwarded() {
    let ports = r#""ports": [{"port": 80}]"#;
    let public = balancer("a/public", ports, r#"{"ip": "20.1.2.3"}"#);
    // A virtual network may have public addresses, and the annotation says that it is internal.
    let annotated = public.replace(
        r#""namespace": "a"}"#,
        r#""namespace": "a", "annotations": {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"}}"#,
    );
    let annotated = annotated.replace("public", "annotated");
    let not = annotated
        .replace("\"true\"", "\"false\"")
        .replace("annotated", "not");
    let pending = balancer("a/pending", ports, "");
    let none = pending
        .replace(r#"{"loadBalancer": {"ingress": []}}"#, "{}")
        .replace("pending", "none");
    let named = balancer("a/named", ports, r#"{"hostname": "x.elb.example"}"#);
    let no_ports = balancer("a/no-ports", r#""ports": null"#, r#"{"ip": "10.0.0.9"}"#);
    let cluster = balancer("a/cluster", ports, "").replace("LoadBalancer\"", "ClusterIP\"");
    let items = [
        &public, &annotated, &not, &pending, &none, &named, &no_ports, &cluster,
    ];
    insta::assert_snapshot!(drafted(&items.map(String::as_str)), @r"
    a/public: left out: its load balancer is not internal: 20.1.2.3 is a public address
    a/annotated tcp 20.1.2.3:80: forward a-annotated-80
    a/not: left out: its load balancer is not internal: 20.1.2.3 is a public address
    a/pending: left out: its load balancer has no address yet; `kubectl describe service` says what it waits for
    a/none: left out: its load balancer has no address yet; `kubectl describe service` says what it waits for
    a/named: left out: its load balancer has the name `x.elb.example` and no address, and a target is an address
    a/no-ports: left out: it exposes no port
    a/cluster: left out: it has no load balancer
    a-annotated-80 tcp 80 -> 20.1.2.3:80
    ");
}

/// cloud-provider-azure makes no rule for such a port. It is usual for Istio's 15021.
#[test]
fn a_port_without_a_rule_of_the_load_balancer_is_left_out() {
    let istio = TMP_SHELL
        .replace("tmp-shell", "istio")
        .replace(
            r#"internal": "true""#,
            r#"internal": "true", "service.beta.kubernetes.io/port_15021_no_lb_rule": "True",
            "service.beta.kubernetes.io/port_443_no_lb_rule": "false""#,
        )
        .replace(
            r#""ports": ["#,
            r#""ports": [{"port": 15021}, {"port": 443}, "#,
        );
    assert_eq!(
        drafted(&[&istio]),
        "default/istio tcp 10.224.0.222:15021: left out: its load balancer does not have this port: the annotation \
         `service.beta.kubernetes.io/port_15021_no_lb_rule` is set\n\
         default/istio tcp 10.224.0.222:443: forward default-istio-443\n\
         default/istio tcp 10.224.0.222:49180: forward default-istio-49180\n\
         default-istio-443 tcp 443 -> 10.224.0.222:443\n\
         default-istio-49180 tcp 49180 -> 10.224.0.222:49180\n"
    );
    let found = objects(&istio);
    assert_eq!(
        fault(&found, "10.224.0.222", TCP, "15021"),
        "the Service `default/istio` has not tcp/15021, but tcp/443, tcp/49180 (the annotation \
         `service.beta.kubernetes.io/port_15021_no_lb_rule` takes one from the load balancer)"
    );
    assert_eq!(
        fault(&found, "10.0.14.2", TCP, "15021"),
        "in the cluster of default/istio, write 10.224.0.222"
    );
    // Only Azure knows the annotation.
    let other = objects(&istio.replace("azure-load-balancer-internal", "other"));
    assert_eq!(fault(&other, "10.224.0.222", TCP, "15021"), "");
}

#[test]
fn names_are_valid_and_unique() {
    let ports = r#""ports": [{"port": 80}]"#;
    let address = |n: usize| format!(r#"{{"ip": "10.224.1.{n}"}}"#);
    let long = format!("{}/{}", "n".repeat(63), "s".repeat(63));
    let names = ["a/b-c", "a-b/c", "a/b-c", &long, "-/ä", "_/…x"];
    let items: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(n, name)| balancer(name, ports, &address(n)))
        .collect();
    // The name that the second of two namesakes has.
    let second = balancer("d/e-80", r#""ports": [{"port": 2}]"#, &address(100));
    let namesakes = [101, 102].map(|n| balancer("d/e", ports, &address(n)));
    let items = items.iter().chain([&second]).chain(&namesakes);
    let items: Vec<&str> = items.map(String::as_str).collect();
    let draft = draft(&objects(&list(&items)).services, firewall());
    let names: Vec<&str> = draft
        .accounts
        .iter()
        .filter_map(|one| Some(one.fate.name()?.as_str()))
        .collect();
    let long = format!("{}-80", "n".repeat(48));
    assert_eq!(
        names,
        [
            "a-b-c-80",
            "a-b-c-80-2",
            "a-b-c-80-3",
            &long,
            "service-80",
            "x-80",
            "d-e-80-2",
            "d-e-80",
            "d-e-80-3"
        ]
    );
}

/// Returns the fault of a target in words; an empty text if it has none.
fn fault(objects: &KubeObjects, address: &str, protocols: &[Protocol], ports: &str) -> String {
    let ports: PortRange = ports.parse().expect("ports");
    let address = address.parse().expect("an address");
    match objects.fault(address, protocols, &[ports]) {
        None => String::new(),
        Some(TargetFault::NoObject { contents, .. }) => format!("no object: {contents}"),
        Some(TargetFault::InCluster { service, balancer }) => {
            let balancer = balancer.map_or(String::new(), |address| format!(", write {address}"));
            format!("in the cluster of {service}{balancer}")
        }
        Some(TargetFault::NoPort(wrong)) => {
            let WrongPorts {
                holders,
                missing,
                has,
                instead,
            } = *wrong;
            let instead = instead.map_or(String::new(), |port| format!(", write {port}"));
            format!("{holders} not {missing}, but {has}{instead}")
        }
    }
}

const TCP: &[Protocol] = &[Protocol::Tcp];

#[test]
fn a_target_must_have_a_port_that_its_service_exposes() {
    let external = balancer(
        "a/external",
        r#""clusterIP": "None", "externalIPs": ["10.9.0.1"], "ports": [{"port": 80}, {"port": 443}, {"port": 53, "protocol": "UDP"}]"#,
        r#"{"ip": "10.224.0.222"}"#,
    );
    let found = objects(&list(&[TMP_SHELL]));
    let fault_of = |address, ports| fault(&found, address, TCP, ports);
    // The article's guide: the forward says 49181, the Service exposes 49180.
    assert_eq!(
        fault_of("10.224.0.222", "49181"),
        "the Service `default/tmp-shell` has not tcp/49181, but tcp/49180, write 49180"
    );
    assert_eq!(fault_of("10.224.0.222", "49180"), "");
    // Ports of pods and of nodes are none of the Service.
    for port in ["80", "31990"] {
        assert!(fault_of("10.224.0.222", port).contains("but tcp/49180"));
    }
    // A cluster address exists on the nodes alone, whichever port it has.
    for port in ["49180", "80"] {
        assert_eq!(
            fault_of("10.0.14.2", port),
            "in the cluster of default/tmp-shell, write 10.224.0.222"
        );
    }
    // Two Services may share the address of a load balancer.
    let found = objects(&list(&[TMP_SHELL, &external]));
    let both = [Protocol::Tcp, Protocol::Udp];
    for (address, protocols, ports, expected) in [
        (
            "10.9.0.1",
            &both[..],
            "1-65535",
            "the Service `a/external` has not tcp/1, tcp/2, tcp/3, tcp/4, tcp/5, tcp/6 and 131061 more, but tcp/80, tcp/443, udp/53",
        ),
        ("10.224.0.222", TCP, "49180", ""),
        ("10.224.0.222", TCP, "443", ""),
        ("10.9.0.1", TCP, "80", ""),
        ("10.9.0.1", &[Protocol::Udp], "53", ""),
        (
            "10.9.0.1",
            &both,
            "53",
            "the Service `a/external` has not tcp/53, but tcp/80, tcp/443, udp/53",
        ),
        (
            "10.9.0.1",
            &[Protocol::Udp],
            "54",
            "the Service `a/external` has not udp/54, but tcp/80, tcp/443, udp/53, write 53",
        ),
        (
            "10.224.0.222",
            TCP,
            "440-449",
            "the Services `a/external`, `default/tmp-shell` have not tcp/440, tcp/441, tcp/442, tcp/444, tcp/445, \
             tcp/446 and 3 more, but tcp/80, tcp/443, tcp/49180, udp/53",
        ),
    ] {
        assert_eq!(
            fault(&found, address, protocols, ports),
            expected,
            "{address} {ports}"
        );
    }
}

#[test]
fn a_target_must_be_the_address_of_an_object() {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "a"},
        "spec": {"containers": [{"ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": "10.224.0.118", "podIPs": [{"ip": "10.224.0.118"}, {"ip": "fd00:224::118"}]}}"#;
    let silent = pod
        .replace(r#""ports": [{"containerPort": 8080}]"#, "")
        .replace("0.118", "0.119")
        .replace("web-1", "web-2");
    let ended = pod
        .replace("Running", "Succeeded")
        .replace("0.118", "0.120");
    let endpoints = r#"{"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "a"},
        "subsets": [{"addresses": [{"ip": "10.224.0.121"}], "notReadyAddresses": [{"ip": "10.224.0.119"}], "ports": [{"port": 8080}]}]}"#;
    let slice = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-x", "namespace": "a"},
        "endpoints": [{"addresses": ["10.224.0.122"]}], "ports": [{"port": 8080, "protocol": "TCP"}]}"#;
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"addresses": [{"address": "n", "type": "Hostname"}, {"address": "10.224.0.4", "type": "InternalIP"}]}}"#;
    let found = objects(&list(&[
        TMP_SHELL, pod, &silent, &ended, endpoints, slice, node,
    ]));
    let contents = "1 Service, 3 pods, 2 endpoint objects, 1 node";
    for (address, port, expected) in [
        ("10.224.0.118", "8080", String::new()),
        ("fd00:224::118", "8080", String::new()),
        (
            "10.224.0.118",
            "80",
            // The ports of containers inform only, so none is proposed.
            "the pod `a/web-1` has not tcp/80, but tcp/8080".to_owned(),
        ),
        // Its object names no port.
        ("10.224.0.119", "80", String::new()),
        ("10.224.0.121", "8080", String::new()),
        (
            "10.224.0.121",
            "80",
            "the endpoint object `a/web` has not tcp/80, but tcp/8080, write 8080".to_owned(),
        ),
        ("10.224.0.122", "8080", String::new()),
        ("10.224.0.4", "31990", String::new()),
        // The address of a pod that has ended.
        ("10.224.0.120", "8080", format!("no object: {contents}")),
        ("10.224.0.99", "80", format!("no object: {contents}")),
    ] {
        assert_eq!(
            fault(&found, address, TCP, port),
            expected,
            "{address} {port}"
        );
    }
    let services = objects(TMP_SHELL);
    let words = fault(&services, "10.224.0.118", TCP, "80");
    assert_eq!(words, "no object: 1 Service and no pods");
    let empty = objects(&list(&[]));
    let words = fault(&empty, "10.224.0.118", TCP, "80");
    assert_eq!(words, "no object: no Services and no pods");
}

/// A container that names no port may listen on any, a sidecar runs beside the others, and a pod in the network of its
/// node has the ports of that.
#[test]
fn a_port_that_no_object_excludes_is_no_fault() {
    let pod = |name: &str, address: &str, spec: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "a"}}, "spec": {{{spec}}},
            "status": {{"phase": "Running", "podIP": "{address}", "hostIP": "10.224.0.4"}}}}"#
        )
    };
    let named = |port: u16| format!(r#"{{"ports": [{{"containerPort": {port}}}]}}"#);
    let (proxy, app) = (named(15090), named(80));
    let init = |policy: &str| app.replacen('{', &format!("{{{policy}"), 1);
    let sidecar = init(r#""restartPolicy": "Always", "#);
    let pods = [
        pod(
            "silent",
            "10.224.0.118",
            &format!(r#""containers": [{proxy}, {{"ports": []}}]"#),
        ),
        pod(
            "sidecar",
            "10.224.0.119",
            &format!(r#""containers": [{proxy}], "initContainers": [{sidecar}]"#),
        ),
        pod(
            "init",
            "10.224.0.120",
            &format!(r#""containers": [{proxy}], "initContainers": [{app}, {{}}]"#),
        ),
        pod(
            "csi",
            "10.224.0.4",
            &format!(r#""hostNetwork": true, "containers": [{proxy}]"#),
        ),
    ];
    let slice = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "x", "namespace": "a"},
        "endpoints": [{"addresses": ["10.224.0.5"]}], "ports": [{"port": 9100}]}"#;
    let [silent, sidecar, init, host] = &pods;
    let found = objects(&list(&[TMP_SHELL, silent, sidecar, init, host, slice]));
    for (address, port, expected) in [
        ("10.224.0.118", "8080", ""),
        ("10.224.0.119", "80", ""),
        ("10.224.0.119", "15090", ""),
        (
            "10.224.0.119",
            "81",
            "the pod `a/sidecar` has not tcp/81, but tcp/80, tcp/15090",
        ),
        // A container that ends before the others begin.
        (
            "10.224.0.120",
            "80",
            "the pod `a/init` has not tcp/80, but tcp/15090",
        ),
        ("10.224.0.4", "30888", ""),
        // A port of every node leads to the Service.
        ("10.224.0.5", "31990", ""),
        ("10.224.0.5", "9100", ""),
        (
            "10.224.0.5",
            "80",
            "the endpoint object `a/x` has not tcp/80, but tcp/9100, write 9100",
        ),
        ("10.224.0.9", "31990", ""),
        (
            "10.224.0.9",
            "31991",
            "no object: 1 Service, 4 pods, 1 endpoint object",
        ),
        // A pod has no ports of its node.
        (
            "10.224.0.120",
            "31990",
            "the pod `a/init` has not tcp/31990, but tcp/15090",
        ),
    ] {
        assert_eq!(
            fault(&found, address, TCP, port),
            expected,
            "{address} {port}"
        );
    }
    let found = objects(&host.replace("hostIP", "other"));
    assert_eq!(fault(&found, "10.224.0.4", TCP, "30888"), "");
    // The pods name the addresses of their nodes.
    let found = objects(&list(&[TMP_SHELL, silent]));
    assert_eq!(fault(&found, "10.224.0.4", TCP, "80"), "");
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"addresses": [{"address": "10.224.0.4", "type": "InternalIP"}]}}"#;
    let found = objects(&list(&[TMP_SHELL, node]));
    assert_eq!(fault(&found, "10.224.0.4", TCP, "31990"), "");
    let words = fault(&found, "10.224.0.9", TCP, "31990");
    assert_eq!(words, "no object: 1 Service, 1 node and no pods");
}

/// Each byte of a text, changed.
#[test]
fn no_text_is_a_panic() {
    let text = list(&[TMP_SHELL, &balancer("a/ä", "\"ports\": []", "{}")]);
    for at in 0..text.len() {
        for byte in [b'"', b'{', b'[', b'0', b'\n', b'\\', 0xff] {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = byte;
            if let Ok(objects) = read(&changed) {
                let _ = draft(&objects.services, firewall());
            }
            let _ = read(&changed[..at]);
        }
    }
}
