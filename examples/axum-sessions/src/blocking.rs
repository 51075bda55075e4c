//! The same service as a library without futures and owned values makes one write it: a thread of the blocking pool for
//! each change, which waits for its sync, and copies of all that is read. It is here to be compared, and tested as well.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::task::spawn_blocking;
use tophash::Store;

use crate::session::{Failure, New, Session, json};

/// The routes. The store's policy must be `Always`, or an answer would promise what a power failure can take.
pub fn service(store: Store) -> Router {
    let session = get(read).put(renew).delete(delete);
    Router::new().route("/sessions", post(create)).route("/sessions/{id}", session).with_state(store)
}

async fn create(State(store): State<Store>, Json(new): Json<New>) -> Result<Response, Failure> {
    let stored = in_a_thread(move || {
        let session = Session::create(new)?;
        let stored = session.to_json()?;
        store.set(&session.id, &stored)?;
        Ok(stored)
    })
    .await?;
    Ok(json(StatusCode::CREATED, stored))
}

async fn read(State(store): State<Store>, Path(id): Path<String>) -> Result<Response, Failure> {
    let (stored, _) = live(&store, &id)?;
    Ok(json(StatusCode::OK, stored))
}

async fn renew(State(store): State<Store>, Path(id): Path<String>) -> Result<Response, Failure> {
    let renewed = in_a_thread(move || {
        let (stored, session) = live(&store, &id)?;
        let renewed = session.renewed().to_json()?;
        store.compare_exchange(&id, Some(&stored), Some(&renewed))?.map_err(|_| Failure::Conflict)?;
        Ok(renewed)
    })
    .await?;
    Ok(json(StatusCode::OK, renewed))
}

async fn delete(State(store): State<Store>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let was_there = in_a_thread(move || Ok(store.delete(&id)?)).await?;
    Ok(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

/// A session whose time is not over, copied: a response body cannot borrow from the store.
fn live(store: &Store, id: &str) -> Result<(Vec<u8>, Session), Failure> {
    let stored = store.get(id)?.ok_or(Failure::NotFound)?.to_vec();
    let session = Session::read(&stored)?;
    Ok((stored, session))
}

/// Work that waits for the disk, and must not hold up the runtime.
async fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => Err(Failure::Internal(panicked.to_string())),
    }
}
