//! Policy files from disk.
//!
//! In:  files and directories named on the command line.
//! Out: every policy in them, or every mistake.
//! Not here: what is in a file (`policy::parse`), watching.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use policy::{
    model::{CidrGroup, Policy},
    parse::{self, Limits, Note, PolicyError},
};

/// Directories below a named one that are entered.
const MAX_DEPTH: usize = 16;
/// Files of one directory tree.
const MAX_FILES: usize = 10_000;

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The policies, by file in order, then as written.
    pub policies: Vec<Policy>,
    /// The groups of prefixes that policies may refer to.
    pub groups: Vec<CidrGroup>,
    /// Documents that are not policies.
    pub notes: Vec<Note>,
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A mistake in a file.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A file or directory that cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory without a single policy file.
    #[error("`{0}` holds no .yaml, .yml or .json file")]
    Empty(PathBuf),
    /// A directory tree beyond reason.
    #[error(
        "`{path}` holds more than {MAX_FILES} files or {MAX_DEPTH} levels; name a smaller folder"
    )]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// Files without a policy.
    #[error("no policy in {}", .0.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", "))]
    NoPolicy(Vec<PathBuf>),
}

/// Reads every file, and every .yaml, .yml and .json file below every directory.
///
/// # Errors
/// Every mistake in every file: one run shows all there is to mend.
pub fn load(paths: &[PathBuf], limits: &Limits) -> Result<Loaded, Vec<LoadError>> {
    let (loaded, errors) = load_all(paths, limits);
    if errors.is_empty() {
        Ok(loaded)
    } else {
        Err(errors)
    }
}

/// The same, with what is fine beside what is not.
pub fn load_all(paths: &[PathBuf], limits: &Limits) -> (Loaded, Vec<LoadError>) {
    let mut loaded = Loaded::default();
    let mut errors = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            if let Err(error) = walk(path, path, 0, &mut files) {
                errors.push(error);
            } else if files.len() == before {
                errors.push(LoadError::Empty(path.clone()));
            }
        } else {
            files.push(path.clone());
        }
    }
    for file in &files {
        match read(file, limits.max_bytes) {
            Ok(bytes) => match parse::bytes(&file.display().to_string(), &bytes, limits) {
                Ok(parsed) => {
                    loaded.policies.extend(parsed.policies);
                    loaded.groups.extend(parsed.groups);
                    loaded.notes.extend(parsed.notes);
                }
                Err(mistakes) => errors.extend(mistakes.into_iter().map(LoadError::Policy)),
            },
            Err(source) => errors.push(LoadError::Read {
                path: file.clone(),
                source,
            }),
        }
    }
    if errors.is_empty() && !paths.is_empty() && loaded.policies.is_empty() {
        errors.push(LoadError::NoPolicy(paths.to_vec()));
    }
    (loaded, errors)
}

/// The bytes of a file, at most one more than a policy file may have.
fn read(file: &Path, max: usize) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take((max as u64).saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn walk(root: &Path, dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let cannot = |source| LoadError::Read {
        path: dir.to_owned(),
        source,
    };
    if depth > MAX_DEPTH {
        return Err(LoadError::TooLarge {
            path: root.to_owned(),
        });
    }
    let mut entries: Vec<_> = fs::read_dir(dir)
        .map_err(cannot)?
        .collect::<Result<_, _>>()
        .map_err(cannot)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // How a Kubernetes volume keeps its versions: the links beside them lead to the one that counts.
        if entry.file_name().as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(cannot)?.is_dir() {
            walk(root, &path, depth + 1, files)?;
        } else if path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json")
        {
            if files.len() >= MAX_FILES {
                return Err(LoadError::TooLarge {
                    path: root.to_owned(),
                });
            }
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
        metadata: {name: good}\nspec: {endpointSelector: {}, egress: [{}]}\n";

    #[test]
    fn every_mistake_of_every_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("good.yaml"), GOOD).unwrap();
        fs::write(dir.path().join("bad.yaml"), "apiVersion: [").unwrap();
        fs::write(
            dir.path().join("deep/unknown.yml"),
            GOOD.replace("egress:", "egres:"),
        )
        .unwrap();
        let errors = load(&[dir.path().to_owned()], &Limits::default()).unwrap_err();
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|t| t.contains("bad.yaml:2")), "{text:?}");
        assert!(text.iter().any(|t| t.contains("egres")), "{text:?}");
    }

    #[test]
    fn a_folder_is_read_recursively_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/good.yaml"), GOOD).unwrap();
        fs::write(dir.path().join("README.md"), "no policy").unwrap();
        let loaded = load(&[dir.path().to_owned()], &Limits::default()).unwrap();
        assert_eq!(loaded.policies.len(), 1);
    }

    #[test]
    fn a_folder_of_a_config_map_is_read_once_and_as_it_is_at_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        for (version, name) in [("..2026_01", "old"), ("..2026_02", "new")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            let text = GOOD.replace("good", name);
            fs::write(dir.path().join(version).join("p.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..2026_02", dir.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/p.yaml", dir.path().join("p.yaml")).unwrap();
        let loaded = load(&[dir.path().to_owned()], &Limits::default()).unwrap();
        let names: Vec<_> = loaded
            .policies
            .iter()
            .map(|p| p.reference.to_string())
            .collect();
        assert_eq!(names, ["CiliumNetworkPolicy/default/new"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let errors = load(&[PathBuf::from("/nonexistent/p.yaml")], &Limits::default()).unwrap_err();
        assert!(errors[0].to_string().contains("/nonexistent/p.yaml"));
    }
}
