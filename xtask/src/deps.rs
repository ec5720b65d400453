//! `cargo xtask deps`: dependencies point down, and the decision crates stay pure.
//!
//! In:  direct edges from `cargo metadata`, the closure of each pure crate from `cargo tree`.
//! Out: one finding per edge that breaks a rule.
//! Not here: why the layers are what they are (ARCHITECTURE.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::{cargo, report};

/// Where a crate stands; an edge inside the house must go to a lower number.
const LAYERS: &[(&str, u8)] = &[
    ("identity", 0),
    ("fqdn-ebpf-common", 0),
    ("policy", 1),
    ("dnsproxy-core", 2),
    // One line: what one of these makes and another consumes is a type of a lower crate.
    ("dnsproxy", 3),
    ("fqdn-ebpf-loader", 3),
    ("k8s", 3),
    ("flows", 3),
    ("agent", 4),
    ("namegate", 5),
    // The kernel programs know only what they share with the host.
    ("fqdn-ebpf", 1),
];

/// No clock, no sockets, no runtime, no kernel.
const PURE: &[&str] = &["identity", "policy", "dnsproxy-core", "fqdn-ebpf-common"];

/// The manifests of [`PURE`], for tools that take a path.
pub(crate) const PURE_MANIFESTS: &[&str] = &[
    "identity/Cargo.toml",
    "policy/Cargo.toml",
    "dnsproxy/core/Cargo.toml",
    "fqdn-ebpf/common/Cargo.toml",
];

/// What a pure crate must not reach, by exact name or by prefix (`rustix*`).
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "aya",
    "aya-obj",
    "kube*",
    "k8s-openapi",
    "socket2",
    "nix",
    "rustix*",
    "async-io",
    "hyper",
    "reqwest",
    "axum",
];

/// A library and the only crates of the house that may name it in their manifest.
const OWNED: &[(&str, &[&str])] = &[
    // `bench` loads the program that ours is held against.
    ("aya", &["fqdn-ebpf-loader", "bench"]),
    ("aya-obj", &["fqdn-ebpf-loader"]),
    ("aya-log", &["fqdn-ebpf-loader"]),
    ("aya-ebpf*", &["fqdn-ebpf"]),
    ("kube*", &["k8s"]),
    ("k8s-openapi", &["k8s"]),
];

/// Runs the check; true when nothing was found.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let house = House::of(&metadata);
    let mut findings = house.edge_findings();
    for name in PURE.iter().filter(|name| house.crates.contains_key(**name)) {
        findings.extend(impure(name, &closure(root, name)?));
    }
    Ok(report("deps", &findings))
}

/// How a manifest names another crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Part of the crate, or of building it.
    Real,
    /// Tests, examples and benches only.
    Dev,
}

/// A crate of the workspace and what its manifest names.
#[derive(Debug, Default)]
struct Crate {
    /// Lies under `tests/` or `fuzz/`: may use everything, nobody may use it outside of tests.
    proof: bool,
    names: BTreeSet<(String, Kind)>,
}

#[derive(Debug, Default)]
struct House {
    crates: BTreeMap<String, Crate>,
}

impl House {
    fn of(metadata: &Metadata) -> Self {
        let mut house = Self::default();
        for package in metadata.workspace_packages() {
            let place = package.manifest_path.strip_prefix(&metadata.workspace_root);
            let proof = place.is_ok_and(|p| p.starts_with("tests") || p.starts_with("fuzz"));
            let names = package.dependencies.iter().map(|dependency| {
                let kind = match dependency.kind {
                    DependencyKind::Development => Kind::Dev,
                    _ => Kind::Real,
                };
                (dependency.name.clone(), kind)
            });
            house.crates.insert(
                package.name.to_string(),
                Crate {
                    proof,
                    names: names.collect(),
                },
            );
        }
        house
    }

    /// Every edge of every manifest, held against the rules.
    fn edge_findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (from, of) in &self.crates {
            if !of.proof && from != "xtask" && layer(from).is_none() {
                findings.push(format!(
                    "`{from}` has no layer; give it one in xtask/src/deps.rs"
                ));
            }
            for (to, kind) in &of.names {
                findings.extend(self.edge(from, of, to, *kind));
            }
        }
        findings
    }

    fn edge(&self, from: &str, of: &Crate, to: &str, kind: Kind) -> Option<String> {
        if let Some((_, owners)) = OWNED.iter().find(|(library, _)| matches(library, to))
            && !owners.contains(&from)
        {
            return Some(format!(
                "`{from}` uses `{to}`; only {} may",
                owners.join(", ")
            ));
        }
        let target = self.crates.get(to)?;
        // Tests may look anywhere: the naive implementation is compared with the real one.
        if of.proof || kind == Kind::Dev {
            return None;
        }
        if target.proof {
            return Some(format!("`{from}` depends on `{to}`, which is test code"));
        }
        if from == "xtask" {
            return Some(format!("`xtask` depends on `{to}`; it stands outside"));
        }
        let (above, below) = (layer(from)?, layer(to)?);
        if above == below {
            return Some(format!(
                "`{from}` depends on `{to}`, which stands beside it; move the shared type down"
            ));
        }
        (above < below).then(|| format!("`{from}` depends on `{to}`, which stands above it"))
    }
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(n, _)| *n == name).map(|(_, l)| *l)
}

