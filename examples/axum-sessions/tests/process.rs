//! The program itself, over a socket: killed, opened again, and ended as an operator ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum_sessions::session::Session;
use tophash::Store;

struct Service {
    process: Child,
    address: String,
}

impl Service {
    fn start(store: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-sessions"))
            .args([store.as_os_str(), "127.0.0.1:0".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").expect("the line that tells the address").1.to_string();
        Service { process, address }
    }

    /// The status and the body of the answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }

    fn create(&self, user: &str) -> Session {
        let (status, body) = self.ask("POST", "/sessions", &format!(r#"{{"user":"{user}"}}"#));
        assert_eq!(status, 201, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn has(&self, session: &Session) -> bool {
        let (status, body) = self.ask("GET", &format!("/sessions/{}", session.id), "");
        status == 200 && serde_json::from_str::<Session>(&body).unwrap() == *session
    }
}

#[test]
fn what_was_answered_survives_kill_and_a_request_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");

    let mut service = Service::start(&path);
    let sessions: Vec<_> = (0..20).map(|n| service.create(&format!("user {n}"))).collect();
    // SIGKILL.
    service.process.kill().unwrap();
    service.process.wait().unwrap();

    let mut service = Service::start(&path);
    assert!(sessions.iter().all(|session| service.has(session)), "a session is lost");
    let one_more = service.create("after the kill");
    let ended = Command::new("kill").arg(service.process.id().to_string()).status().unwrap();
    assert!(ended.success());
    assert!(service.process.wait().unwrap().success(), "it did not end well");

    let store = Store::open(&path).unwrap();
    assert!(!store.stats().recovery.was_unclean, "the store was not closed");
    assert_eq!(store.len(), 21);
    assert!(store.contains_key(&one_more.id).unwrap());
}
