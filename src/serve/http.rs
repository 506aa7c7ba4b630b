//! Accepts connections, with limits on headers and time, until the server ends.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Time in which a client must send the headers of a request.
const HEADERS: Duration = Duration::from_secs(15);
/// Maximum bytes of the headers of a request.
const LARGEST_HEADERS: usize = 64 << 10;
/// Delay after a connection could not be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `shutdown` is true. Then waits until every response is sent.
pub async fn serve(listener: TcpListener, routes: Router, mut shutdown: watch::Receiver<bool>) {
    // Each connection holds a sender, so that the receiver ends with the last connection.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = is_true(&mut shutdown) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, routes.clone(), shutdown.clone());
                let open = open.clone();
                tokio::spawn(async move {
                    connection.await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
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
