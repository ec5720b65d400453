//! A daemon's socket on the host: it counts who reaches it.
//!
//! In:  a path, or an abstract name.
//! Out: the number of connections; the socket file and the directories made for it go on drop.
//! Not here: who tries.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};

/// A listening socket that answers every connection with one line.
#[derive(Debug)]
pub struct Listener {
    path: Option<PathBuf>,
    made: Vec<PathBuf>,
    reached: Arc<AtomicUsize>,
}

impl Listener {
    /// Listens at a path anybody may connect to, making the directories on the way. `None` where something is there
    /// already: a daemon of the machine, which the test has to leave alone.
    pub fn at(path: &Path) -> Result<Option<Self>> {
        if path.symlink_metadata().is_ok() {
            return Ok(None);
        }
        let mut made = Vec::new();
        for directory in path.parent().into_iter().flat_map(Path::ancestors) {
            if directory.exists() {
                break;
            }
            made.push(directory.to_owned());
        }
        for directory in made.iter().rev() {
            fs::create_dir(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        let reached = serve(listener);
        Ok(Some(Self {
            path: Some(path.to_owned()),
            made,
            reached,
        }))
    }

    /// Listens at an abstract name of the calling thread's network namespace.
    pub fn abstract_name(name: &str) -> Result<Self> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        Ok(Self {
            path: None,
            made: Vec::new(),
            reached: serve(listener),
        })
    }

    /// How many connections arrived.
    pub fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    /// Connects from here: proof that the socket works.
    pub fn self_test(&self) -> Result<()> {
        if let Some(path) = &self.path {
            UnixStream::connect(path)?;
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
        for directory in &self.made {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The thread ends with the test process.
fn serve(listener: UnixListener) -> Arc<AtomicUsize> {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            if connection.is_err() {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    reached
}
