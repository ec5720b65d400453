//! What a guest starts with: an archive in memory with `init`, early modules and the command.
//!
//! In:  an unpacked kernel, a shell script, how long it may take.
//! Out: [`Run`]: the archive, and where the console and the status will be written.
//! Not here: the kernel's files (`kernel`), starting the guest (`qemu`).

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;

use super::{
    kernel::Unpacked,
    tool::{output, text, tool},
};

const INIT: &str = include_str!("../../../tests/vm/init");

/// Before the process id in the name of a run's folder.
const PREFIX: &str = "run-";

/// What it takes to reach the machine's files; the rest is loaded from there.
const EARLY: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// Of the caller's environment, what a test may look at.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TERM",
    "CARGO_HOME",
    "RUSTUP_HOME",
];
const KEPT_PREFIXES: &[&str] = &["NAMEGATE_", "RUST_", "PROPTEST_"];

/// The files of one start.
#[derive(Debug)]
pub(super) struct Run {
    folder: PathBuf,
}

impl Run {
    /// An empty folder below `folder`; those of runs that are no more go.
    pub(super) fn new(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_over) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let run = Self {
            folder: folder.join(format!("{PREFIX}{}", std::process::id())),
        };
        fs::create_dir(&run.folder)?;
        Ok(run)
    }

    /// A copy that stays as it is while others go on building.
    pub(super) fn keep(&self, file: &Path) -> anyhow::Result<PathBuf> {
        let name = file.file_name().context("a program without a name")?;
        let kept = self.folder.join(name);
        fs::copy(file, &kept).with_context(|| format!("copying {}", file.display()))?;
        Ok(kept)
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    pub(super) fn status(&self) -> PathBuf {
        self.folder.join("status")
    }

    /// After a good end nothing of it is of use.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether this is the folder of a run whose process is gone, or of an earlier one of our number.
fn is_over(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| {
            pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists()
        })
}

/// A script that runs `command` in `folder` with the caller's environment.
pub(super) fn script_of(folder: &Path, command: &[OsString]) -> String {
    let words: Vec<String> = command.iter().map(quoted).collect();
    format!(
        "cd {} || exit 125\nexec {}\n",
        quoted(folder),
        words.join(" ")
    )
}

/// One word for a shell, whatever it contains.
pub(super) fn quoted(word: impl AsRef<OsStr>) -> String {
    // Only valid text survives; a path that is none cannot be handed to the guest's shell.
    format!(
        "'{}'",
        word.as_ref().to_string_lossy().replace('\'', r"'\''")
    )
}

