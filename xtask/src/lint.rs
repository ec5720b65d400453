//! `cargo xtask lint`: formatting, clippy, documentation, and the house's own checks.
//!
//! In:  the checkout.
//! Out: each step's output and, at the end, which steps found something.
//! Not here: what the rules are (`rustfmt.toml`, `clippy.toml`, `deps`, `tidy`).

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{cargo, deps, tidy};

/// What is refused in the product and fine in a test.
const TESTS_MAY: &[&str] = &[
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::indexing_slicing",
];

/// Runs every step; true when none found anything.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let mut found = Vec::new();
    let mut step = |name: &str, ok: bool| {
        if !ok {
            found.push(name.to_owned());
        }
    };

    // File names are enough; `make fmt` does the rest.
    let mut fmt = cargo(root);
    fmt.args(["fmt", "--all", "--", "--check", "--files-with-diff"]);
    step("fmt", shown(&mut fmt)?);
    step("deps", deps::run(root)?);
    step("tidy", tidy::run(root)?);
    let host = ["--workspace", "--exclude", "fqdn-ebpf"];
    // The product first, then everything. Clippy's own exemption knows functions marked as tests,
    // not their helpers in files of their own; a panic there is a failed test, as it should be.
    let mut product = cargo(root);
    product.arg("clippy").args(host).args(["--lib", "--bins"]);
    for package in proof_packages(root)? {
        product.args(["--exclude", &package]);
    }
    step("clippy", shown(product.args(["--", "-D", "warnings"]))?);
    let mut everything = cargo(root);
    everything.arg("clippy").args(host);
    everything.args(["--all-targets", "--", "-D", "warnings"]);
    everything.args(TESTS_MAY.iter().flat_map(|lint| ["-A", *lint]));
    step("clippy of tests", shown(&mut everything)?);
    step("kernel clippy", kernel_clippy(root)?);
    step(
        "doc",
        shown(
            cargo(root)
                .arg("doc")
                .args(host)
                .args(["--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )?,
    );
    step("cargo-deny", cargo_deny(root)?);

    if found.is_empty() {
        println!("lint: ok");
    } else {
        println!("lint: found something in: {}", found.join(", "));
    }
    Ok(found.is_empty())
}

/// Packages that are nothing but tests and what they need.
fn proof_packages(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    Ok(metadata
        .workspace_packages()
        .iter()
        .filter(|package| {
            package
                .manifest_path
                .starts_with(metadata.workspace_root.join("tests"))
        })
        .map(|package| package.name.to_string())
        .collect())
}

/// Clippy for the bpf target needs a compiler that has both clippy and the source of core.
fn kernel_clippy(root: &Path) -> anyhow::Result<bool> {
    let Some((way, rustc)) = kernel_compiler(root)? else {
        println!("kernel clippy: not run, no compiler for the kernel programs");
        return Ok(true);
    };
    let Some(bin) = rustc
        .parent()
        .filter(|bin| bin.join("cargo-clippy").is_file() && bin.join("cargo").is_file())
    else {
        println!(
            "kernel clippy: not run, the compiler chosen ({way}: {}) comes without clippy",
            rustc.display()
        );
        return Ok(true);
    };
    // The bin folder leads the search path, so that cargo finds the clippy that belongs to it.
    let mut path = bin.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    shown(
        Command::new(bin.join("cargo"))
            .current_dir(root)
            .args(["clippy", "--package", "fqdn-ebpf", "--release"])
            .args(["-Zbuild-std=core", "--target", "bpfel-unknown-none"])
            // Another compiler than the pinned one has lints of its own; it only tells.
            .args([
                "--",
                if way == "pinned" {
                    "-Dwarnings"
                } else {
                    "-Wclippy::all"
                },
            ])
            .env("PATH", path)
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTC")
            .env_remove("CARGO")
            .env(
                "RUSTFLAGS",
                format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
            ),
    )
}

fn kernel_compiler(root: &Path) -> anyhow::Result<Option<(String, std::path::PathBuf)>> {
    let answer = Command::new(root.join("scripts/kernel-toolchain"))
        .stderr(Stdio::null())
        .output()
        .context("cannot run scripts/kernel-toolchain")?;
    let text = String::from_utf8(answer.stdout)?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    Ok(field("way").zip(field("rustc").map(Into::into)))
}

/// Licences and bans once more, by the tool made for it, where it is installed.
fn cargo_deny(root: &Path) -> anyhow::Result<bool> {
    let installed = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        println!("cargo-deny: not installed; `deps` checked the same edges");
        return Ok(true);
    }
    let mut ok = shown(Command::new("cargo-deny").current_dir(root).args([
        "--workspace",
        "check",
        "bans",
        "licenses",
    ]))?;
    for manifest in deps::PURE_MANIFESTS {
        ok &= shown(
            Command::new("cargo-deny")
                .current_dir(root)
                .args(["--manifest-path", manifest, "--exclude-dev"])
                .args(["check", "--config"])
                .arg(root.join("pure.deny.toml"))
                .arg("bans"),
        )?;
    }
    Ok(ok)
}

/// Runs a command with its output on the screen, its words first.
fn shown(command: &mut Command) -> anyhow::Result<bool> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    println!("$ {words}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{words}`"))?;
    Ok(status.success())
}
