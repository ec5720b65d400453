//! Policies in audit: what is enforced is what the others say alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod village;

use policy::{
    compile::{
        CompileInput, EnforcementMode, Identities, SelectorTable, Surroundings, compile_layered,
    },
    compiled::{Direction, Layered},
    model::Mode,
};
use village::{cnp, labels, mistakes, parsed};

fn layered(text: &str) -> Layered {
    let input = CompileInput {
        policies: &parsed(text).policies,
        subject: &labels("a", &[("app", "me")]),
        identities: &Identities::new("default", [], []),
        mode: EnforcementMode::Default,
        allow_local_host: true,
        steer_dns: false,
    };
    compile_layered(
        &input,
        &Surroundings::default(),
        &mut SelectorTable::default(),
    )
    .unwrap()
}

fn in_audit(policy: &str) -> String {
    policy.replace(
        "metadata: {",
        "metadata: {annotations: {namegate.io/mode: audit}, ",
    )
}

const WEB: &str = "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '80'}]}]}]}";
const NOBODY: &str = "{endpointSelector: {}, ingress: [{}]}";

#[test]
fn the_annotation_says_how_a_policy_is_meant() {
    let mode = |annotations: &str| {
        let text = cnp(WEB).replace("metadata: {", &format!("metadata: {{{annotations}"));
        parsed(&text).policies[0].mode
    };
    assert_eq!(mode(""), Mode::Enforce);
    assert_eq!(mode("annotations: {}, "), Mode::Enforce);
    assert_eq!(mode("annotations: , "), Mode::Enforce);
    assert_eq!(mode("annotations: {other: x}, "), Mode::Enforce);
    assert_eq!(
        mode("annotations: {namegate.io/mode: enforce}, "),
        Mode::Enforce
    );
    assert_eq!(
        mode("annotations: {namegate.io/mode: audit}, "),
        Mode::Audit
    );
    let wrong = cnp(WEB).replace(
        "metadata: {",
        "metadata: {annotations: {namegate.io/mode: watch}, ",
    );
    let found = mistakes(&wrong).join("\n");
    assert!(
        found.contains("`watch` is not one of enforce, audit"),
        "{found}"
    );
    let wrong = cnp(WEB).replace("metadata: {", "metadata: {annotations: [x], ");
    let found = mistakes(&wrong).join("\n");
    assert!(
        found.contains("annotations") && found.contains("mapping"),
        "{found}"
    );
}

#[test]
fn what_is_enforced_is_what_the_others_say_alone() {
    let both = layered(&(in_audit(&cnp(WEB)) + &cnp(NOBODY)));
    let alone = layered(&cnp(NOBODY));
    let enforced = both.enforced.as_deref().unwrap();
    assert_eq!(*enforced, *alone.whole);
    assert_eq!(alone.enforced, None);
    assert!(both.whole.default_deny_egress && both.whole.default_deny_ingress);
    assert!(!enforced.default_deny_egress && enforced.default_deny_ingress);
    let shutting = both.would_shut(Direction::Egress);
    assert_eq!(shutting.len(), 1);
    assert!(both.would_shut(Direction::Ingress).is_empty());
}

#[test]
fn a_policy_in_audit_that_changes_nothing_makes_no_second_policy() {
    let other = "{endpointSelector: {matchLabels: {app: other}}, egress: [{}]}";
    assert_eq!(layered(&(in_audit(&cnp(other)) + &cnp(WEB))).enforced, None);
}
