//! Both services, request by request, without a socket.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum_sessions::session::Session;
use axum_sessions::{awaited, blocking};
use http_body_util::BodyExt;
use tophash::{Options, Store, SyncPolicy};
use tower::ServiceExt;

async fn ask(service: &Router, method: &str, path: &str, body: &str) -> (StatusCode, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn is_durable(store: &Store) -> bool {
    let log = store.stats().log;
    log.durable_lsn >= log.end_lsn
}

async fn lives(service: Router, store: Store) {
    let (status, created) = ask(&service, "POST", "/sessions", r#"{"user":"ada"}"#).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(is_durable(&store), "a session was answered for before it was durable");
    let session: Session = serde_json::from_slice(&created).unwrap();
    assert_eq!((session.user.as_str(), session.id.len()), ("ada", 32));
    let path = format!("/sessions/{}", session.id);

    assert_eq!(ask(&service, "GET", &path, "").await, (StatusCode::OK, created));
    let (status, renewed) = ask(&service, "PUT", &path, "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(is_durable(&store));
    let renewed_session: Session = serde_json::from_slice(&renewed).unwrap();
    assert!(renewed_session.expires_ms > session.expires_ms);
    assert_eq!(renewed_session.id, session.id);
    assert_eq!(ask(&service, "GET", &path, "").await, (StatusCode::OK, renewed));

    assert_eq!(ask(&service, "DELETE", &path, "").await.0, StatusCode::NO_CONTENT);
    assert!(is_durable(&store));
    for (method, path) in [("DELETE", path.as_str()), ("GET", &path), ("PUT", &path), ("GET", "/sessions/none")] {
        assert_eq!(ask(&service, method, path, "").await.0, StatusCode::NOT_FOUND, "{method} {path}");
    }
    assert_eq!(ask(&service, "POST", "/sessions", "no JSON").await.0, StatusCode::BAD_REQUEST);

    // One whose time is over.
    let over = Session { id: "over".into(), user: "ada".into(), expires_ms: 1 };
    store.set("over", over.to_json().unwrap()).unwrap();
    assert_eq!(ask(&service, "GET", "/sessions/over", "").await.0, StatusCode::NOT_FOUND);

    store.close().unwrap();
    assert_eq!(ask(&service, "POST", "/sessions", r#"{"user":"ada"}"#).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_session_lives_and_dies() {
    let dir = tempfile::tempdir().unwrap();
    for policy in [SyncPolicy::default(), SyncPolicy::Manual, SyncPolicy::Always] {
        let store = Options::new().sync(policy).open(dir.path().join(format!("{policy:?}"))).unwrap();
        lives(awaited::service(store.clone()), store).await;
    }
    let store = Options::new().sync(SyncPolicy::Always).open(dir.path().join("blocking")).unwrap();
    lives(blocking::service(store.clone()), store).await;
}

/// A hundred requests at a time, on the one thread of this runtime: none of them holds up the others, and they share syncs.
#[tokio::test]
async fn requests_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().sync(SyncPolicy::Manual).open(dir.path().join("store")).unwrap();
    let service = awaited::service(store.clone());
    let before = store.stats().commit;
    let requests: Vec<_> = (0..100)
        .map(|n| {
            let service = service.clone();
            tokio::spawn(
                async move { ask(&service, "POST", "/sessions", &format!(r#"{{"user":"user {n}"}}"#)).await.0 },
            )
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::CREATED);
    }
    let after = store.stats().commit;
    assert_eq!((store.len(), after.waiters - before.waiters), (100, 100));
    assert!(after.syncs > before.syncs && is_durable(&store));
}

/// A task that is aborted while it waits takes nothing back.
#[tokio::test]
async fn an_aborted_task_cancels_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Options::new().sync(SyncPolicy::Manual).open(&path).unwrap();
    for n in 0..50u32 {
        let change = store.set_async(n.to_le_bytes(), "value");
        let task = tokio::spawn(change);
        tokio::task::yield_now().await;
        task.abort();
    }
    store.sync_async().await.unwrap();
    assert!(is_durable(&store));
    store.close().unwrap();
    assert_eq!(Store::open(&path).unwrap().len(), 50);
}
