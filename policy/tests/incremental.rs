//! One change after another comes to what compiling from scratch comes to.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod texts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::{IdentityId, Label, LabelSet, LocalIdentities, reserved};
use ipnet::IpNet;
use policy::{
    compile::{
        Change, Compiler, Diff, EnforcementMode, Identities, SelectorTable, Settings, Surroundings,
        World,
    },
    compiled::{DnsNames, DnsRule, EndpointPolicy, Entry, Protocol},
    model::Policy,
    parse,
};
use proptest::prelude::*;

const CLUSTER: &str = "default";
/// Numbers that policies are put under.
const NUMBERS: u32 = 4;

fn pod(namespace: &str, app: &str) -> LabelSet {
    [
        Label::k8s("io.kubernetes.pod.namespace", namespace),
        Label::k8s("app", app),
    ]
    .into_iter()
    .collect()
}

/// Identities that come and go.
fn visitors() -> Vec<(IdentityId, LabelSet)> {
    let worker = [Label::reserved("remote-node"), Label::k8s("role", "worker")];
    let id = IdentityId::from_raw;
    vec![
        (id(256), pod("a", "x")),
        (id(257), pod("a", "y")),
        (id(258), pod("b", "y")),
        (id(300), worker.into_iter().collect()),
    ]
}

/// A prefix of no policy that comes and goes inside of those that some name.
const NARROW: &str = "10.1.2.128/25";

#[derive(Clone, Debug)]
enum Step {
    Put(u32, String),
    Remove(u32),
    Visit(usize),
    Narrow,
    Ports,
}

fn step() -> impl Strategy<Value = Step> {
    let document = prop_oneof![
        3 => texts::cilium(),
        1 => texts::kubernetes(),
        2 => texts::tiered()
    ];
    prop_oneof![
        5 => (0..NUMBERS, document).prop_map(|(number, text)| Step::Put(number, text)),
        2 => (0..NUMBERS).prop_map(Step::Remove),
        3 => (0usize..4).prop_map(Step::Visit),
        1 => Just(Step::Narrow),
        1 => Just(Step::Ports),
    ]
}

/// The policies of a text, and the prefixes they name.
fn read(text: &str) -> Arc<Policy> {
    let parsed = parse::documents("p.yaml", text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
    Arc::new(parsed.policies.into_iter().next().unwrap())
}

/// The world, as it is after each step.
struct Now {
    identities: Identities,
    around: Surroundings,
    locals: LocalIdentities,
    present: BTreeSet<usize>,
    narrow: bool,
    policies: BTreeMap<u32, Arc<Policy>>,
}

impl Now {
    fn world(&self) -> World<'_> {
        World {
            identities: &self.identities,
            around: &self.around,
        }
    }

    /// Everything again, into an empty compiler.
    fn compiled_anew(
        &self,
        settings: &Settings,
        table: &mut SelectorTable,
        policies: &BTreeMap<u32, Arc<Policy>>,
    ) -> Option<EndpointPolicy> {
        let mut compiler = Compiler::new(settings.clone());
        let all: Vec<_> = policies
            .iter()
            .map(|(number, policy)| Change::Policy(*number, Some(Arc::clone(policy))))
            .collect();
        compiler.apply(&self.world(), table, &all).ok()?;
        Some(compiler.policy(&self.around))
    }
}

/// The policy line by line, without the numbers of its sets of rules.
fn lines(policy: &EndpointPolicy) -> Vec<String> {
    let rules = |entry: &Entry| {
        let rules = policy.rule_set(entry.rule_set).iter();
        rules.map(ToString::to_string).collect::<Vec<_>>()
    };
    let entries = policy.entries.iter().map(|e| {
        let (what, how) = ((e.direction, e.peer, e.l4), (e.action, e.precedence));
        format!("{what:?} {how:?} {:?}", rules(e))
    });
    let mut all: Vec<String> = entries
        .chain(policy.dns_rules.iter().map(asked))
        .chain(policy.needs_proxy.iter().map(|grant| format!("{grant:?}")))
        .chain(policy.shut_by.iter().map(|by| format!("{by:?}")))
        .chain(policy.selectors.iter().map(|named| format!("{named:?}")))
        .collect();
    let default = (policy.default_deny_ingress, policy.default_deny_egress);
    all.push(format!("{default:?}"));
    all.sort_unstable();
    all
}

