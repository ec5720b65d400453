//! The files of policies and of facts about the world, watched.
//!
//! In:  the files and folders of the configuration.
//! Out: a notice when they may have changed; what is in them, as a whole or not at all.
//! Not here: putting policies in force (`engine`).
//!
//! Watching is a hint, never the truth: whatever a notice says, everything is read again, and a
//! timer reads again when notices cannot be had.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use policy::{
    model::{CidrGroup, Policy},
    parse::Limits,
};
use tokio::{sync::mpsc, time};

use crate::{
    facts::{self, Sourced, World},
    policies::{self, LoadError},
};

/// How long files must be left alone before they are read: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(15);
/// How long reading is put off at the most.
const MOST: Duration = Duration::from_millis(60);
/// Mistakes that are kept for `status`.
const MISTAKES: usize = 20;

/// What the files say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Content {
    pub(crate) policies: Vec<Policy>,
    /// Groups of prefixes that policies refer to.
    pub(crate) groups: Vec<CidrGroup>,
    /// What is known about the world.
    pub(crate) world: Sourced<World>,
}

/// Watches the files.
#[derive(Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    world: Option<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    changed: mpsc::Receiver<()>,
    noticed: Option<Noticed>,
    problem: Option<String>,
}

/// Changes that are not read yet.
#[derive(Clone, Copy, Debug)]
struct Noticed {
    first: time::Instant,
    last: time::Instant,
}

impl Noticed {
    fn now() -> Self {
        let now = time::Instant::now();
        Self {
            first: now,
            last: now,
        }
    }

    fn read_at(self) -> time::Instant {
        (self.last + QUIET).min(self.first + MOST)
    }
}

impl Files {
    pub(crate) fn watch(paths: Vec<PathBuf>, world: Option<PathBuf>) -> Self {
        let (notice, changed) = mpsc::channel(1);
        let watcher = RecommendedWatcher::new(
            move |event: notify::Result<notify::Event>| {
                let matters = match event {
                    Ok(event) => concerns_content(event.kind),
                    // Lost events: look again.
                    Err(_) => true,
                };
                if matters {
                    // A notice that waits already says the same.
                    let _ = notice.try_send(());
                }
            },
            Config::default(),
        );
        let mut files = Self {
            paths,
            world,
            watcher: None,
            changed,
            noticed: None,
            problem: None,
        };
        match watcher {
            Ok(watcher) => files.watcher = Some(watcher),
            Err(error) => files.lament(&error.to_string()),
        }
        files.rewatch();
        files
    }

    /// These files and folders from here on; `read` watches them.
    pub(crate) fn name(&mut self, paths: Vec<PathBuf>, world: Option<PathBuf>) {
        self.paths = paths;
        self.world = world;
    }

    /// Why changes are noticed late, if they are.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Folders may have been replaced by others of the same name.
    fn rewatch(&mut self) {
        let Some(watcher) = self.watcher.as_mut() else {
            return;
        };
        let mut problem = None;
        for path in self.paths.iter().chain(&self.world) {
            let (mode, target) = if path.is_dir() {
                (RecursiveMode::Recursive, path.as_path())
            } else {
                // A file is replaced rather than written: its folder tells.
                (RecursiveMode::NonRecursive, nearest(path))
            };
            if let Err(error) = watcher.watch(target, mode) {
                problem = Some(error.to_string());
            }
        }
        match problem {
            Some(problem) => self.lament(&problem),
            None => self.problem = None,
        }
    }

    fn lament(&mut self, reason: &str) {
        if self.problem.as_deref() != Some(reason) {
            tracing::warn!(
                reason,
                "policy files cannot be watched; they are read every few seconds"
            );
        }
        self.problem = Some(reason.to_owned());
    }

    /// Returns when the files have changed and are left alone. A call that is given up loses
    /// nothing: the next one goes on where it was.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(noticed) = self.noticed else {
                match self.changed.recv().await {
                    Some(()) => self.noticed = Some(Noticed::now()),
                    // No watcher: the caller's timer goes on.
                    None => std::future::pending().await,
                }
                continue;
            };
            tokio::select! {
                Some(()) = self.changed.recv() => {
                    self.noticed = Some(Noticed { last: time::Instant::now(), ..noticed });
                }
                () = time::sleep_until(noticed.read_at()) => {
                    self.noticed = None;
                    return;
                }
            }
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Every mistake; one is enough for nothing to count.
    pub(crate) async fn read(&mut self) -> Result<Content, Vec<String>> {
        self.rewatch();
        let (paths, world) = (self.paths.clone(), self.world.clone());
        tokio::task::spawn_blocking(move || content(&paths, world.as_deref()))
            .await
            .map_err(|error| vec![error.to_string()])?
    }
}

fn content(paths: &[PathBuf], world: Option<&Path>) -> Result<Content, Vec<String>> {
    let world = match world {
        Some(path) => facts::world(path).map_err(|error| vec![error.to_string()])?,
        None => Sourced::default(),
    };
    let limits = Limits {
        cluster: world.value.config.cluster.clone(),
        ..Limits::default()
    };
    match policies::load(paths, &limits) {
        Ok(loaded) => {
            for note in &loaded.notes {
                tracing::debug!("{note}");
            }
            Ok(Content {
                policies: loaded.policies,
                groups: loaded.groups,
                world,
            })
        }
        Err(errors) => {
            let rest = errors.len().saturating_sub(MISTAKES);
            let mut said: Vec<_> = errors
                .iter()
                .take(MISTAKES)
                .map(LoadError::to_string)
                .collect();
            if rest > 0 {
                said.push(format!("and {rest} more"));
            }
            Err(said)
        }
    }
}

/// Whether an event may mean other content. Being read is not that: reading would never end.
const fn concerns_content(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// The nearest folder above a path that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors()
        .skip(1)
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| Path::new("/"))
}
