//! An axum service with a session layer, request by request, and the example over a socket.

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, StatusCode};
use axum::routing::get;
use http_body_util::BodyExt;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tophash::Store;
use tower::ServiceExt;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_tophash::TophashStore;

#[allow(dead_code)]
#[path = "../examples/counter.rs"]
mod counter;

fn open() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

async fn count(session: Session) -> String {
    let count: u64 = session.get("count").await.unwrap().unwrap_or_default();
    session.insert("count", count + 1).await.unwrap();
    count.to_string()
}

fn service(store: &Store, expiry: Expiry) -> Router {
    let layer = SessionManagerLayer::new(TophashStore::new(store.clone())).with_expiry(expiry);
    Router::new()
        .route("/none", get(|_: Session| async { "none" }))
        .route("/count", get(count))
        .route("/cycle", get(|session: Session| async move { session.cycle_id().await.unwrap() }))
        .route("/flush", get(|session: Session| async move { session.flush().await.unwrap() }))
        .route(
            "/remove",
            get(|session: Session| async move {
                session.remove_value("count").await.unwrap();
            }),
        )
        .layer(layer)
}

/// The answer, and the value and the rest of the cookie that it sets.
async fn ask(service: &Router, path: &str, id: Option<&str>) -> (StatusCode, String, Option<(String, String)>) {
    let mut request = Request::builder().uri(path);
    if let Some(id) = id {
        request = request.header(COOKIE, format!("id={id}"));
    }
    let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let cookie = response.headers().get(SET_COOKIE).map(|cookie| {
        let (id, rest) = cookie.to_str().unwrap().strip_prefix("id=").unwrap().split_once(';').unwrap();
        (id.to_string(), rest.to_string())
    });
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap(), cookie)
}

const HOUR: Expiry = Expiry::OnInactivity(Duration::hours(1));

#[tokio::test]
async fn a_cookie_leads_back_to_its_session() {
    let (dir, store) = open();
    let service_1 = service(&store, HOUR);
    // Nothing is stored for those who have no session.
    assert_eq!(ask(&service_1, "/none", None).await, (StatusCode::OK, "none".into(), None));
    assert_eq!(store.len(), 0);

    let (status, body, cookie) = ask(&service_1, "/count", None).await;
    let (id, rest) = cookie.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::OK, "0"));
    assert!(rest.contains("Max-Age=3600"), "{rest}");
    assert!(store.contains_key(format!("session/{id}")).unwrap());
    for expected in ["1", "2"] {
        let (_, body, cookie) = ask(&service_1, "/count", Some(&id)).await;
        assert_eq!((body.as_str(), cookie.unwrap().0), (expected, id.clone()));
    }
    // Somebody else begins at 0.
    assert_eq!(ask(&service_1, "/count", None).await.1, "0");
    assert_eq!(store.len(), 2);

    // The next start of the service.
    store.close().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    assert_eq!(ask(&service(&store, HOUR), "/count", Some(&id)).await.1, "3");
}

#[tokio::test]
async fn an_unknown_id_gets_another_one() {
    let (_dir, store) = open();
    let service = service(&store, HOUR);
    for unknown in ["AAAAAAAAAAAAAAAAAAAAAA", "malformed", ""] {
        let (status, body, cookie) = ask(&service, "/count", Some(unknown)).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "0"));
        assert_ne!(cookie.unwrap().0, unknown);
    }
    assert!(!store.contains_key("session/AAAAAAAAAAAAAAAAAAAAAA").unwrap());
}

#[tokio::test]
async fn an_expired_session_begins_anew() {
    let (_dir, store) = open();
    let passed = service(&store, Expiry::AtDateTime(OffsetDateTime::now_utc() - Duration::seconds(1)));
    let (_, _, cookie) = ask(&passed, "/count", None).await;
    let (id, _) = cookie.unwrap();
    let (_, body, cookie) = ask(&passed, "/count", Some(&id)).await;
    assert_eq!(body, "0");
    assert_ne!(cookie.unwrap().0, id);
    assert_eq!(store.iter().count(), 0);
}

#[tokio::test]
async fn a_session_is_cycled_and_flushed() {
    let (_dir, store) = open();
    let service = service(&store, HOUR);
    let (first, _) = ask(&service, "/count", None).await.2.unwrap();

    let (second, _) = ask(&service, "/cycle", Some(&first)).await.2.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.len(), 1);
    assert_eq!(ask(&service, "/count", Some(&second)).await.1, "1");

    let (id, rest) = ask(&service, "/flush", Some(&second)).await.2.unwrap();
    assert!(id.is_empty() && rest.contains("Max-Age=0"), "{id} {rest}");
    assert_eq!(store.len(), 0);
    assert_eq!(ask(&service, "/count", Some(&second)).await.1, "0");
}

#[tokio::test]
async fn a_value_that_was_removed_stays_away() {
    let (_dir, store) = open();
    let service = service(&store, HOUR);
    let (id, _) = ask(&service, "/count", None).await.2.unwrap();
    assert_eq!(ask(&service, "/remove", Some(&id)).await.2.unwrap().0, id);
    assert_eq!(ask(&service, "/count", Some(&id)).await.1, "0");
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn a_store_that_refuses_is_an_error_of_the_server() {
    let (_dir, store) = open();
    let service = service(&store, HOUR);
    store.close().unwrap();
    let (status, _, cookie) = ask(&service, "/count", None).await;
    assert_eq!((status, cookie), (StatusCode::INTERNAL_SERVER_ERROR, None));
}

#[tokio::test]
async fn the_example_counts_over_a_socket_and_closes_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut cookie = String::new();
    for expected in ["visit 1\n", "visit 2\n"] {
        let store = Store::open(&path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            counter::serve(listener, store, async { _ = ended.await }).await.map_err(|error| error.to_string())
        });

        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{cookie}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, expected, "{head}");
        let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        cookie = format!("cookie: {}\r\n", set.split(';').next().unwrap());

        end.send(()).unwrap();
        server.await.unwrap().unwrap();
        let store = Store::open(&path).unwrap();
        assert!(!store.stats().recovery.was_unclean, "the store was not closed");
    }
}
