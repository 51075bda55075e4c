//! Serves sessions: `axum-sessions STORE [ADDRESS]`. Ends after Ctrl-C or SIGTERM, with the store closed.

use std::error::Error;
use std::io::Write;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tophash::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: axum-sessions STORE [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_string());

    // Opening and closing wait for the disk, recovery included: before the service begins and after it has ended, they are
    // in nobody's way.
    let store = Store::open(&path)?;
    let listener = TcpListener::bind(&address).await?;
    println!("{} sessions in {path}; listening on http://{}", store.len(), listener.local_addr()?);
    std::io::stdout().flush()?;

    // 1. No new requests, and those under way end: their futures are ready.
    let service = axum_sessions::awaited::service(store.clone());
    axum::serve(listener, service).with_graceful_shutdown(asked_to_end()).await?;
    // 2. The store is closed, and says whether that went well. Dropping it would say nothing.
    store.close()?;
    Ok(())
}

async fn asked_to_end() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => _ = signals.recv().await,
            // Ctrl-C alone.
            Err(error) => {
                eprintln!("no handler for SIGTERM: {error}");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        interrupted = tokio::signal::ctrl_c() => if let Err(error) = interrupted {
            eprintln!("no handler for Ctrl-C: {error}");
        },
    }
}
