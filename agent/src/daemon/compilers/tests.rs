//! Step by step comes to what compiling from scratch comes to.

use identity::{IdentityId, Label, LabelSet};
use ipnet::IpNet;
use policy::{
    compile::{CompileInput, compile_layered},
    compiled::{EndpointPolicy, Layered, Protocol},
    parse,
};

use super::*;

const CLUSTER: &str = "default";

fn labels(app: &str) -> LabelSet {
    crate::world::pod_labels("a", [Label::k8s("app", app)])
}

/// A policy that lets `from` reach `to` on a port by number or name.
fn policy(name: &str, from: &str, to: &str, port: &str, annotations: &str) -> Policy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: a{annotations}}}\nspec:\n  endpointSelector: {{matchLabels: {{app: {from}}}}}\n  egress:\n  - toEndpoints: [{{matchLabels: {{app: {to}}}}}]\n    toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]\n  - toCIDR: [192.0.2.0/24]\n  - toFQDNs: [{{matchName: {to}.example}}]\n"
    );
    let parsed = parse::documents("p.yaml", &text).unwrap();
    parsed.policies.into_iter().next().unwrap()
}

/// What one step is given.
struct Step {
    policies: Vec<Policy>,
    /// Workloads by number: their `app`, and what they call port 80.
    others: Vec<(u32, &'static str, &'static str)>,
    prefixes: Vec<(u32, &'static str)>,
    subjects: Vec<Subject>,
}

impl Step {
    fn identities(&self) -> Identities {
        let id = IdentityId::from_raw;
        let others = self.others.iter();
        let prefix = |text: &str| text.parse::<IpNet>().unwrap();
        Identities::new(
            CLUSTER,
            others.map(|(number, app, _)| (id(*number), labels(app))),
            self.prefixes.iter().map(|(n, text)| (id(*n), prefix(text))),
        )
    }

    fn around(&self) -> Surroundings {
        let mut around = Surroundings::default();
        for (number, _, port) in &self.others {
            let own = around.ports.entry(IdentityId::from_raw(*number));
            own.or_default().insert(port, Protocol::Tcp, 80);
        }
        around
    }
}

/// Line by line, without the numbers of sets of rules.
fn lines(policy: &EndpointPolicy) -> Vec<String> {
    let mut lines: Vec<_> = policy
        .entries
        .iter()
        .map(|entry| {
            let rules = policy.rule_set(entry.rule_set);
            let about = (entry.direction, entry.peer, entry.l4);
            format!(
                "{about:?} {:?} {:?} {rules:?}",
                entry.action, entry.precedence
            )
        })
        .collect();
    let deny = (policy.default_deny_ingress, policy.default_deny_egress);
    lines.push(format!("{deny:?} {:?}", policy.shut_by));
    lines.sort_unstable();
    lines
}

fn both(layered: &Layered) -> (Vec<String>, Option<Vec<String>>) {
    (
        lines(&layered.whole),
        layered.enforced.as_deref().map(lines),
    )
}

fn follow(steps: Vec<Step>) -> Vec<Compiled> {
    let mut compilers = Compilers::new(EnforcementMode::Default);
    let mut selectors = SelectorTable::default();
    let mut all = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let (identities, around) = (step.identities(), step.around());
        let subjects = step.subjects.iter().collect();
        let compiled = compilers
            .compile(
                &step.policies,
                &identities,
                &around,
                subjects,
                &mut selectors,
            )
            .unwrap();
        assert_eq!(compiled.len(), step.subjects.len());
        for (subject, layered) in &compiled {
            let input = CompileInput {
                policies: &step.policies,
                subject: &subject.labels,
                identities: &identities,
                mode: EnforcementMode::Default,
                allow_local_host: true,
                steer_dns: false,
            };
            let around = Surroundings {
                own_ports: subject.ports.clone(),
                ..around.clone()
            };
            let scratch = compile_layered(&input, &around, &mut selectors).unwrap();
            assert_eq!(both(layered), both(&scratch), "step {number}, {subject:?}");
        }
        all.push(compiled);
    }
    all
}

