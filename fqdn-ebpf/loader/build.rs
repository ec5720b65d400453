//! Builds the kernel programs and puts the object where `include_bytes!` finds it.
//!
//! In:  the sources of `fqdn-ebpf` and `fqdn-ebpf/common`; or NAMEGATE_EBPF_OBJECT, a path to an object built elsewhere.
//! Out: `$OUT_DIR/namegate-tc.o`.
//! Not here: choosing and installing compilers (`scripts/kernel-toolchain`, `scripts/setup`).

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PREBUILT: &str = "NAMEGATE_EBPF_OBJECT";
const PROGRAM: &str = "namegate-tc";
const TARGET: &str = "bpfel-unknown-none";

fn main() {
    if let Err(error) = run() {
        // `error=` is the one form cargo shows without a backtrace or the script's whole output.
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let loader = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let kernel = loader.parent().ok_or("the loader has no parent folder")?;
    let root = kernel
        .parent()
        .ok_or("the kernel crate has no parent folder")?;
    let out = PathBuf::from(var("OUT_DIR")?);
    let object = out.join(format!("{PROGRAM}.o"));

    println!("cargo::rerun-if-env-changed={PREBUILT}");
    if let Some(prebuilt) = env::var_os(PREBUILT).filter(|path| !path.is_empty()) {
        let prebuilt = PathBuf::from(prebuilt);
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        return place(&prebuilt, &object);
    }

    for input in ["src", "Cargo.toml", "common/src", "common/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", kernel.join(input).display());
    }
    for input in ["Cargo.lock", "scripts/kernel-toolchain"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    println!("cargo::rerun-if-env-changed=NAMEGATE_KERNEL_WAY");

    let toolchain = Toolchain::find(root)?;
    let target_dir = out.join("bpf");
    let status = child_cargo(root, &toolchain, &target_dir)?
        .status()
        .map_err(|e| format!("cannot start {}: {e}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(format!(
            "building the kernel programs failed ({status}, compiler: {} {}); the compiler's words are above. \
             If a tool is missing, `scripts/setup --for build` installs it.",
            toolchain.way,
            toolchain.rustc.display()
        )
        .into());
    }
    place(
        &target_dir.join(TARGET).join("release").join(PROGRAM),
        &object,
    )
}

/// The compiler pair that `scripts/kernel-toolchain` chose.
struct Toolchain {
    way: String,
    rustc: PathBuf,
    cargo: PathBuf,
}

impl Toolchain {
    fn find(root: &Path) -> Result<Self> {
        let script = root.join("scripts/kernel-toolchain");
        let output = Command::new(&script)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", script.display()))?;
        if !output.status.success() {
            return Err(format!(
                "{}`scripts/setup --for build` installs what is missing, or says what to install; \
                 {PREBUILT}=FILE uses an object built elsewhere.",
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        }
        let answer = String::from_utf8(output.stdout)?;
        let field = |name: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .filter(|value| !value.is_empty())
        };
        let cargo = match field("cargo") {
            Some(path) => OsString::from(path),
            None => var("CARGO")?,
        };
        Ok(Self {
            way: field("way").unwrap_or("unknown").to_owned(),
            rustc: field("rustc").ok_or("no rustc was named")?.into(),
            cargo: cargo.into(),
        })
    }
}

/// A cargo that knows nothing of the build around it: the outer one's flags, wrappers and target
/// settings are for the host.
fn child_cargo(root: &Path, toolchain: &Toolchain, target_dir: &Path) -> Result<Command> {
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_the_host_build = (text.starts_with("CARGO_") && !keep(&text))
            || text.starts_with("RUSTC")
            || text.starts_with("RUSTFLAGS")
            || text.starts_with("RUSTDOC")
            || matches!(
                &*text,
                "CARGO"
                    | "RUSTUP_TOOLCHAIN"
                    | "TARGET"
                    | "HOST"
                    | "OUT_DIR"
                    | "PROFILE"
                    | "OPT_LEVEL"
                    | "DEBUG"
                    | "NUM_JOBS"
                    | "MAKEFLAGS"
                    | "MAKELEVEL"
                    | "MFLAGS"
                    | "LD_LIBRARY_PATH"
            );
        if of_the_host_build {
            command.env_remove(&name);
        }
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // 32-bit arithmetic and jumps, which every kernel since 5.1 has.
        "-Ctarget-cpu=v3".to_owned(),
    ];
    command
        .current_dir(root)
        .args(["build", "--package", "fqdn-ebpf", "--bin", PROGRAM])
        .args(["--release", "--locked", "-Zbuild-std=core"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The host's release profile checks overflows; in the kernel a panic path is dead weight that
        // the verifier walks, so arithmetic there is explicit and the checks are off.
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("PATH", search_path(root)?);
    Ok(command)
}

/// Where crates come from and where they are kept stays as the user set it.
fn keep(name: &str) -> bool {
    [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// bpf-linker comes from the tree's own tools first, then from wherever it is installed.
fn search_path(root: &Path) -> Result<OsString> {
    let mut folders = vec![root.join("build/tools/bin")];
    if let Some(path) = env::var_os("PATH") {
        folders.extend(env::split_paths(&path));
    }
    if let Some(home) = env::var_os("CARGO_HOME") {
        folders.push(PathBuf::from(home).join("bin"));
    }
    if let Some(home) = env::var_os("HOME") {
        folders.push(PathBuf::from(home).join(".cargo/bin"));
    }
    Ok(env::join_paths(folders)?)
}

fn place(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()).into())
}

fn var(name: &str) -> Result<OsString> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}").into())
}
