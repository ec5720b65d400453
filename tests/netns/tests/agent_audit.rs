//! `namegate agent`: one policy in audit beside others that are enforced.

mod agent;

use std::time::Duration;

use agent::{Node, Pod, answered, names};
use anyhow::{Result, ensure};
use netns::refused;
use serde_json::Value;
use support::{World, until, world::address as at};

/// Denies one address and leaves everything else as it is.
fn fence() -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: fence}}\nspec:\n  \
         endpointSelector: {{}}\n  enableDefaultDeny: {{egress: false}}\n  egressDeny:\n  \
         - toCIDR: [{}/32]\n",
        at::EVIL
    )
}

/// Allows DNS and one name, as a policy that is only watched.
fn watched() -> String {
    names("watched", "{}", &["example.test"]).replace(
        "metadata: {",
        "metadata: {annotations: {namegate.io/mode: audit}, ",
    )
}

/// The records about an address with a verdict, and whom they name.
fn named(node: &Node<'_>, address: &str, verdict: &str) -> Result<Vec<String>> {
    let words = ["observe", "--last", "1000", "--address", address];
    let records = node.client().json_lines(&words)?;
    let of_verdict = records
        .iter()
        .filter(|record| record.get("verdict") == Some(&Value::from(verdict)));
    // Nobody is named where a default decides.
    let by = |record: &Value| record.get("egress_denied_by").map(Value::to_string);
    Ok(of_verdict
        .map(|record| by(record).unwrap_or_default())
        .collect())
}

#[test]
fn a_policy_in_audit_refuses_nothing_and_the_others_still_do() -> Result<()> {
    let world = World::new()?;
    let mut node = Node::new(&world)?;
    let pod = Pod::routed(&world, 1)?;
    node.policy("watched.yaml", &watched())?;
    node.policy("fence.yaml", &fence())?;
    node.configure(&[(&pod, "{app: web}")], "")?;
    node.start()?;
    node.until_state(&pod, "enforcing")?;

    // What the policy in audit allows, and what it alone would refuse: both pass.
    ensure!(pod.resolve("example.test")?.contains(at::EXAMPLE));
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    ensure!(pod.resolve("other.test")?.contains(at::OTHER));
    answered(&node, &pod.get("other.test", at::OTHER)?, at::OTHER)?;
    // What another policy refuses is refused.
    refused(&pod.knock("evil.test", at::EVIL)?)?;
    ensure!(world.arrived(at::EVIL, 443)? == 0);

    let audited = named(&node, at::OTHER, "AUDIT")?;
    ensure!(
        !audited.is_empty() && audited.iter().all(|by| by.contains("\"watched\"")),
        "{audited:?}"
    );
    ensure!(named(&node, at::OTHER, "DROPPED")?.is_empty());
    ensure!(named(&node, at::EXAMPLE, "AUDIT")?.is_empty());
    let dropped = named(&node, at::EVIL, "DROPPED")?;
    ensure!(
        !dropped.is_empty() && dropped.iter().all(|by| by.contains("\"fence\"")),
        "{dropped:?}"
    );

    // Enforced from now on: what was only reported is refused, and what was learned is still open.
    let enforced = watched().replace("mode: audit", "mode: enforce");
    node.policy("watched.yaml", &enforced)?;
    until(Duration::from_secs(30), "the policy to be enforced", || {
        let knocked = pod.knock("other.test", at::OTHER).ok()?;
        netns::is_refused(&knocked).then_some(())
    })?;
    answered(&node, &pod.get("example.test", at::EXAMPLE)?, at::EXAMPLE)?;
    let refusals = named(&node, at::OTHER, "DROPPED")?;
    ensure!(!refusals.is_empty(), "{}", node.log());
    Ok(())
}
