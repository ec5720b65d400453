//! A small cluster to judge policies in: three workloads, a resolver, nodes, the world.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(dead_code, reason = "every test file uses some of it")]

use identity::{AddressBook, IdentityId, Label, LabelSet, LocalIdentities, SelectorSet, reserved};
use policy::{
    compile::{
        CompileError, CompileInput, EnforcementMode, Identities, SelectorTable, Surroundings,
        compile_in, prefixes_in,
    },
    compiled::{Direction, EndpointPolicy, Flow, FlowVerdict, Outcome, Protocol},
    fqdn::Fqdn,
    model::Policy,
    parse,
};

pub(crate) const ME: IdentityId = IdentityId::from_raw(256);
pub(crate) const FRIEND: IdentityId = IdentityId::from_raw(257);
pub(crate) const STRANGER: IdentityId = IdentityId::from_raw(258);
pub(crate) const RESOLVER: IdentityId = IdentityId::from_raw(259);
/// A node with the label `role: worker`.
pub(crate) const WORKER: IdentityId = IdentityId::from_raw(300);

pub(crate) fn labels(namespace: &str, more: &[(&str, &str)]) -> LabelSet {
    let more = more.iter().map(|(key, value)| Label::k8s(key, value));
    more.chain([Label::k8s("io.kubernetes.pod.namespace", namespace)])
        .collect()
}

fn known() -> Vec<(IdentityId, LabelSet)> {
    let worker = [Label::reserved("remote-node"), Label::k8s("role", "worker")];
    vec![
        (ME, labels("a", &[("app", "me")])),
        (FRIEND, labels("a", &[("app", "friend")])),
        (STRANGER, labels("b", &[("app", "friend")])),
        (RESOLVER, labels("kube-system", &[("k8s-app", "kube-dns")])),
        (WORKER, worker.into_iter().collect()),
    ]
}

/// What one endpoint (`ME`) ends up with, and who has which address.
#[derive(Debug)]
pub(crate) struct Village {
    pub(crate) policy: EndpointPolicy,
    pub(crate) book: AddressBook,
}

pub(crate) fn parsed(text: &str) -> parse::ParsedFile {
    let limits = parse::Limits {
        default_namespace: "a".into(),
        ..parse::Limits::default()
    };
    parse::bytes("p.yaml", text.as_bytes(), &limits)
        .unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"))
}

/// The mistakes of a file.
pub(crate) fn mistakes(text: &str) -> Vec<String> {
    match parse::documents("p.yaml", text) {
        Ok(parsed) => panic!("accepted: {text}\n{parsed:#?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A namespaced Cilium policy.
pub(crate) fn cnp(spec: &str) -> String {
    document("cilium.io/v2", "CiliumNetworkPolicy", spec)
}

pub(crate) fn document(api_version: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n---\n")
}

pub(crate) fn try_village(
    text: &str,
    around: &Surroundings,
    mode: EnforcementMode,
) -> Result<Village, CompileError> {
    let parsed = parsed(text);
    let around = Surroundings {
        groups: parsed.groups,
        ..around.clone()
    };
    village_of(&parsed.policies, &around, mode)
}

pub(crate) fn village_of(
    policies: &[Policy],
    around: &Surroundings,
    mode: EnforcementMode,
) -> Result<Village, CompileError> {
    let mut locals = LocalIdentities::default();
    let mut book = AddressBook::default();
    let mut cidrs = Vec::new();
    for prefix in prefixes_in(policies, around) {
        let id = locals.cidr(prefix).unwrap();
        book.insert_prefix(prefix, id);
        cidrs.push((id, prefix));
    }
    for (address, id) in [
        ("10.0.0.1", ME),
        ("10.0.0.2", FRIEND),
        ("10.0.0.3", STRANGER),
        ("10.0.0.4", RESOLVER),
        ("192.0.2.1", reserved::HOST),
        ("192.0.2.2", reserved::REMOTE_NODE),
        ("192.0.2.3", WORKER),
    ] {
        book.insert_address(address.parse().unwrap(), id);
    }
    let identities = Identities::new("default", known(), cidrs);
    let subject = labels("a", &[("app", "me")]);
    let input = CompileInput {
        policies,
        subject: &subject,
        identities: &identities,
        mode,
        allow_local_host: true,
        steer_dns: false,
    };
    let policy = compile_in(&input, around, &mut SelectorTable::default())?;
    Ok(Village { policy, book })
}

pub(crate) fn village(text: &str) -> Village {
    village_in(text, &Surroundings::default())
}

pub(crate) fn village_in(text: &str, around: &Surroundings) -> Village {
    try_village(text, around, EnforcementMode::Default).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

impl Village {
    /// What happens to a flow to or from an address that was learned under `name`.
    pub(crate) fn named(
        &self,
        direction: Direction,
        address: &str,
        name: &str,
        proto: Protocol,
        port: u16,
    ) -> FlowVerdict<'_> {
        let learned: Vec<SelectorSet> = (!name.is_empty())
            .then(|| self.policy.selectors_matching(&Fqdn::parse(name).unwrap()))
            .into_iter()
            .collect();
        self.policy.judge(&Flow {
            direction,
            peer: self.book.lookup(address.parse().unwrap()),
            learned: &learned,
            proto: Some(proto),
            port,
        })
    }

    /// What happens to a TCP connection to an address.
    pub(crate) fn to(&self, address: &str, port: u16) -> Outcome {
        self.named(Direction::Egress, address, "", Protocol::Tcp, port)
            .outcome
    }

    /// What happens to a TCP connection from an address.
    pub(crate) fn from(&self, address: &str, port: u16) -> Outcome {
        self.named(Direction::Ingress, address, "", Protocol::Tcp, port)
            .outcome
    }

    /// The policies behind a decision.
    pub(crate) fn texts(&self, verdict: &FlowVerdict<'_>) -> Vec<String> {
        let sets = verdict.rule_sets.iter();
        sets.flat_map(|set| self.policy.rule_set(*set))
            .map(|rule| rule.text.clone())
            .collect()
    }
}