/// Makes the archive of one start.
pub(super) fn prepare(
    run: &Run,
    kernel: &Unpacked,
    script: &str,
    seconds: u64,
) -> anyhow::Result<()> {
    let tree = run.folder.join("tree");
    for name in ["bin", "modules"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy(&kernel.busybox, tree.join("bin/busybox"))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(tree.join("command"), format!("{}{script}", environment()))?;
    fs::write(
        tree.join("settings"),
        format!(
            "release={}\nmodules={}\nseconds={seconds}\n",
            quoted(&kernel.release),
            quoted(kernel.modules())
        ),
    )?;
    let order: String = early_modules(kernel, &tree.join("modules"))?
        .iter()
        .map(|name| format!("{name}\n"))
        .collect();
    fs::write(tree.join("modules/order"), order)?;
    pack(&tree, &run.archive())?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// Copies the early modules unpacked; their names, each after what it needs.
fn early_modules(kernel: &Unpacked, into: &Path) -> anyhow::Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for module in EARLY {
        let plan = text(
            tool("modprobe", "kmod")?
                .args([
                    "--show-depends",
                    "-C",
                    "/dev/null",
                    "-S",
                    &kernel.release,
                    "-d",
                ])
                .args([kernel.base.as_os_str(), OsStr::new(module)]),
        )?;
        for file in plan.lines().filter_map(to_insert) {
            let (name, bytes) = plain_module(&file)?;
            if seen.insert(name.clone()) {
                fs::write(into.join(&name), bytes)?;
                order.push(name);
            }
        }
    }
    Ok(order)
}

/// The file in `insmod FILE [OPTIONS]`; what is built in needs none.
fn to_insert(line: &str) -> Option<PathBuf> {
    let rest = line.strip_prefix("insmod ")?;
    Some(PathBuf::from(rest.split_whitespace().next()?))
}

/// The name of a module file and its content without compression.
fn plain_module(file: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let name = file
        .file_name()
        .and_then(OsStr::to_str)
        .context("a module without a name")?;
    let (plain, bytes) = if let Some(plain) = name.strip_suffix(".xz") {
        (plain, output(tool("xz", "xz-utils")?.arg("-dc").arg(file))?)
    } else if let Some(plain) = name.strip_suffix(".zst") {
        (plain, output(tool("zstd", "zstd")?.arg("-dcq").arg(file))?)
    } else {
        (name, fs::read(file)?)
    };
    Ok((plain.to_owned(), bytes))
}

/// The variables that go along, as lines of a shell.
fn environment() -> String {
    std::env::vars()
        .filter(|(name, _)| {
            KEPT.contains(&name.as_str()) || KEPT_PREFIXES.iter().any(|p| name.starts_with(p))
        })
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect()
}

/// Packs `tree` with the busybox inside it, so that the machine needs no cpio.
fn pack(tree: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut names = Vec::new();
    list(tree, tree, &mut names)?;
    let mut child = std::process::Command::new(tree.join("bin/busybox"))
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(archive)?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start busybox")?;
    let mut input = child.stdin.take().context("busybox takes no input")?;
    for name in names {
        input.write_all(name.as_os_str().as_bytes())?;
        input.write_all(b"\n")?;
    }
    drop(input);
    let ended = child.wait()?;
    anyhow::ensure!(ended.success(), "packing the archive ended with {ended}");
    Ok(())
}

/// Everything below `folder`, folders before what they hold.
fn list(top: &Path, folder: &Path, names: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        names.push(entry.path().strip_prefix(top)?.to_path_buf());
        if entry.file_type()?.is_dir() {
            list(top, &entry.path(), names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let words = ["it's", "a b", "$HOME", "", "`x`", "new\nline", "\\"];
        let script = format!("printf '%s|' {}", words.map(quoted).join(" "));
        let mut shell = tool("sh", "dash").unwrap();
        let said = text(shell.args(["-c", &script])).unwrap();
        assert_eq!(said, words.map(|word| format!("{word}|")).concat());
    }

    #[test]
    fn a_script_runs_in_its_folder_and_keeps_the_status() {
        let script = script_of(
            Path::new("/usr"),
            &["sh".into(), "-c".into(), "pwd; exit 7".into()],
        );
        let done = tool("sh", "dash")
            .unwrap()
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(done.stdout, b"/usr\n");
        assert_eq!(done.status.code(), Some(7));
    }

    #[test]
    fn a_run_removes_what_dead_ones_left() {
        let folder = std::env::temp_dir().join(format!("xtask-vm-{}", std::process::id()));
        let living = folder.join("run-1");
        let other = folder.join("linux-6.1");
        // No process has a number this large.
        let dead = folder.join("run-4294967295");
        for path in [&living, &other, &dead] {
            fs::create_dir_all(path).unwrap();
        }
        let run = Run::new(&folder).unwrap();
        assert!(living.exists() && other.exists() && run.folder.exists());
        assert!(!dead.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_modules_that_are_files_are_inserted() {
        assert_eq!(
            to_insert("insmod /x/9p.ko.xz debug=1"),
            Some(PathBuf::from("/x/9p.ko.xz"))
        );
        assert_eq!(to_insert("builtin virtio_pci"), None);
    }
}