/// `name*` matches a prefix.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// What a pure crate reaches and must not.
fn impure(name: &str, closure: &BTreeSet<String>) -> Vec<String> {
    closure
        .iter()
        .filter(|reached| IMPURE.iter().any(|pattern| matches(pattern, reached)))
        .map(|reached| {
            format!("`{name}` is pure but reaches `{reached}` (cargo tree -p {name} -e normal -i {reached})")
        })
        .collect()
}

/// Everything that becomes part of `name` when it is built alone. `cargo metadata` cannot say: it
/// adds up the features that all members of the workspace ask of a library.
fn closure(root: &Path, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let output = cargo(root)
        .args(["tree", "--package", name, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .context("cannot start cargo tree")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo tree -p {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(names_of_tree(&String::from_utf8(output.stdout)?))
}

fn names_of_tree(tree: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(edges: &[(&str, &str, Kind)]) -> House {
        let mut house = House::default();
        for name in LAYERS.iter().map(|(name, _)| *name).chain(["xtask"]) {
            house.crates.insert(name.to_owned(), Crate::default());
        }
        house.crates.insert(
            "support".to_owned(),
            Crate {
                proof: true,
                ..Crate::default()
            },
        );
        for (from, to, kind) in edges {
            let of = house.crates.entry((*from).to_owned()).or_default();
            of.names.insert(((*to).to_owned(), *kind));
        }
        house
    }

    fn found(from: &str, to: &str, kind: Kind) -> Vec<String> {
        house(&[(from, to, kind)]).edge_findings()
    }

    #[test]
    fn edges_down_are_fine() {
        for (from, to) in [
            ("policy", "identity"),
            ("dnsproxy-core", "policy"),
            ("fqdn-ebpf-loader", "fqdn-ebpf-common"),
            ("fqdn-ebpf-loader", "aya"),
            ("fqdn-ebpf", "aya-ebpf"),
            ("agent", "fqdn-ebpf-loader"),
            ("namegate", "agent"),
            ("support", "agent"),
            ("k8s", "kube"),
        ] {
            assert_eq!(
                found(from, to, Kind::Real),
                Vec::<String>::new(),
                "{from} → {to}"
            );
        }
        assert!(found("policy", "support", Kind::Dev).is_empty());
    }

    #[test]
    fn an_edge_up_is_found() {
        for (from, to) in [
            ("identity", "policy"),
            ("policy", "dnsproxy-core"),
            ("flows", "agent"),
            ("agent", "namegate"),
            ("fqdn-ebpf", "dnsproxy-core"),
        ] {
            assert_eq!(found(from, to, Kind::Real).len(), 1, "{from} → {to}");
        }
    }

    #[test]
    fn an_edge_sideways_on_the_socket_line_is_found() {
        let line = ["dnsproxy", "fqdn-ebpf-loader", "k8s", "flows"];
        for from in line {
            for to in line.into_iter().filter(|to| *to != from) {
                assert_eq!(found(from, to, Kind::Real).len(), 1, "{from} → {to}");
            }
        }
    }

    #[test]
    fn aya_and_kube_outside_their_owner_are_found() {
        for (from, to) in [
            ("agent", "aya"),
            ("support", "aya"),
            ("agent", "kube"),
            ("namegate", "k8s-openapi"),
            ("agent", "kube-runtime"),
        ] {
            assert_eq!(found(from, to, Kind::Real).len(), 1, "{from} → {to}");
            assert_eq!(found(from, to, Kind::Dev).len(), 1, "{from} → {to} (dev)");
        }
    }

    #[test]
    fn test_code_in_the_product_is_found() {
        assert_eq!(found("agent", "support", Kind::Real).len(), 1);
        assert_eq!(found("xtask", "identity", Kind::Real).len(), 1);
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        let mut house = house(&[]);
        house.crates.insert("newcomer".to_owned(), Crate::default());
        assert_eq!(house.edge_findings().len(), 1);
    }

    #[test]
    fn a_runtime_reached_through_others_is_found() {
        let tree = "dnsproxy-core v0.1.0 (/x/dnsproxy/core)\nhickory-proto v0.26.3\ntokio v1.54.1\n\
                    rustix v1.0.0 (*)\n\nserde v1.0.0\n";
        let found = impure("dnsproxy-core", &names_of_tree(tree));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            impure(
                "policy",
                &names_of_tree("policy v0.1.0\ntokio-like v1.0.0\n")
            )
            .is_empty()
        );
    }

    #[test]
    fn this_checkout_has_every_pure_crate() {
        let root = crate::root().unwrap();
        for manifest in PURE_MANIFESTS {
            assert!(root.join(manifest).is_file(), "{manifest}");
        }
        assert_eq!(PURE.len(), PURE_MANIFESTS.len());
    }
}
