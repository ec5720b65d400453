//! Unnamed network namespaces, held by a descriptor, and threads that live in them.
//!
//! In:  nothing, or a closure.
//! Out: [`NetNs`], which ends with the last descriptor and thread; no name in the file system to clean up.
//! Not here: what is inside them (`links`).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use nix::sched::{CloneFlags, setns, unshare};

use super::PodError;

/// A network namespace.
#[derive(Debug, Clone)]
pub(crate) struct NetNs {
    file: Arc<File>,
}

impl NetNs {
    /// Makes an empty namespace. The thread that made it ends; the descriptor keeps it.
    pub(crate) fn create() -> Result<Self, PodError> {
        let made = on_thread("netns-maker", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        made.map(Self::from_file)
            .map_err(|source| PodError::Namespace {
                kind: "network",
                config: "NET_NS",
                source,
            })
    }

    /// The namespace of the calling thread.
    pub(crate) fn current() -> Result<Self, PodError> {
        let path = "/proc/thread-self/ns/net";
        File::open(path)
            .map(Self::from_file)
            .map_err(|source| PodError::File {
                action: "open",
                path: path.into(),
                source,
            })
    }

    fn from_file(file: File) -> Self {
        Self {
            file: Arc::new(file),
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `work` on a fresh thread inside and waits for it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PodError> {
        let entered = on_thread("netns-worker", || self.enter().map(|()| work()))?;
        entered.map_err(|source| PodError::Namespace {
            kind: "network",
            config: "NET_NS",
            source,
        })
    }

    /// Starts a long-lived thread inside.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>, PodError> {
        let inside = self.clone();
        Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                inside.enter()?;
                // A thread keeps its namespace by itself: holding the descriptor too would outlive `Pod`.
                drop(inside);
                Ok(work())
            })
            .map_err(|source| PodError::Start {
                what: "a thread in the gateway namespace",
                source,
            })
    }
}

fn on_thread<T: Send>(name: &'static str, work: impl FnOnce() -> T + Send) -> Result<T, PodError> {
    std::thread::scope(|scope| {
        Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| PodError::Start {
                what: "a thread",
                source,
            })?
            .join()
            .map_err(|_| PodError::Thread(name))
    })
}
