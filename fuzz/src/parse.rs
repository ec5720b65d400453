//! Any bytes as a policy file: `policy_parse`.
//!
//! In:  bytes as they are, or as a choice of the words and signs policies are made of.
//! Out: a panic when reading panics, reports nonsense, or accepts what cannot be compiled.
//! Not here: what a policy means (`policies`).

use identity::{Label, LabelSet, LocalIdentities};
use policy::{
    compile::{CompileInput, EnforcementMode, Identities, SelectorTable, compile, prefixes},
    compiled::EndpointPolicy,
    lint,
    model::Policy,
    parse::{self, Limits},
    shorthand,
};

use crate::policy_map;

/// Small, so that bounds are reached.
const MAX_BYTES: usize = 1 << 14;
const MAX_NODES: usize = 2000;
/// A mistake more than this is not reported.
const MOST_ERRORS: usize = 20;

const WORDS: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    "\n        ",
    "- ",
    ": ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "#",
    "---\n",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    "<<: ",
    "~",
    "null",
    "true",
    "\t",
    "? ",
    "apiVersion",
    "cilium.io/v2",
    "kind",
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "List",
    "items",
    "v1",
    "ConfigMap",
    "metadata",
    "name",
    "namespace",
    "spec",
    "specs",
    "endpointSelector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "app",
    "k8s:app",
    "reserved:world",
    "any:x",
    "egress",
    "ingress",
    "egressDeny",
    "toFQDNs",
    "matchName",
    "matchPattern",
    "*.example.com",
    "**.x",
    "github.com",
    "toPorts",
    "ports",
    "port",
    "endPort",
    "protocol",
    "'53'",
    "'443'",
    "'65536'",
    "0",
    "-1",
    "TCP",
    "UDP",
    "ANY",
    "SCTP",
    "rules",
    "dns",
    "http",
    "toEndpoints",
    "toEntities",
    "world",
    "cluster",
    "all",
    "toCIDR",
    "toCIDRSet",
    "cidr",
    "except",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "'::/0'",
    "10.1.0.0/16",
    "icmps",
    "fields",
    "type",
    "family",
    "IPv6",
    "enableDefaultDeny",
    "fromEndpoints",
    "fromEntities",
    "description",
    "labels",
    "x",
    "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\nspec:\n",
    "  endpointSelector: {}\n",
    "  egress:\n",
    "  - toFQDNs:\n    - matchName: x.test\n",
    "    toPorts:\n    - ports: [{port: '443', protocol: TCP}]\n",
];

/// Any bytes: policies that compile, or mistakes with a place in the file, within bounds.
pub fn policy_parse(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let bytes: Vec<u8> = match mode % 3 {
        0 => rest.to_vec(),
        1 => rest
            .iter()
            .flat_map(|b| WORDS[usize::from(*b) % WORDS.len()].bytes())
            .collect(),
        _ => return command_line(&String::from_utf8_lossy(rest)),
    };
    let limits = Limits {
        max_bytes: MAX_BYTES,
        max_depth: 16,
        max_nodes: MAX_NODES,
        ..Limits::default()
    };
    let lines = bytes.split(|b| *b == b'\n').count();
    match parse::bytes("p.yaml", &bytes, &limits) {
        Ok(parsed) => {
            assert!(bytes.len() <= MAX_BYTES);
            assert!(parsed.policies.len() + parsed.notes.len() <= MAX_NODES);
            let again = parse::bytes("p.yaml", &bytes, &limits);
            assert_eq!(again.as_ref(), Ok(&parsed), "read twice");
            compiles(&parsed.policies);
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.len() <= MOST_ERRORS);
            for error in errors {
                assert_eq!(&*error.file, "p.yaml");
                assert!(error.line >= 1 && error.column >= 1, "{error:?}");
                // Other line breaks than "\n" count too.
                let breaks = bytes.iter().filter(|b| **b == b'\r').count();
                assert!(error.line as usize <= lines + breaks + 1, "{error:?}");
                let text = error.to_string();
                assert!(
                    text.starts_with("p.yaml:") && !text.ends_with(": "),
                    "{text}"
                );
            }
        }
    }
}

/// What was read can be used: linted, compiled, and its numbers looked up.
fn compiles(policies: &[Policy]) {
    for warning in lint::policies(policies) {
        assert!(!warning.advice.to_string().is_empty());
    }
    let mut local = LocalIdentities::default();
    let known: Vec<_> = prefixes(policies)
        .into_iter()
        .map(|prefix| (local.cidr(prefix).unwrap(), prefix))
        .collect();
    let identities = Identities::new("default", policy_map::managed(), known);
    let subject: LabelSet = [
        Label::k8s("io.kubernetes.pod.namespace", "default"),
        Label::k8s("app", "x"),
    ]
    .into_iter()
    .collect();
    let input = CompileInput {
        policies,
        subject: &subject,
        identities: &identities,
        mode: EnforcementMode::Default,
        allow_local_host: true,
        steer_dns: false,
    };
    let policy = compile(&input, &mut SelectorTable::default()).unwrap();
    check_compiled(&policy);
    lint::endpoint(policies, &policy);
}

fn check_compiled(policy: &EndpointPolicy) {
    for entry in &policy.entries {
        assert!((entry.rule_set.get() as usize) < policy.rule_sets.len());
    }
    assert_eq!(policy.clone().sorted(), *policy, "entries in order");
}

/// `--allow TEXT`: a policy of one name, or a mistake.
fn command_line(text: &str) {
    match shorthand::allow(text) {
        Ok(allow) => {
            assert!(allow.port.first > 0 && allow.port.first == allow.port.last);
            compiles(&[shorthand::policy(&[allow], "default")]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
