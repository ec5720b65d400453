//! `cargo xtask tidy`: the rules of the house that a machine can check in the text.
//!
//! In:  the files git knows, the roots of the crates, docs/acceptance.md.
//! Out: one finding per broken rule; files that grew long are named without failing.
//! Not here: dependency direction (`deps`), Rust's own lints (`lint`).

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::{MetadataCommand, TargetKind};

use crate::{
    acceptance, report,
    sources::{self, Source},
};

/// A header starts at the latest here.
const HEADER_WITHIN: usize = 12;
/// A file past this is named.
const LONG: usize = 600;

// In pieces, so that this file does not find itself.
const PLACEHOLDERS: &[&str] = &[
    concat!("#[ign", "ore"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Runs the check; true when nothing was found.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let sources = sources::all(root)?;
    let mut findings = Vec::new();
    for source in &sources {
        if source.is_rust() {
            findings.extend(header(source));
            findings.extend(placeholders(source));
            warn_when_long(source);
        }
        findings.extend(machine_paths(source));
    }
    for path in safe_roots(root)? {
        let text = std::fs::read_to_string(root.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        findings.extend(unsafe_forbidden(&Source { path, text }));
    }
    findings.extend(acceptance::findings(root, &sources));
    Ok(report("tidy", &findings))
}

fn header(source: &Source) -> Option<String> {
    let fixture =
        source.path.starts_with("tests") && source.path.iter().any(|part| part == "fixtures");
    let has = source
        .text
        .lines()
        .take(HEADER_WITHIN)
        .any(|line| line.starts_with("//!"));
    (!fixture && !has).then(|| {
        format!(
            "{}: no `//!` header in the first {HEADER_WITHIN} lines",
            source.path.display()
        )
    })
}

fn placeholders(source: &Source) -> Vec<String> {
    occurrences(source, PLACEHOLDERS, |_| true)
}

/// A path of somebody's machine; `a/work/b` is none, it does not start there.
fn machine_paths(source: &Source) -> Vec<String> {
    occurrences(source, MACHINE_PATHS, |before| {
        !before
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "_-.~/*}".contains(c))
    })
}

/// Lines that contain one of `needles`, where what stands before it on the line `counts`.
fn occurrences(source: &Source, needles: &[&str], counts: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for needle in needles {
            if line
                .match_indices(needle)
                .any(|(at, _)| line.get(..at).is_some_and(&counts))
            {
                found.push(format!(
                    "{}:{}: `{needle}`",
                    source.path.display(),
                    number.saturating_add(1)
                ));
            }
        }
    }
    found
}

fn unsafe_forbidden(source: &Source) -> Option<String> {
    let forbids = source
        .text
        .lines()
        .any(|line| line.trim_end() == "#![forbid(unsafe_code)]");
    (!forbids).then(|| format!("{}: no `#![forbid(unsafe_code)]`", source.path.display()))
}

/// The roots of libraries and programs outside the kernel crates.
fn safe_roots(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let mut roots = Vec::new();
    for package in metadata.workspace_packages() {
        for target in &package.targets {
            let counts = target
                .kind
                .iter()
                .any(|kind| matches!(kind, TargetKind::Lib | TargetKind::Bin));
            let path = target.src_path.strip_prefix(&metadata.workspace_root);
            if let Ok(path) = path
                && counts
                && !path.starts_with("fqdn-ebpf")
            {
                roots.push(path.as_std_path().to_path_buf());
            }
        }
    }
    Ok(roots)
}

fn warn_when_long(source: &Source) {
    let lines = source.text.lines().count();
    if lines > LONG {
        println!(
            "tidy: warning: {} has {lines} lines; one noun per file",
            source.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_missing_header_is_found() {
        assert!(header(&source("policy/src/a.rs", "use std::fmt;\n")).is_some());
        assert!(
            header(&source(
                "policy/src/a.rs",
                "// licence\n\n//! What it is.\n"
            ))
            .is_none()
        );
        let late = format!("{}//! Late.\n", "\n".repeat(HEADER_WITHIN));
        assert!(header(&source("policy/src/a.rs", &late)).is_some());
        assert!(header(&source("tests/netns/fixtures/a.rs", "fn main() {}\n")).is_none());
    }

    #[test]
    fn placeholders_are_found_where_they_stand() {
        for needle in PLACEHOLDERS {
            let text = format!("//! x\nfn f() {{\n    {needle}\n}}\n");
            let found = placeholders(&source("a.rs", &text));
            assert_eq!(found, [format!("a.rs:3: `{needle}`")]);
        }
        assert!(placeholders(&source("a.rs", "fn f() {}\n")).is_empty());
    }

    #[test]
    fn machine_paths_are_found_only_at_their_start() {
        for path in MACHINE_PATHS {
            for text in [
                format!("see {path}x"),
                format!("`{path}`"),
                format!("\"{path}y\""),
            ] {
                assert_eq!(machine_paths(&source("a.md", &text)).len(), 1, "{text}");
            }
            for text in [format!("target{path}x"), format!("${{HOME}}{path}x")] {
                assert!(machine_paths(&source("a.md", &text)).is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn a_root_without_forbid_is_found() {
        assert!(unsafe_forbidden(&source("lib.rs", "//! x\n")).is_some());
        assert!(unsafe_forbidden(&source("lib.rs", "//! #![forbid(unsafe_code)]\n")).is_some());
        assert!(unsafe_forbidden(&source("lib.rs", "//! x\n#![forbid(unsafe_code)]\n")).is_none());
    }

    #[test]
    fn the_roots_of_this_checkout_are_listed() {
        let roots = safe_roots(&crate::root().unwrap()).unwrap();
        assert!(roots.contains(&PathBuf::from("policy/src/lib.rs")));
        assert!(roots.contains(&PathBuf::from("cli/src/main.rs")));
        assert!(roots.iter().all(|r| !r.starts_with("fqdn-ebpf")));
    }
}
