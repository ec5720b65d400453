//! The control socket: answers the operator's commands.
//!
//! In:  HTTP requests on a unix socket that only root may open.
//! Out: the values of `api`, and the stream of flow records.
//! Not here: what the values are made of ([`Source`] is asked).

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{self, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flows::{Filter, FlowRecord, NameTest};
use futures_util::StreamExt;
use identity::EndpointId;
use policy::fqdn::{Fqdn, NameSelector, Pattern};
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::api::{self, CacheRow, CleanQuery, Cleaned, FqdnNames, ObserveQuery, Rows, Status};

/// Past records that one request may ask for.
const MOST_PAST: usize = 100_000;

/// Who knows the answers.
pub(crate) trait Source: Send + Sync + 'static {
    /// How the enforcer is.
    fn status(&self) -> impl Future<Output = Status> + Send;
    /// The names of the cache.
    fn cache(&self) -> impl Future<Output = Vec<CacheRow>> + Send;
    /// Forgets names; none when the DNS proxy does not answer.
    fn clean(
        &self,
        endpoint: Option<EndpointId>,
        pattern: Option<Pattern>,
    ) -> impl Future<Output = Option<Cleaned>> + Send;
    /// The selectors and what they match.
    fn names(&self) -> impl Future<Output = FqdnNames> + Send;
    /// Past records, and those to come if they are to be followed.
    fn records(
        &self,
        last: usize,
        filter: &Filter,
        follow: bool,
    ) -> (Vec<FlowRecord>, Option<mpsc::Receiver<Arc<FlowRecord>>>);
    /// Rows of one kind; none when there are no such rows here.
    fn list(&self, _what: &str) -> Option<Rows> {
        None
    }
}

/// A bound control socket; its file goes when this does.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed on drop.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "control socket not removed");
        }
    }
}

impl Control {
    /// Binds `path`, readable for root only. A socket file that nobody listens on is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        remove_abandoned(path)?;
        let listener = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, file })
    }

    /// Serves until dropped. The socket's file lives as long as the returned guard.
    pub(crate) fn serve<S: Source>(
        self,
        source: Arc<S>,
    ) -> (SocketFile, impl Future<Output = io::Result<()>>) {
        let routes = Router::new()
            .route(api::path::STATUS, get(status::<S>))
            .route(api::path::CACHE, get(cache::<S>).delete(clean::<S>))
            .route(api::path::NAMES, get(names::<S>))
            .route(api::path::OBSERVE, get(observe::<S>))
            .route(api::path::LIST, get(list::<S>))
            .with_state(source);
        (self.file, async move {
            axum::serve(self.listener, routes).await
        })
    }
}

/// Removes a socket file that nobody listens on; anything else at `path` stays.
pub(crate) fn remove_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let abandoned = is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if abandoned {
        fs::remove_file(path)?;
    }
    Ok(())
}

async fn status<S: Source>(State(source): State<Arc<S>>) -> Json<Status> {
    Json(source.status().await)
}

async fn cache<S: Source>(State(source): State<Arc<S>>) -> Json<Vec<CacheRow>> {
    Json(source.cache().await)
}

async fn clean<S: Source>(
    State(source): State<Arc<S>>,
    Query(query): Query<CleanQuery>,
) -> Response {
    let pattern = match query.pattern.as_deref().map(Pattern::parse).transpose() {
        Ok(pattern) => pattern,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let endpoint = query.endpoint.map(EndpointId::new);
    match source.clean(endpoint, pattern).await {
        Some(cleaned) => Json(cleaned).into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the DNS proxy does not answer; ask again",
        )
            .into_response(),
    }
}

async fn names<S: Source>(State(source): State<Arc<S>>) -> Json<FqdnNames> {
    Json(source.names().await)
}

async fn list<S: Source>(
    State(source): State<Arc<S>>,
    extract::Path(what): extract::Path<String>,
) -> Response {
    match source.list(&what) {
        Some(rows) => Json(rows).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("this enforcer has no list of {what}"),
        )
            .into_response(),
    }
}

async fn observe<S: Source>(
    State(source): State<Arc<S>>,
    Query(query): Query<ObserveQuery>,
) -> Response {
    let filter = match filter(&query) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    let last = query.last.unwrap_or(20).min(MOST_PAST);
    let (past, coming) = source.records(last, &filter, query.follow);
    let past = futures_util::stream::iter(past.into_iter().map(|record| json_line(&record)));
    let body = match coming {
        Some(coming) => {
            let coming = ReceiverStream::new(coming).map(|record| json_line(&record));
            Body::from_stream(past.chain(coming))
        }
        None => Body::from_stream(past),
    };
    match Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(body)
    {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn filter(query: &ObserveQuery) -> Result<Filter, String> {
    let name = match &query.name {
        None => None,
        Some(pattern) => {
            let selector = NameSelector::pattern(pattern).map_err(|error| error.to_string())?;
            Some(NameTest::new(move |name| {
                Fqdn::parse(name).is_ok_and(|name| selector.matches(&name))
            }))
        }
    };
    Ok(Filter {
        verdict: query.verdict,
        endpoint: query.endpoint.clone(),
        name,
        address: query.address,
        port: query.port,
        direction: query.direction,
        since: query.since,
    })
}

fn json_line(record: &FlowRecord) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line.into())
}
