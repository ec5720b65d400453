//! The matrix: policies, and for each what may reach what and why not.
//!
//! In:  nothing.
//! Out: [`all`] cases. A line reads `FROM > TO WHAT = ok`, or `= egress 133`: which side drops it and
//!      with which reason. It holds over IPv4 and IPv6 unless it begins with `4:` or `6:`. A name is
//!      looked up before it is asked; `dns` is the look-up alone, and may be `refused`.
//! Not here: who they are (`village`), trying it (`super`).
//!
//! The rows are those of Cilium's own connectivity tests (`cilium-cli/connectivity/builder`) as far
//! as they are about L3, L4, DNS and whole protocols, under their names; rows that need a proxy for
//! requests say that they are refused without one. Not here: encryption, and what another process of
//! Cilium does (`pod-to-ingress-service`, `host-firewall`, mutual authentication).

mod addresses;
mod deny;
mod kubernetes;
mod l4;
mod names;
mod pods;
mod services;

/// Policies, and what they come to.
pub(crate) struct Case {
    /// As Cilium calls the test, where it has one.
    pub(crate) name: &'static str,
    /// YAML.
    pub(crate) policies: String,
    /// What may reach what.
    pub(crate) lines: &'static [&'static str],
}

const fn case(name: &'static str, policies: String, lines: &'static [&'static str]) -> Case {
    Case {
        name,
        policies,
        lines,
    }
}

fn cnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}, namespace: test}}\nspec:\n{spec}\n"
    )
}

fn ccnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

fn knp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: test}}\nspec:\n{spec}\n"
    )
}

fn kcnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

/// A CNP about one workload.
fn about(workload: &str, rules: &str) -> String {
    cnp(
        "row",
        &format!("  endpointSelector: {{matchLabels: {{name: {workload}}}}}\n{rules}"),
    )
}

/// Beside deny rules, so that what they do not mean passes.
fn allow_all() -> String {
    cnp(
        "allow-all",
        "  endpointSelector: {}\n  ingress: [{fromEntities: [all]}]\n  egress: [{toEntities: [all]}]",
    )
}

const GROUP: &str = "---\napiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\n\
    metadata: {name: partners, labels: {tier: a}}\n\
    spec: {externalCIDRs: [203.0.113.10/32, \"2001:db8:113::10/128\"]}\n";

pub(crate) fn all() -> Vec<Case> {
    [
        pods::open(),
        pods::pods(),
        l4::icmp_and_protocols(),
        l4::ports(),
        addresses::cidr(),
        addresses::entities(),
        services::nodes_and_services(),
        deny::deny(),
        kubernetes::kubernetes(),
        kubernetes::tiers(),
        deny::modes(),
        names::names(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