fn asked(rule: &DnsRule) -> String {
    let names = match &rule.names {
        DnsNames::All => Vec::new(),
        DnsNames::Only(names) => names.iter().collect(),
    };
    let about = (rule.kind, rule.server, rule.proto, rule.ports);
    format!("{about:?} {names:?} {:?}", rule.origin)
}

/// Lines of one that the other has not.
fn apart(one: &EndpointPolicy, other: &EndpointPolicy) -> (Vec<String>, Vec<String>) {
    let (one, other) = (lines(one), lines(other));
    let missing = |from: &[String], to: &[String]| {
        let mut rest = to.to_vec();
        let mut gone = Vec::new();
        for line in from {
            match rest.iter().position(|own| own == line) {
                Some(at) => drop(rest.swap_remove(at)),
                None => gone.push(line.clone()),
            }
        }
        gone
    };
    (missing(&one, &other), missing(&other, &one))
}

fn follow(steps: Vec<Step>, mode: EnforcementMode, steer_dns: bool) -> Result<(), TestCaseError> {
    let settings = Settings {
        steer_dns,
        ..Settings::new(&pod("a", "x"), CLUSTER, mode)
    };
    let mut locals = LocalIdentities::default();
    // Every prefix that a text may name.
    let prefixes = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "192.0.2.0/24",
        "192.0.2.7/32",
        "2001:db8::/32",
        "2001:db8:1::/48",
    ];
    let known: Vec<_> = prefixes
        .iter()
        .map(|text| {
            let prefix: IpNet = text.parse().unwrap();
            (locals.cidr(prefix).unwrap(), prefix)
        })
        .collect();
    let host = [(
        reserved::HOST,
        [Label::reserved("host")].into_iter().collect(),
    )];
    let mut now = Now {
        identities: Identities::new(CLUSTER, host, known),
        around: Surroundings::default(),
        locals,
        present: BTreeSet::new(),
        narrow: false,
        policies: BTreeMap::new(),
    };
    let mut table = SelectorTable::default();
    let mut compiler = Compiler::new(settings.clone());
    compiler.apply(&now.world(), &mut table, &[]).unwrap();
    let mut entries: BTreeSet<Entry> = compiler.policy(&now.around).entries.into_iter().collect();
    for step in steps {
        let mut policies = now.policies.clone();
        let change = match &step {
            Step::Put(number, text) => {
                let policy = read(text);
                policies.insert(*number, Arc::clone(&policy));
                Change::Policy(*number, Some(policy))
            }
            Step::Remove(number) => {
                policies.remove(number);
                Change::Policy(*number, None)
            }
            Step::Visit(nth) => {
                let (id, labels) = visitors().swap_remove(*nth);
                if now.present.remove(nth) {
                    now.identities.remove(id);
                } else {
                    now.present.insert(*nth);
                    now.identities.insert(id, &labels);
                }
                Change::Labels(labels)
            }
            Step::Narrow => {
                let prefix: IpNet = NARROW.parse().unwrap();
                now.narrow = !now.narrow;
                if now.narrow {
                    now.identities
                        .insert_prefix(now.locals.cidr(prefix).unwrap(), prefix);
                } else {
                    now.identities.remove_prefix(prefix);
                }
                Change::Prefixes
            }
            Step::Ports => {
                let own = now
                    .around
                    .ports
                    .entry(IdentityId::from_raw(257))
                    .or_default();
                own.insert("web", Protocol::Tcp, 80);
                now.around.own_ports.insert("web", Protocol::Tcp, 8080);
                Change::Surroundings
            }
        };
        let expected = now.compiled_anew(&settings, &mut table, &policies);
        match compiler.apply(&now.world(), &mut table, &[change]) {
            Ok(Diff { removed, added }) => {
                for entry in &removed {
                    prop_assert!(
                        entries.remove(entry),
                        "removed what was not there: {entry:?}"
                    );
                }
                for entry in &added {
                    prop_assert!(entries.insert(*entry), "added what was there: {entry:?}");
                }
                now.policies = policies;
                let policy = compiler.policy(&now.around);
                let expected = expected.expect("from scratch it is refused");
                let nothing = (Vec::new(), Vec::new());
                prop_assert_eq!(apart(&policy, &expected), nothing, "after {:?}", &step);
                let own: BTreeSet<Entry> = policy.entries.into_iter().collect();
                prop_assert_eq!(&own, &entries, "the differences add up");
            }
            Err(error) => {
                prop_assert!(expected.is_none(), "only step by step: {error}");
                let policy = compiler.policy(&now.around);
                let before = now.compiled_anew(&settings, &mut table, &now.policies);
                let nothing = (Vec::new(), Vec::new());
                prop_assert_eq!(
                    apart(&policy, &before.unwrap()),
                    nothing,
                    "refused: {}",
                    error
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn step_by_step_equals_from_scratch(steps in proptest::collection::vec(step(), 1..14), always in proptest::bool::weighted(0.2), steer in proptest::bool::weighted(0.2)) {
        let mode = if always { EnforcementMode::Always } else { EnforcementMode::Default };
        follow(steps, mode, steer)?;
    }
}

/// A contradiction is refused, and leaves what was there.
#[test]
fn a_refused_change_changes_nothing() {
    let peers = "toEndpoints: [{matchLabels: {app: y}}]";
    let rule = |rules: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {{endpointSelector: {{}}, egress: [{{{peers}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{{rules}}}}}]}}]}}\n"
        )
    };
    let steps = vec![
        Step::Visit(1),
        Step::Put(0, rule("http: [{method: GET}]")),
        Step::Put(1, rule("kafka: [{topic: a}]")),
        Step::Put(2, rule("http: [{method: PUT}]")),
        Step::Remove(0),
        Step::Put(1, rule("kafka: [{topic: a}]")),
        Step::Remove(2),
        Step::Put(1, rule("kafka: [{topic: a}]")),
    ];
    follow(steps, EnforcementMode::Default, false).unwrap();
}

