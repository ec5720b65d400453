//! Where maps and links are pinned, so that enforcement outlives its agent.
//!
//! In:  a folder of a bpf file system, the sizes of the maps.
//! Out: [`Pins`]: a path for every map and every link.
//! Not here: taking over what is pinned (`adopt`, `attach`).
//!
//! Maps of one ABI and one set of sizes share a folder, a *generation*. Another ABI or other sizes
//! are another folder: its maps are filled before the links change over, and then the old one goes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fqdn_ebpf_common::ABI_VERSION;

use crate::Sizes;

/// The maps that outlive an agent.
const MAPS: [&str; 11] = [
    "CONFIG",
    "ENDPOINTS",
    "IPCACHE",
    "IPCACHE_LPM",
    "LEARNED",
    "POLICY",
    "CT",
    "FRAGS",
    "EVENTS",
    "TOKENS",
    "METRICS",
];

/// The folder of links.
const LINKS: &str = "links";

/// Paths of what is pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pins {
    root: PathBuf,
    generation: String,
}

impl Pins {
    /// Makes the folders.
    ///
    /// # Errors
    /// When there is no bpf file system, or it cannot be written.
    pub fn open(root: &Path, sizes: &Sizes) -> io::Result<Self> {
        let pins = Self {
            root: root.to_owned(),
            generation: generation(sizes),
        };
        fs::create_dir_all(root.join(LINKS))?;
        fs::create_dir_all(root.join(&pins.generation))?;
        Ok(pins)
    }

    /// The older generation of the same ABI that is complete, the newest of several.
    pub(crate) fn predecessor(&self) -> Option<Self> {
        let same_abi = format!("abi{ABI_VERSION}-");
        let mut all: Vec<_> = fs::read_dir(&self.root)
            .ok()?
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let generation = entry.file_name().into_string().ok()?;
                let older = generation.starts_with(&same_abi) && generation != self.generation;
                let modified = entry.metadata().and_then(|about| about.modified()).ok()?;
                older.then_some((modified, generation))
            })
            .collect();
        all.sort_unstable();
        let (_, generation) = all.pop()?;
        Some(Self {
            root: self.root.clone(),
            generation,
        })
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(&self.generation).join(name)
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + use<> {
        let folder = self.root.join(&self.generation);
        MAPS.into_iter().map(move |name| (name, folder.join(name)))
    }

    pub(crate) fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.root.join(LINKS).join(format!("{ifindex}-{program}"))
    }

    /// Lets go of links of other interfaces than these, and of other generations' maps.
    ///
    /// # Errors
    /// When a folder cannot be read or a file cannot be removed.
    pub fn retain(&self, interfaces: &[u32]) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(LINKS))? {
            let entry = entry?;
            let name = entry.file_name();
            let ifindex = name
                .to_str()
                .and_then(|name| name.split_once('-')?.0.parse().ok());
            if ifindex.is_none_or(|ifindex: u32| !interfaces.contains(&ifindex)) {
                fs::remove_file(entry.path())?;
            }
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let old = name
                .to_str()
                .is_some_and(|name| name.starts_with("abi") && name != self.generation);
            if old {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Lets go of everything: nothing is enforced any more.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(root: &Path) -> io::Result<()> {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A name for maps that fit each other. A bpf file system allows no dots.
fn generation(sizes: &Sizes) -> String {
    let Sizes {
        endpoints,
        addresses,
        prefixes,
        learned,
        policy,
        flows,
        datagrams,
        event_bytes: _,
    } = *sizes;
    format!(
        "abi{ABI_VERSION}-{endpoints}-{addresses}-{prefixes}-{learned}-{policy}-{flows}-{datagrams}-{}",
        sizes.ring_bytes()
    )
}
