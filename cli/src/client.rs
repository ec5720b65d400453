//! Asks a running enforcer over its control socket.
//!
//! In:  which socket, which path.
//! Out: the values of `agent::api`, or an error that says what to do.
//! Not here: rendering.

use std::path::{Path, PathBuf};

use agent::api::{CacheRow, Cleaned, FqdnNames, Rows, SOCKET_DIR, Status, path};
use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method,
    body::{Bytes, Incoming},
};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::args::{Clean, Target};

pub(crate) fn status(target: &Target) -> anyhow::Result<Status> {
    ask(target, path::STATUS)
}

pub(crate) fn cache(target: &Target) -> anyhow::Result<Vec<CacheRow>> {
    ask(target, path::CACHE)
}

pub(crate) fn clean(args: &Clean) -> anyhow::Result<Cleaned> {
    let words = [
        ("endpoint", args.endpoint.map(|id| id.to_string())),
        ("pattern", args.pattern.clone()),
    ];
    answer(
        &args.target,
        Method::DELETE,
        &with_query(path::CACHE, words),
    )
}

pub(crate) fn names(target: &Target) -> anyhow::Result<FqdnNames> {
    ask(target, path::NAMES)
}

pub(crate) fn list(target: &Target, what: &str) -> anyhow::Result<Rows> {
    ask(target, &path::LIST.replace("{what}", what))
}

/// A path with the words that were given.
pub(crate) fn with_query<'a>(
    path: &str,
    words: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> String {
    let words: Vec<_> = words
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", escaped(&value?))))
        .collect();
    if words.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", words.join("&"))
    }
}

/// Text as a value in a query (RFC 3986 §2.1).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Hands every line of a streamed answer to `each` until the answer or `each` ends.
pub(crate) fn lines(
    target: &Target,
    path: &str,
    mut each: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut body = request(&socket(target)?, Method::GET, path).await?;
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                // The run has ended, and with it the stream.
                return Ok(());
            };
            pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(String::from_utf8_lossy(&line).trim_end())?;
            }
        }
        Ok(())
    })
}

fn ask<T: DeserializeOwned>(target: &Target, path: &str) -> anyhow::Result<T> {
    answer(target, Method::GET, path)
}

fn answer<T: DeserializeOwned>(target: &Target, method: Method, path: &str) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        let body = request(&socket(target)?, method, path).await?;
        let bytes = body
            .collect()
            .await
            .context("the enforcer went away")?
            .to_bytes();
        serde_json::from_slice(&bytes).context("the enforcer speaks another version")
    })
}

async fn request(socket: &Path, method: Method, path: &str) -> anyhow::Result<Incoming> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("cannot reach `{}`", socket.display()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "namegate")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        let text = response.into_body().collect().await?.to_bytes();
        bail!("{status}: {}", String::from_utf8_lossy(&text));
    }
    Ok(response.into_body())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the client")
}

/// The socket that was named, or the only one there is.
fn socket(target: &Target) -> anyhow::Result<PathBuf> {
    if let Some(path) = &target.socket {
        return Ok(path.clone());
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(SOCKET_DIR)
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|ext| ext == "sock"))
                .filter(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    match (found.pop(), found.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => bail!(
            "nothing is enforced here: no control socket in {SOCKET_DIR} \
             (start `namegate run`, or name its socket with --socket; root is needed)"
        ),
        (Some(last), others) => {
            let all: Vec<_> = others
                .iter()
                .chain([&last])
                .map(|path| path.display().to_string())
                .collect();
            bail!(
                "several enforcers run; choose one with --socket: {}",
                all.join(", ")
            )
        }
    }
}
