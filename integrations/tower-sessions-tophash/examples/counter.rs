//! Counts the visits of each browser: `cargo run -p tower-sessions-tophash --example counter -- STORE [ADDRESS]`.
//!
//! The counts survive restarts, kill -9 and power failures. They are forgotten a week after the last visit.

use std::error::Error;
use std::future::Future;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use time::Duration;
use tokio::net::TcpListener;
use tophash::Store;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_tophash::TophashStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: counter STORE [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_string());

    // An open waits for the disk, so it comes before the service.
    let store = Store::open(&path)?;
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}; Ctrl-C ends it", listener.local_addr()?);
    serve(listener, store, async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("no handler for Ctrl-C: {error}");
            std::future::pending().await
        }
    })
    .await
}

/// Serves until `end`, lets the requests under way end, and closes the store.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    axum::serve(listener, counter(store.clone())).with_graceful_shutdown(end).await?;
    // A close tells of errors, and a drop would not. It waits for the disk, and nobody else needs this thread any more.
    store.close()?;
    Ok(())
}

fn counter(store: Store) -> Router {
    let sessions = SessionManagerLayer::new(TophashStore::new(store))
        // Without TLS. A service in public leaves it out.
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(Duration::weeks(1)));
    Router::new().route("/", get(visit)).layer(sessions)
}

async fn visit(session: Session) -> Result<String, StatusCode> {
    let visits = session.get::<u64>("visits").await.map_err(failed)?.unwrap_or_default() + 1;
    session.insert("visits", visits).await.map_err(failed)?;
    Ok(format!("visit {visits}\n"))
}

fn failed(error: tower_sessions::session::Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}