/// One identity more changes entries about it, and no others.
#[test]
fn an_identity_more_touches_nobody_else() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {endpointSelector: {}, egress: [{toEndpoints: [{matchExpressions: [{key: app, operator: Exists}]}]}, {toCIDR: [10.0.0.0/8]}]}\n";
    let id = IdentityId::from_raw;
    let mut locals = LocalIdentities::default();
    let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
    let known = (256..1256).map(|raw| (id(raw), pod("a", &format!("app{raw}"))));
    let mut identities = Identities::new(CLUSTER, known, [(locals.cidr(prefix).unwrap(), prefix)]);
    let around = Surroundings::default();
    let settings = Settings::new(&pod("a", "x"), CLUSTER, EnforcementMode::Default);
    let (mut compiler, mut table) = (Compiler::new(settings), SelectorTable::default());
    let put = Change::Policy(0, Some(read(text)));
    compiler
        .apply(
            &World {
                identities: &identities,
                around: &around,
            },
            &mut table,
            &[put],
        )
        .unwrap();
    assert_eq!(compiler.len(), 1001);
    let labels = pod("a", "new");
    identities.insert(id(5000), &labels);
    let change = [Change::Labels(labels.clone())];
    let diff = compiler
        .apply(
            &World {
                identities: &identities,
                around: &around,
            },
            &mut table,
            &change,
        )
        .unwrap();
    assert_eq!((diff.added.len(), diff.removed.len()), (1, 0));
    identities.remove(id(5000));
    let diff = compiler
        .apply(
            &World {
                identities: &identities,
                around: &around,
            },
            &mut table,
            &change,
        )
        .unwrap();
    assert_eq!((diff.added.len(), diff.removed.len()), (0, 1));
    assert_eq!(compiler.len(), 1001);
}
