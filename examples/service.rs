//! A small HTTP service in front of a store that shows its figures to Prometheus: `GET`, `PUT` and `DELETE` of
//! `/kv/KEY`, and `GET /metrics`. docs/METRICS.md tells what the figures mean, docs/grafana.json shows them.
//!
//!     cargo run --features metrics --example service                    asks itself a few questions, and ends
//!     cargo run --features metrics --example service 127.0.0.1:8080     listens
//!
//! One thread for each connection and no framework, so that what matters here stays in sight.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tophash::{Options, Store, SyncPolicy};

/// Bounds of the histograms' buckets, in seconds: from a cached read to a busy disk.
const BUCKETS: [f64; 16] =
    [1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 0.1, 1.0, 10.0];
/// Longer values are refused.
const VALUE_BYTES_MAX: usize = 64 << 20;

struct Service {
    store: Store,
    figures: PrometheusHandle,
}

struct Response {
    status: &'static str,
    body: Vec<u8>,
}

impl Response {
    fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Response { status, body: body.into() }
    }
}

impl Service {
    fn respond(&self, method: &str, path: &str, body: &[u8]) -> tophash::Result<Response> {
        let key = path.strip_prefix("/kv/").filter(|key| !key.is_empty());
        Ok(match (method, path, key) {
            ("GET", "/metrics", _) => {
                // Times arrive as they pass; what the store counts is fetched now.
                self.store.publish_metrics();
                self.figures.run_upkeep();
                Response::new("200 OK", self.figures.render())
            }
            ("GET", _, Some(key)) => match self.store.get(key)? {
                Some(value) => Response::new("200 OK", &*value),
                None => Response::new("404 Not Found", "no such key\n"),
            },
            ("PUT", _, Some(key)) => match self.store.insert(key, body)? {
                Some(_) => Response::new("200 OK", ""),
                None => Response::new("201 Created", ""),
            },
            ("DELETE", _, Some(key)) => match self.store.remove(key)? {
                Some(_) => Response::new("200 OK", ""),
                None => Response::new("404 Not Found", "no such key\n"),
            },
            _ => Response::new("404 Not Found", "try /kv/KEY or /metrics\n"),
        })
    }

    /// One request, one answer.
    fn serve(&self, stream: &mut TcpStream) -> Result<(), Box<dyn Error>> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // A head of more than 16 KiB is no head.
        let mut reader = BufReader::new(stream.try_clone()?.take(VALUE_BYTES_MAX as u64 + (16 << 10)));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, path) = words.next().zip(words.next()).ok_or("no request line")?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse::<usize>()?;
            }
        }
        let response = if length > VALUE_BYTES_MAX {
            Response::new("413 Content Too Large", "")
        } else {
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.respond(method, path, &body)
                .unwrap_or_else(|error| Response::new("500 Internal Server Error", format!("{error}\n")))
        };
        let Response { status, body } = response;
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
        Ok(())
    }
}

/// Answers until the process ends. Every write that was answered survives that.
fn listen(service: Service, address: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}/", listener.local_addr()?);
    let service = Arc::new(service);
    for stream in listener.incoming() {
        let (service, mut stream) = (Arc::clone(&service), stream?);
        std::thread::spawn(move || {
            if let Err(error) = service.serve(&mut stream) {
                eprintln!("a connection failed: {error}");
            }
        });
    }
    Ok(())
}

/// What a client would do, without a network.
fn ask(service: &Service) -> tophash::Result<()> {
    for i in 0..5000 {
        let (path, value) = (format!("/kv/user-{i}"), format!("value {i}"));
        assert_eq!(service.respond("PUT", &path, value.as_bytes())?.status, "201 Created");
        assert_eq!(service.respond("GET", &path, &[])?.body, value.as_bytes());
    }
    assert_eq!(service.respond("DELETE", "/kv/user-7", &[])?.status, "200 OK");
    assert_eq!(service.respond("GET", "/kv/user-7", &[])?.status, "404 Not Found");
    let figures = String::from_utf8_lossy(&service.respond("GET", "/metrics", &[])?.body).into_owned();
    let shown = ["tophash_records{", "tophash_log_bytes{", "tophash_get_seconds_count{"];
    for line in figures.lines().filter(|line| shown.iter().any(|name| line.starts_with(name))) {
        println!("{line}");
    }
    assert!(figures.lines().any(|line| line.starts_with("tophash_records{") && line.ends_with(" 4999")), "{figures}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // The recorder comes first: a store registers its figures when it is opened.
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)?;
    let recorder = builder.build_recorder();
    let figures = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| "there is a recorder already")?;

    let options = Options::new().sync(SyncPolicy::Every(Duration::from_millis(200)));
    match std::env::args().nth(1) {
        Some(address) => listen(Service { store: options.open("service.tophash")?, figures }, &address),
        None => {
            let path = std::env::temp_dir().join(format!("tophash-example-service-{}", std::process::id()));
            let service = Service { store: options.open(&path)?, figures };
            ask(&service)?;
            service.store.close()?;
            // Nobody has it open any more.
            let _ = std::fs::remove_dir_all(&path);
            Ok(())
        }
    }
}
