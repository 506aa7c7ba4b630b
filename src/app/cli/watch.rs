//! `omr watch`: serves the live report of runs on the loopback interface.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Context;
use super::stdout::print;
use crate::report::{Watched, is_awaited};
use crate::serve::{is_of_loopback, listen, serve_beside};
use omr_base::error::Result;
use omr_base::signal;

/// Address on which the page is served. Other machines cannot reach it.
const HOST: &str = "127.0.0.1";

/// Interval for checking whether the user requested a stop.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Arguments of `omr watch`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    omr watch runs/digits\n      \
        then open http://127.0.0.1:6007; the page follows the run until Ctrl-C ends the command\n\
    From another machine: ssh -L 6007:127.0.0.1:6007 HOST, then open the same address there.")]
pub struct Args {
    /// Run directories. Several directories are compared
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Port to listen on. 0 = a free one, which is printed
    #[arg(long, default_value_t = 6007)]
    port: u16,
}

type Shared = Arc<Mutex<Watched>>;

/// Serves the page until a signal ends the command.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let watched: Shared = Arc::new(Mutex::new(Watched::open(args.dirs.clone())?));
    for dir in args.dirs.iter().filter(|dir| is_awaited(dir)) {
        context.say(&format!("{}: no run has started here yet; the page waits for it", dir.display()));
    }
    let (listener, address) = listen(HOST, args.port)?;
    signal::listen(true);
    print(&format!("http://{address}\n"))?;
    context.say("the page follows the run; Ctrl-C ends this command, not the run");
    let routes = Router::new().route("/", get(page)).with_state(watched);
    let observer = context.observer();
    serve_beside(context.runtime()?.handle(), listener, routes, || {
        while !observer.stop_requested() {
            std::thread::sleep(STOP_CHECK);
        }
    })
}

async fn page(State(watched): State<Shared>, given: HeaderMap) -> Response {
    let text = |name| given.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if !is_of_loopback(&given) {
        return (StatusCode::FORBIDDEN, "this page is served on localhost only").into_response();
    }
    let known = text(header::IF_NONE_MATCH);
    let build = move || {
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, page) = watched.page();
        let tag = format!("\"{version}\"");
        let page = (known.as_ref() != Some(&tag)).then(|| page.to_owned());
        (tag, page)
    };
    let Ok((tag, page)) = tokio::task::spawn_blocking(build).await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be built").into_response();
    };
    let headers = [
        (header::ETAG, tag),
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    match page {
        Some(page) => (headers, page).into_response(),
        None => (StatusCode::NOT_MODIFIED, headers).into_response(),
    }
}
