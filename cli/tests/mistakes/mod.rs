//! Worlds and flows that are wrong: what is said about them.
//!
//! In:  files with one mistake each.
//! Out: file, line, column, field and cause.
//! Not here: mistakes in policies (`policy`).

use crate::command::{FLOW, OPEN, WORLD, folder, policy, text};

/// What is said about a world, and flows, that are wrong: `FILE: …` without the folder.
fn mistake(world: &str, flows: &str) -> String {
    let dir = folder(&[
        ("world.yaml", world),
        ("policy.yaml", OPEN),
        ("flows.yaml", flows),
    ]);
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let ran = policy(&[
        "verdict",
        "--world",
        &at("world.yaml"),
        "--policy",
        &at("policy.yaml"),
        "--flows",
        &at("flows.yaml"),
    ]);
    assert_eq!((ran.status, &*ran.out), (2, ""), "{}", ran.err);
    let prefix = format!("namegate: {}/", dir.path().display());
    ran.err.trim_end().replace(&prefix, "")
}

#[test]
fn mistakes_of_flows_name_file_line_field_and_cause() {
    for (flow, expected) in [
        (
            "{from: ci/c, to: ci/b, protocol: TCP, port: 80}",
            "flows.yaml:1:10: flows[0].from: the world has no endpoint `ci/c`; did you mean `ci/b`?",
        ),
        (
            "{from: ci/a, to: node/n1, protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: the world has no node `n1`",
        ),
        (
            "{from: ci/a, to: example.test, protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: `example.test` is not NAMESPACE/NAME of an endpoint, node/NAME or an address",
        ),
        (
            "{from: ci/a, to: '2001:db8::1', protocol: TCP, port: 80}",
            "flows.yaml:1:20: flows[0].to: `ci/a` and `2001:db8::1` have no addresses of a common family",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: ICMPv6}",
            "flows.yaml:1:20: flows[0].to: `ci/a` and `ci/b` have no addresses of a common family that ICMPv6 runs over",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP}",
            "flows.yaml:1:36: flows[0].port: TCP needs a `port`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: ICMP, port: 8}",
            "flows.yaml:1:36: flows[0].port: ICMP has no ports; write `icmp: {type: …}`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 8, icmp: {type: 8}}",
            "flows.yaml:1:36: flows[0].icmp: only ICMP and ICMPv6 have types, not UDP",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 8, http: {path: /}}",
            "flows.yaml:1:36: flows[0].http: `http` does not run over UDP",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, port: 8, http: {path: /}, dns: {name: a.test}}",
            "flows.yaml:1:36: flows[0].http: a flow has one of `dns`, `http`, `kafka` and `sni`",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: UDP, port: 53, dns: {name: 'a..b'}}",
            "flows.yaml:1:36: flows[0].dns.name: `a..b` is not a DNS name",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: tcp, port: 80}",
            "flows.yaml:1:36: [0].protocol: ",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, port: 65536}",
            "flows.yaml:1:47: [0].port: ",
        ),
        (
            "{from: ci/a, to: ci/b, protocol: TCP, prot: 1, port: 80}",
            "flows.yaml:1:41: [0].prot: unknown field `prot`",
        ),
        (
            "{from: ci/a, from: ci/a, to: ci/b, protocol: TCP, port: 80}",
            "flows.yaml:1:16: ",
        ),
        ("{from: ci/a, to: [", "flows.yaml:"),
    ] {
        let said = mistake(WORLD, &format!("- {flow}\n"));
        assert!(said.starts_with(expected), "{flow}\n  {said}\n  {expected}");
    }
}

