//! The service with futures and owned values. The handlers of blocking.rs do the same without.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use tophash::{OwnedValue, Store};

use crate::session::{Failure, New, Session, json};

/// The routes. The store may have any policy, because each change awaits its own sync.
pub fn service(store: Store) -> Router {
    let session = get(read).put(renew).delete(delete);
    Router::new().route("/sessions", post(create)).route("/sessions/{id}", session).with_state(store)
}

async fn create(State(store): State<Store>, Json(new): Json<New>) -> Result<Response, Failure> {
    let session = Session::create(new)?;
    let stored = session.to_json()?;
    store.set_async(&session.id, &stored).await?;
    Ok(json(StatusCode::CREATED, stored))
}

async fn read(State(store): State<Store>, Path(id): Path<String>) -> Result<Response, Failure> {
    let (stored, _) = live(&store, &id)?;
    Ok(json(StatusCode::OK, Bytes::from(stored)))
}

async fn renew(State(store): State<Store>, Path(id): Path<String>) -> Result<Response, Failure> {
    let (stored, session) = live(&store, &id)?;
    let renewed = session.renewed().to_json()?;
    store.compare_exchange_async(&id, Some(&stored), Some(&renewed)).await?.map_err(|_| Failure::Conflict)?;
    Ok(json(StatusCode::OK, renewed))
}

async fn delete(State(store): State<Store>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let was_there = store.delete_async(&id).await?;
    Ok(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

/// A session whose time is not over. A get takes a microsecond, and no lock.
fn live(store: &Store, id: &str) -> Result<(OwnedValue, Session), Failure> {
    let stored = store.get(id)?.ok_or(Failure::NotFound)?.into_owned();
    let session = Session::read(&stored)?;
    Ok((stored, session))
}
