//! Debian's kernels, unpacked beside the build and never installed.
//!
//! In:  a series; Debian's archive, through an apt of its own that leaves the machine's alone.
//! Out: [`Unpacked`]: the kernel, its modules with their index, a static busybox.
//! Not here: what the guest does with them (`guest`).

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::tool::{output, text, tool};

/// A series, and the suites of Debian that have carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
}

/// A kernel and what it needs, ready to start.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) image: PathBuf,
    /// What `uname -r` says.
    pub(super) release: String,
    /// Above `lib/modules`.
    pub(super) base: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Follows the newest kernel of a suite.
const META_PACKAGE: &str = "linux-image-amd64";
const BUSYBOX: &str = "busybox-static";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where no other mirror of Debian is known here.
const MIRROR: &str = "http://deb.debian.org/debian/";

impl Kernel {
    const fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    const fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["trixie", "bookworm-backports"],
        }
    }

    /// The kernel below `folder`, fetched at the first use.
    pub(super) fn unpacked(self, folder: &Path) -> anyhow::Result<Unpacked> {
        anyhow::ensure!(
            std::env::consts::ARCH == "x86_64",
            "the guest shares this machine's programs, and only kernels for x86-64 are known here"
        );
        let base = folder.join(format!("linux-{}", self.series()));
        if !base.is_dir() {
            self.fetch(folder, &base)?;
        }
        Unpacked::look(&base).with_context(|| {
            format!(
                "{} is not complete: remove it and try again",
                base.display()
            )
        })
    }

    fn fetch(self, folder: &Path, base: &Path) -> anyhow::Result<()> {
        let mut tried = Vec::new();
        for suite in self.suites() {
            match self.fetch_from(suite, folder, base) {
                Ok(()) => return Ok(()),
                Err(error) => tried.push(format!("{suite}: {error:#}")),
            }
        }
        anyhow::bail!("no kernel {}: {}", self.series(), tried.join("; "))
    }

    fn fetch_from(self, suite: &str, folder: &Path, base: &Path) -> anyhow::Result<()> {
        eprintln!("vm: fetching Debian's kernel {} ({suite})", self.series());
        // Two runs at once each fetch on their own; the first to finish is kept.
        let making = folder.join(format!("fetch-{}-{suite}", std::process::id()));
        let apt = Apt::new(suite, &making.join("apt"))?;
        output(apt.command("apt-get", "apt")?.args(["-q", "update"]))?;
        let relations = text(apt.command("apt-cache", "apt")?.args([
            "depends",
            "--no-recommends",
            "--no-suggests",
            META_PACKAGE,
        ]))?;
        let package = image_package(&relations, self.series()).with_context(|| {
            format!("{META_PACKAGE} does not lead to a kernel {}", self.series())
        })?;
        output(
            apt.command("apt-get", "apt")?
                .args(["-q", "download", &package, BUSYBOX])
                .current_dir(&making),
        )?;
        let tree = making.join("tree");
        for deb in entries(&making)? {
            if deb.extension().is_some_and(|e| e == "deb") {
                output(tool("dpkg-deb", "dpkg")?.arg("-x").args([&deb, &tree]))?;
            }
        }
        // Since Debian 13 packages name the folder that /lib leads to.
        if !tree.join("lib").exists() {
            symlink("usr/lib", tree.join("lib"))?;
        }
        let release = release(&tree)?;
        output(tool("depmod", "kmod")?.arg("-b").arg(&tree).arg(&release))?;
        Unpacked::look(&tree)?;
        match fs::rename(&tree, base) {
            Err(_) if base.is_dir() => {}
            done => done.with_context(|| format!("cannot make {}", base.display()))?,
        }
        fs::remove_dir_all(&making)?;
        eprintln!("vm: unpacked {package} into {}", base.display());
        Ok(())
    }
}

impl Unpacked {
    fn look(base: &Path) -> anyhow::Result<Self> {
        let release = release(base)?;
        let unpacked = Self {
            image: base.join("boot").join(format!("vmlinuz-{release}")),
            busybox: ["bin/busybox", "usr/bin/busybox"]
                .iter()
                .map(|path| base.join(path))
                .find(|path| path.is_file())
                .context("no busybox")?,
            base: base.to_path_buf(),
            release,
        };
        for file in [&unpacked.image, &unpacked.modules().join("modules.dep")] {
            anyhow::ensure!(file.is_file(), "no {}", file.display());
        }
        Ok(unpacked)
    }

    pub(super) fn modules(&self) -> PathBuf {
        self.base.join("lib").join("modules").join(&self.release)
    }
}

/// An apt with lists, sources and a cache of its own, and nothing installed.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(suite: &str, folder: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is missing: `scripts/setup --for vm` installs it (the package \
             debian-archive-keyring)"
        );
        let keep = |name: &str, text: &str| fs::write(folder.join(name), text);
        for path in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(path))?;
        }
        keep("status", "")?;
        keep(
            "sources.list",
            &format!(
                "deb [arch=amd64 signed-by={KEYRING}] {} {suite} main\n",
                mirror()
            ),
        )?;
        Ok(Self {
            folder: folder.to_path_buf(),
        })
    }

    fn command(&self, name: &str, package: &str) -> anyhow::Result<Command> {
        let mut command = tool(name, package)?;
        let own = |path: &str| self.folder.join(path).display().to_string();
        for setting in [
            format!("Dir::State={}", self.folder.display()),
            format!("Dir::State::status={}", own("status")),
            format!("Dir::Cache={}", own("cache")),
            format!("Dir::Etc::sourcelist={}", own("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            // The sandbox user may not write below a home folder.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command.env("LC_ALL", "C");
        Ok(command)
    }
}

/// The mirror that this machine uses for Debian, if it uses one.
fn mirror() -> String {
    tool("apt-get", "apt")
        .and_then(|mut command| {
            text(command.args([
                "indextargets",
                "--format",
                "$(REPO_URI)",
                "Created-By: Packages",
                "Label: Debian",
            ]))
        })
        .ok()
        .and_then(|uris| uris.lines().next().map(str::to_owned))
        .unwrap_or_else(|| MIRROR.to_owned())
}

/// The package of a kernel of this series in what `apt-cache depends` prints.
fn image_package(relations: &str, series: &str) -> Option<String> {
    let wanted = format!("linux-image-{series}.");
    relations
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with(&wanted))
        .map(str::to_owned)
}

/// The one folder below lib/modules.
fn release(base: &Path) -> anyhow::Result<String> {
    let modules = base.join("lib").join("modules");
    let folders = entries(&modules)?;
    let [folder] = folders.as_slice() else {
        anyhow::bail!("{} kernels in {}", folders.len(), modules.display());
    };
    let name = folder.file_name().and_then(|name| name.to_str());
    Ok(name.context("a kernel without a name")?.to_owned())
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let paths: io::Result<Vec<PathBuf>> = fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect();
    Ok(paths?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_package_leads_to_the_kernel_of_its_series() {
        let relations = "linux-image-amd64\n  Depends: linux-image-6.1.0-50-amd64\n";
        assert_eq!(
            image_package(relations, "6.1").as_deref(),
            Some("linux-image-6.1.0-50-amd64")
        );
        assert_eq!(image_package(relations, "6.12"), None);
        let later = "linux-image-amd64\n  Depends: linux-image-6.12.107+deb13-amd64\n";
        assert_eq!(image_package(later, "6.1"), None);
        assert!(image_package(later, "6.12").is_some());
    }
}
