//! Accepts connections, with limits on headers and time, until the server ends.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::errors::ApiError;
use super::patient::Patient;
use omr_base::client::web::is_localhost;
use omr_base::error::{Error, Result};

/// Time in which a client must send the headers of a request.
const HEADERS: Duration = Duration::from_secs(15);
/// Maximum bytes of the headers of a request.
const LARGEST_HEADERS: usize = 64 << 10;
/// Time in which a client must read something of a response that does not fit into the buffers of the connection.
const UNREAD: Duration = Duration::from_secs(60);
/// Delay after a connection could not be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Maximum time to send the last responses when the server ends.
const LAST_RESPONSES: Duration = Duration::from_secs(5);

/// Returns true if a request names this machine as `localhost`. A page of another name could otherwise use a server on
/// the loopback interface after its name is resolved to that address.
pub fn is_of_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    host_name(host).is_some_and(is_localhost)
}

/// Returns the name in a `Host` header, without the port, or `None` if it is not a name with an optional port.
fn host_name(host: &str) -> Option<&str> {
    let is_name = |name: &&str| !name.contains(|c: char| c.is_ascii_whitespace() || "@/\\?#,".contains(c));
    let colon = host.rfind(':').filter(|&colon| !host[colon..].contains(']'));
    let (name, port) = colon.map_or((host, ""), |colon| (&host[..colon], &host[colon + 1..]));
    Some(name).filter(is_name).filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns what is wrong with a request whose receiver or length two programs could understand differently (RFC 9112, 3.2
/// and 6.1).
fn malformed(request: &Request) -> Option<String> {
    let all = |name| {
        let values = request.headers().get_all(name).iter().map(|value| value.to_str().unwrap_or("@"));
        values.collect::<Vec<_>>().join(", ")
    };
    let (host, coding) = (all(header::HOST), all(header::TRANSFER_ENCODING));
    let is_same = request.uri().authority().is_none_or(|name| name.as_str().eq_ignore_ascii_case(&host));
    let has_host = !host.is_empty() || request.version() < Version::HTTP_11;
    if !(has_host && is_same && host_name(&host).is_some()) {
        return Some(format!("Host: {host:?}, expected one header with the name of the server"));
    }
    let is_known = coding.is_empty() || coding.eq_ignore_ascii_case("chunked");
    (!is_known).then(|| format!("Transfer-Encoding: {coding:?}, expected chunked once"))
}

/// Refuses malformed requests, and closes their connection.
async fn well_formed(request: Request, next: Next) -> Response {
    let Some(what) = malformed(&request) else { return next.run(request).await };
    ([(header::CONNECTION, "close")], ApiError::new(StatusCode::BAD_REQUEST, what)).into_response()
}

/// Serves `routes` while `work` runs. Then sends the last responses and returns the result of `work`.
pub fn serve_beside<T>(
    runtime: &Handle,
    listener: std::net::TcpListener,
    routes: Router,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let failed = |e: std::io::Error| Error::Failed(format!("the listening socket: {e}"));
    listener.set_nonblocking(true).map_err(failed)?;
    let (shutdown, is_shutdown) = watch::channel(false);
    let inside = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    drop(inside);
    let connections = runtime.spawn(serve(listener, routes.layer(from_fn(well_formed)), is_shutdown));
    let done = work();
    let _ = shutdown.send(true);
    // A client that does not read its response must not keep the server from ending.
    let _ = runtime.block_on(async { tokio::time::timeout(LAST_RESPONSES, connections).await });
    Ok(done)
}

/// Serves connections until `shutdown` is true. Then waits until every response is sent.
async fn serve(listener: TcpListener, routes: Router, mut shutdown: watch::Receiver<bool>) {
    // Each connection holds a sender, so that the receiver ends with the last connection.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let mut is_full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = is_true(&mut shutdown) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_full = false;
                let connection = connection(stream, peer, routes.clone(), shutdown.clone());
                let open = open.clone();
                tokio::spawn(async move {
                    connection.await;
                    drop(open);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut is_full, true) {
                    tracing::warn!("no connection is accepted until others end: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(open);
    let _ = all_closed.recv().await;
}

/// Waits until the value is true, or until nobody can set it any more.
async fn is_true(value: &mut watch::Receiver<bool>) {
    let _ = value.wait_for(|is| *is).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, routes: Router, mut shutdown: watch::Receiver<bool>) {
    // A token is one small packet, which must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(LARGEST_HEADERS);
    let stream = Patient::new(stream, UNREAD);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = is_true(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!("{peer}: {error}");
    }
}