#[test]
fn mistakes_of_worlds_name_file_line_field_and_cause() {
    let pods = "endpoints:\n- {name: a, namespace: ci, ips: [10.0.0.1]}\n- {name: b, namespace: ci, ips: [10.0.0.2]}\n";
    for (world, expected) in [
        (
            "endpoints: [{namespace: ci}]\n",
            "world.yaml:1:14: endpoints[0]: missing field `name`",
        ),
        (
            "endpoints: [{name: a, namespace: ci, ips: [10.0.0.256]}]\n",
            "world.yaml:1:44: endpoints[0].ips[0]: `10.0.0.256` is not an IP address",
        ),
        (
            "endpoints: [{name: a, namespace: ci, ip: []}]\n",
            "world.yaml:1:38: endpoints[0].ip: unknown field `ip`",
        ),
        (
            "endpoints: []\ncidrGroups: [{name: a, cidrs: [10.0.0.0/33]}]\n",
            "world.yaml:2:32: cidrGroups[0].cidrs[0]: `10.0.0.0/33` is not a CIDR prefix",
        ),
        (
            "endpoints: []\nconfig: {policyEnforcementMode: sometimes}\n",
            "world.yaml:2:33: config.policyEnforcementMode: ",
        ),
        (
            &format!("{pods}- {{name: a, namespace: ci, ips: [10.0.0.3]}}\n"),
            "world.yaml:4:3: endpoints[2].name: endpoint `ci/a` is there twice",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, ips: [10.0.0.2]}}\n"),
            "world.yaml:4:3: endpoints[2].ips: the address 10.0.0.2 already belongs to ci/b",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, node: n9, ips: [10.0.0.3]}}\n"),
            "world.yaml:4:3: endpoints[2].node: the world has no node `n9`",
        ),
        (
            &format!("{pods}- {{name: c, namespace: ci, labels: {{'reserved:': ''}}, ips: []}}\n"),
            "world.yaml:4:3: endpoints[2].labels: `reserved:` is not a label key",
        ),
        (
            &format!(
                "{pods}nodes: [{{name: n1, local: true, ips: []}}, {{name: n2, local: true, ips: []}}]\n"
            ),
            "world.yaml:4:43: nodes[1].local: `n2` is local too",
        ),
        (
            &format!("{pods}nodes: [{{name: n1, ips: []}}, {{name: n1, ips: []}}]\n"),
            "world.yaml:4:30: nodes[1].name: node `n1` is there twice",
        ),
        (
            &format!("{pods}services: [{{name: s, namespace: ci, backends: [ci/c]}}]\n"),
            "world.yaml:4:48: services[0].backends[0]: the world has no endpoint `ci/c`",
        ),
        (
            &format!(
                "{pods}services: [{{name: s, namespace: ci, ports: [{{port: 80, targetPort: 99999}}]}}]\n"
            ),
            "world.yaml:4:68: services[0].ports[0].targetPort: `99999` is neither a port",
        ),
        (
            &format!("{pods}kubeAPIServer: [10.0.0.1]\n"),
            "world.yaml:4:17: kubeAPIServer[0]: the address 10.0.0.1 already belongs to ci/a",
        ),
        (
            &format!("{pods}names: [{{endpoint: ci/z, name: a.test, ips: []}}]\n"),
            "world.yaml:4:20: names[0].endpoint: the world has no endpoint `ci/z`",
        ),
        (
            &format!("{pods}names: [{{endpoint: ci/a, name: 'a..b', ips: []}}]\n"),
            "world.yaml:4:32: names[0].name: `a..b` is not a DNS name",
        ),
        (
            &format!("{pods}namespaces: [{{name: ci}}, {{name: ci}}]\n"),
            "world.yaml:4:26: namespaces[1].name: namespace `ci` is there twice",
        ),
        (&format!("{pods}---\nendpoints: []\n"), "world.yaml:"),
        ("endpoints: &a [*a]\n", "world.yaml:"),
        ("\u{0}", "world.yaml:"),
    ] {
        let said = mistake(world, FLOW);
        assert!(
            said.starts_with(expected),
            "{world}\n  {said}\n  {expected}"
        );
    }
}

#[test]
fn a_bomb_of_aliases_a_deep_and_a_large_file_are_refused() {
    let labels: Vec<_> = (0..500).map(|i| format!("k{i}: v")).collect();
    let bomb = format!(
        "endpoints: []\nnamespaces:\n- &n {{name: a, labels: {{{}}}}}\n{}",
        labels.join(", "),
        "- *n\n".repeat(40_000)
    );
    let said = mistake(&bomb, FLOW);
    assert!(said.starts_with("world.yaml:"), "{said}");
    assert!(said.contains("alias"), "{said}");
    let deep = format!("endpoints: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let said = mistake(&deep, FLOW);
    assert!(said.contains("recursion limit"), "{said}");
    let large = format!("endpoints: []\n# {}\n", "x".repeat(9 << 20));
    assert!(mistake(&large, FLOW).contains("split it"));
}
