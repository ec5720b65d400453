//! Policies as people write them, built from their parts.
//!
//! In:  egress rules as YAML list items without indentation.
//! Out: a CiliumNetworkPolicy for the namespace `default`.
//! Not here: shorthand (`--allow` of the command line).

/// Any name may be asked of the resolver.
pub const DNS: &str = "\
- toEndpoints:
  - matchLabels:
      k8s:io.kubernetes.pod.namespace: kube-system
      k8s:k8s-app: kube-dns
  toPorts:
  - ports: [{ port: \"53\", protocol: ANY }]
";

/// A policy of this name that selects everything in `default`.
pub fn policy(name: &str, egress: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: {name}\n  namespace: default\n\
         spec:\n  endpointSelector: {{}}\n  egress:\n"
    );
    for line in egress.iter().flat_map(|rule| rule.lines()) {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// HTTPS to a name.
pub fn to_name(name: &str) -> String {
    format!(
        "- toFQDNs:\n  - matchName: \"{name}\"\n  toPorts:\n  - ports: [{{ port: \"443\", protocol: TCP }}]\n"
    )
}

/// Only names of these patterns may be asked of the resolver.
pub fn dns_only(patterns: &[&str]) -> String {
    let mut text = DNS.to_owned();
    text.push_str("    rules:\n      dns:\n");
    for pattern in patterns {
        text.push_str(&format!("      - matchPattern: \"{pattern}\"\n"));
    }
    text
}
