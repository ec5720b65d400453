//! `namegate policy verdict -o json`, held to its documentation field by field.
//!
//! In:  a world and policies that bring out every value a field can have.
//! Out: the fields of every object, their types, their values, and how they hang together.
//! Not here: one output to the letter (`policy`), what policies mean (`agent::offline`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; shared helpers are not all used"
)]

mod command;

use std::collections::BTreeSet;

use command::{folder, policy, text};
use serde_json::Value;

const WORLD: &str = "
nodes:
- {name: n1, local: true, ips: [192.0.2.200]}
endpoints:
- {name: a, namespace: ci, labels: {app: a}, ips: [10.0.0.1, 'fd00::1']}
- {name: b, namespace: ci, labels: {app: b}, ips: [10.0.0.2, 'fd00::2']}
- {name: c, namespace: ci, labels: {app: c}, ips: [10.0.0.3]}
- {name: d, namespace: ci, labels: {app: d}, ips: [10.0.0.4]}
names:
- {endpoint: ci/a, name: github.com, ips: [203.0.113.7]}
";

const POLICIES: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: many, namespace: ci}
spec:
  endpointSelector: {matchLabels: {app: a}}
  egress:
  - toEndpoints: [{matchLabels: {app: b}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
  - toCIDR: [198.51.100.0/24]
  - toCIDR: [192.0.2.0/25]
    toPorts: [{ports: [{port: '0', protocol: UDP}]}]
  - toPorts: [{ports: [{port: '81', protocol: TCP}, {port: '0', protocol: SCTP}]}]
  - toFQDNs: [{matchName: github.com}]
    toPorts: [{ports: [{port: '443', protocol: TCP}]}]
  - toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*.com'}]}}]
  - toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {http: [{method: GET}]}}]
  - toPorts: [{ports: [{port: '9092', protocol: TCP}], rules: {kafka: [{role: produce, topic: orders}]}}]
  - toPorts: [{ports: [{port: '8443', protocol: TCP}], serverNames: [github.com]}]
  egressDeny:
  - toCIDR: [203.0.113.66/32]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: all}
spec: {endpointSelector: {matchLabels: {app: c}}, egress: [{toEntities: [all]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: watched, namespace: ci, annotations: {namegate.io/mode: audit}}
spec: {podSelector: {matchLabels: {app: d}}, policyTypes: [Ingress, Egress]}
";

const FLOWS: &str = "
- {from: ci/a, to: ci/b, protocol: TCP, port: 80}
- {from: ci/a, to: ci/b, protocol: TCP, port: 82}
- {from: ci/a, to: 198.51.100.9, protocol: ICMP, icmp: {type: 8}}
- {from: ci/a, to: 192.0.2.9, protocol: UDP, port: 9}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 81}
- {from: ci/a, to: 203.0.113.1, protocol: SCTP, port: 9}
- {from: ci/a, to: 203.0.113.7, protocol: TCP, port: 443}
- {from: ci/a, to: 203.0.113.66, protocol: TCP, port: 443}
- {from: ci/a, to: 203.0.113.53, protocol: UDP, port: 53}
- {from: ci/a, to: 203.0.113.53, protocol: UDP, port: 53, dns: {name: github.com}}
- {from: ci/a, to: 203.0.113.53, protocol: UDP, port: 53, dns: {name: evil.test}}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 8080, http: {method: GET, path: /, host: web}}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 8080, http: {method: PUT, path: /, host: web}}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 9092, kafka: {apiKey: produce, topic: orders}}
- {from: ci/a, to: 203.0.113.1, protocol: TCP, port: 8443, sni: {name: github.com}}
- {from: ci/c, to: ci/d, protocol: TCP, port: 1}
- {from: ci/d, to: 203.0.113.1, protocol: TCP, port: 1}
- {from: node/n1, to: ci/b, protocol: TCP, port: 1}
";

const VERDICTS: [&str; 4] = ["DROPPED", "AUDIT", "REDIRECTED", "FORWARDED"];
const MATCHES: [&str; 7] = [
    "none",
    "L3-only",
    "L3-L4",
    "L4-only",
    "all",
    "L3-proto",
    "proto-only",
];
const PROXIES: [&str; 4] = ["dns", "http", "kafka", "sni"];

/// Every value that was seen of a field.
type Seen = BTreeSet<String>;

