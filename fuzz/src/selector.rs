//! Label selectors in policies against reading them one requirement at a time: `selector_parse`.
//!
//! In:  a choice of keys, operators, values and labels; or bytes that stand for a selector.
//! Out: a panic when reading panics, or a selector that was accepted selects others than it says.
//! Not here: other parts of policies (`parse`), finding many identities at once (`policies`).

use identity::{Label, LabelSet};
use policy::{parse, selector::LabelSelector};

use crate::input::Input;

const KEYS: &[&str] = &[
    "app",
    "k8s:app",
    "any:app",
    "reserved:app",
    "example.com/tier",
    "k8s:example.com/tier",
    "io.kubernetes.pod.namespace",
    "",
    "-app",
    "a b",
    "k8s:",
    ":app",
];
const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist", "in", "Gt", ""];
const VALUES: &[&str] = &["web", "db", "", "a", "-", "web ", "1", "true"];
const LABELS: &[&str] = &[
    "k8s:app=web",
    "k8s:app=db",
    "k8s:app",
    "container:app=web",
    "reserved:app=db",
    "k8s:example.com/tier=web",
    "any:example.com/tier=1",
];
/// Requirements, values and labels: more only take longer.
const MOST: u8 = 4;

/// What was chosen to stand in the file.
struct Chosen {
    key: &'static str,
    operator: &'static str,
    values: Vec<&'static str>,
}

/// A selector is refused, or selects the labels that each of its requirements is about.
pub fn selector_parse(data: &[u8]) {
    let mut input = Input::new(data);
    if input.flag() {
        let text = String::from_utf8_lossy(input.rest()).into_owned();
        let _ = subject(&text);
        return;
    }
    let equal: Vec<_> = (0..input.below(MOST))
        .map(|_| Chosen {
            key: word(&mut input, KEYS),
            operator: "In",
            values: vec![word(&mut input, VALUES)],
        })
        .collect();
    let expressions: Vec<_> = (0..input.below(MOST))
        .map(|_| Chosen {
            key: word(&mut input, KEYS),
            operator: word(&mut input, OPERATORS),
            values: (0..input.below(MOST))
                .map(|_| word(&mut input, VALUES))
                .collect(),
        })
        .collect();
    let Some(selector) = subject(&written(&equal, &expressions)) else {
        return;
    };
    let all: Vec<_> = equal.into_iter().chain(expressions).collect();
    while !input.is_over() {
        let labels: LabelSet = (0..1 + input.below(MOST))
            .map(|_| input.pick(LABELS).parse::<Label>().unwrap())
            .collect();
        let expected = all.iter().all(|chosen| holds(chosen, &labels));
        assert_eq!(
            selector.matches(&labels),
            expected,
            "{} and {labels:?}",
            written(&all, &[])
        );
    }
}

fn word(input: &mut Input<'_>, all: &[&'static str]) -> &'static str {
    let word: &&str = input.pick(all);
    word
}

/// One requirement, read by itself.
fn holds(chosen: &Chosen, labels: &LabelSet) -> bool {
    let (source, key) = chosen.key.split_once(':').unwrap_or(("any", chosen.key));
    let of_key =
        |label: &&Label| label.key() == key && (source == "any" || label.source() == source);
    let mut values = labels.iter().filter(of_key).map(Label::value);
    match chosen.operator {
        "In" => values.any(|value| chosen.values.contains(&value)),
        "NotIn" => values.all(|value| !chosen.values.contains(&value)),
        "Exists" => values.next().is_some(),
        "DoesNotExist" => values.next().is_none(),
        other => panic!("`{other}` was accepted"),
    }
}

fn written(equal: &[Chosen], expressions: &[Chosen]) -> String {
    let equal: Vec<_> = equal
        .iter()
        .map(|own| format!("'{}': '{}'", own.key, own.values.concat()))
        .collect();
    let expressions: Vec<_> = expressions
        .iter()
        .map(|own| {
            let values: Vec<_> = own
                .values
                .iter()
                .map(|value| format!("'{value}'"))
                .collect();
            let (key, operator) = (own.key, own.operator);
            format!(
                "{{key: '{key}', operator: '{operator}', values: [{}]}}",
                values.join(", ")
            )
        })
        .collect();
    format!(
        "{{matchLabels: {{{}}}, matchExpressions: [{}]}}",
        equal.join(", "),
        expressions.join(", ")
    )
}

/// The selector as the subject of a policy of the whole cluster, which adds nothing to it.
fn subject(selector: &str) -> Option<LabelSelector> {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  endpointSelector: {selector}\n  egress: [{{}}]\n"
    );
    let parsed = parse::documents("p.yaml", &text).ok()?;
    let rule = parsed
        .policies
        .into_iter()
        .next()?
        .rules
        .into_iter()
        .next()?;
    Some(rule.subject)
}