fn subject(app: &str) -> Subject {
    Subject {
        labels: labels(app),
        ..Subject::default()
    }
}

const AUDIT: &str = ", annotations: {namegate.io/mode: audit}";

#[test]
fn each_step_comes_to_what_all_of_it_comes_to_from_scratch() {
    let one = || policy("one", "web", "db", "5432", "");
    let two = |annotations| policy("two", "web", "cache", "http", annotations);
    let step = |policies, others: &[_], prefixes: &[_], subjects: &[&str]| Step {
        policies,
        others: others.to_vec(),
        prefixes: prefixes.to_vec(),
        subjects: subjects.iter().map(|app| subject(app)).collect(),
    };
    let net = [(900, "192.0.2.0/24")];
    let nets = [(900, "192.0.2.0/24"), (901, "192.0.2.128/25")];
    let db = [(300, "db", "sql")];
    let more = [
        (300, "db", "sql"),
        (301, "cache", "http"),
        (302, "db", "sql"),
    ];
    let renamed = [
        (300, "db", "sql"),
        (301, "cache", "web"),
        (302, "web", "http"),
    ];
    follow(vec![
        step(vec![], &db, &net, &["web"]),
        step(vec![one()], &db, &net, &["web"]),
        // Another policy, other workloads, one more to compile for.
        step(vec![one(), two("")], &more, &net, &["web", "db"]),
        step(vec![two(""), one()], &more, &nets, &["web", "db"]),
        // The name of a port goes to another; a workload changes its labels.
        step(vec![two(""), one()], &renamed, &nets, &["web"]),
        step(vec![two(AUDIT), one()], &more, &nets, &["web", "db"]),
        // Only watched, and another rule under the same name.
        step(
            vec![policy("one", "web", "db", "80", ""), two(AUDIT)],
            &more,
            &net,
            &["web"],
        ),
        step(
            vec![policy("one", "db", "web", "80", AUDIT)],
            &renamed,
            &net,
            &["web", "db"],
        ),
        step(vec![one(), one()], &db, &net, &["web"]),
        step(vec![], &[], &net, &["web"]),
    ]);
}

#[test]
fn what_has_not_changed_is_equal_to_what_it_was() {
    let policies = vec![
        policy("one", "web", "db", "5432", ""),
        policy("two", "web", "db", "80", ""),
    ];
    let step = |others: &[_]| Step {
        policies: policies.clone(),
        others: others.to_vec(),
        prefixes: vec![(900, "192.0.2.0/24")],
        subjects: vec![subject("web")],
    };
    let all = follow(vec![
        step(&[(300, "db", "sql")]),
        step(&[(300, "db", "sql"), (301, "nobody", "http")]),
    ]);
    assert_eq!(all.first(), all.last());
}

#[test]
fn after_a_mistake_it_begins_from_scratch() {
    let mut compilers = Compilers::new(EnforcementMode::Default);
    let mut selectors = SelectorTable::default();
    let step = |prefixes| Step {
        policies: vec![policy("one", "web", "db", "80", "")],
        others: vec![(300, "db", "sql")],
        prefixes,
        subjects: vec![subject("db"), subject("web")],
    };
    for (step, works) in [
        (step(vec![(900, "192.0.2.0/24")]), true),
        // The prefix has no number.
        (step(vec![]), false),
        (step(vec![(900, "192.0.2.0/24")]), true),
    ] {
        let subjects = step.subjects.iter().collect();
        let (identities, around) = (step.identities(), step.around());
        let compiled = compilers.compile(
            &step.policies,
            &identities,
            &around,
            subjects,
            &mut selectors,
        );
        assert_eq!(compiled.is_ok(), works);
        assert_eq!(compilers.known.is_some(), works);
    }
}