fn judged(more: &[&str]) -> Vec<Value> {
    let dir = folder(&[
        ("world.yaml", WORLD),
        ("policies.yaml", POLICIES),
        ("flows.yaml", FLOWS),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let (world, policies, flows) = (at("world.yaml"), at("policies.yaml"), at("flows.yaml"));
    let mut args = vec![
        "verdict", "--world", &world, "--policy", &policies, "--flows", &flows, "-o", "json",
    ];
    args.extend(more);
    let ran = policy(&args);
    assert_eq!((ran.status, &*ran.err), (0, ""));
    serde_json::from_str::<Vec<Value>>(&ran.out).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let fields = value.as_object().unwrap();
    fields.keys().map(String::as_str).collect()
}

/// One direction; returns its place in the order of verdicts.
fn direction(value: &Value, reasons: &[u64], seen: &mut [Seen; 4]) -> Option<usize> {
    if value.is_null() {
        return None;
    }
    let fields = ["verdict", "reason", "match", "l7", "rules", "reason_text"];
    assert_eq!(keys(value), fields.into_iter().collect(), "{value}");
    let verdict = value["verdict"].as_str().unwrap();
    let reason = value["reason"].as_u64().unwrap();
    let matched = value["match"].as_str().unwrap();
    let words = value["reason_text"].as_str().unwrap();
    assert!(MATCHES.contains(&matched), "{value}");
    assert!(reasons.contains(&reason), "{value}");
    let rules: Vec<_> = value["rules"].as_array().unwrap().iter().collect();
    let rules: Vec<_> = rules.iter().map(|rule| rule.as_str().unwrap()).collect();
    assert!(
        rules.is_sorted_by(|a, b| a < b),
        "sorted, each once: {value}"
    );
    assert!(rules.iter().all(|r| r.split('/').count() >= 2), "{value}");
    match &value["l7"] {
        Value::Null => assert_ne!(verdict, "REDIRECTED", "{value}"),
        proxy => {
            let proxy = proxy.as_str().unwrap();
            assert!(PROXIES.contains(&proxy), "{value}");
            // A proxy allows or refuses; the datapath drops nothing then.
            assert!(["REDIRECTED", "DROPPED"].contains(&verdict), "{value}");
            assert_eq!(reason, 0, "{value}");
            seen[3].insert(proxy.to_owned());
        }
    }
    match (verdict, reason) {
        ("DROPPED", 0) => assert!(!value["l7"].is_null() && !words.is_empty(), "{value}"),
        ("DROPPED", 133) => assert!(matched == "none" && rules.is_empty(), "{value}"),
        ("DROPPED", _) => assert!(matched != "none" && !rules.is_empty(), "{value}"),
        ("AUDIT", _) => assert_eq!(reason, 0, "{value}"),
        (_, _) => assert_eq!((reason, words), (0, ""), "{value}"),
    }
    seen[0].insert(verdict.to_owned());
    seen[1].insert(matched.to_owned());
    seen[2].insert(reason.to_string());
    Some(VERDICTS.iter().position(|v| *v == verdict).unwrap())
}

fn check(flows: &[Value], reasons: &[u64]) -> [Seen; 4] {
    let mut seen = <[Seen; 4]>::default();
    for flow in flows {
        let fields = ["verdict", "egress", "ingress"];
        assert_eq!(keys(flow), fields.into_iter().collect(), "{flow}");
        let directions = ["egress", "ingress"];
        let first = directions.map(|of| direction(&flow[of], reasons, &mut seen));
        let first = first.into_iter().flatten().min().unwrap();
        assert_eq!(flow["verdict"], VERDICTS[first], "{flow}");
    }
    seen
}

fn all<const N: usize>(values: [&str; N]) -> Seen {
    values.into_iter().map(str::to_owned).collect()
}

#[test]
fn every_field_of_every_flow_is_as_documented() {
    let flows = judged(&[]);
    assert_eq!(flows.len(), 18, "one object a flow");
    let [verdicts, matches, reasons, proxies] = check(&flows, &[0, 133, 181]);
    assert_eq!(verdicts, all(VERDICTS));
    assert_eq!(matches, all(MATCHES));
    assert_eq!(reasons, all(["0", "133", "181"]));
    assert_eq!(proxies, all(PROXIES));
    // In order, and with what decided.
    let first = &flows[0]["egress"];
    assert_eq!(first["match"], "L3-L4");
    assert_eq!(
        first["rules"],
        Value::from(vec!["CiliumNetworkPolicy/ci/many"])
    );
    assert!(flows[17]["egress"].is_null(), "a node is not judged");
}

#[test]
fn without_the_proxies_the_only_other_reason_is_that_they_are_missing() {
    let flows = judged(&["--datapath-only"]);
    let [_, _, reasons, proxies] = check(&flows, &[0, 133, 181, 247]);
    assert_eq!(reasons, all(["0", "133", "181", "247"]));
    assert_eq!(proxies, all(["dns"]));
}
