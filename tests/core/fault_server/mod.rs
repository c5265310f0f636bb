//! A small HTTP server that does what a test says, faults included.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path with its query, as it was sent.
    pub target: String,
    /// First and last byte.
    pub range: Option<(usize, usize)>,
    pub if_match: Option<String>,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Requests before this one.
    pub number: usize,
    /// Requests before this one that started at the same byte of the same target.
    pub repeats: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Answer with this status instead of the file.
    pub status: Option<u16>,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// What to answer with in place of the file, or of the page of an error.
    pub body: Option<Vec<u8>>,
    /// Whether ranges are known.
    pub ranges: bool,
    pub etag: Option<&'static str>,
    /// Whether `If-Match` is obeyed.
    pub conditions: bool,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Send no more after so many bytes of the body, and keep the connection.
    pub stall: Option<usize>,
    /// Never answer.
    pub silent: bool,
    /// Send so many bytes at a time, with pauses.
    pub trickle: Option<usize>,
    /// What to add to the true Content-Length.
    pub length_off: i64,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: None,
            headers: vec![],
            body: None,
            ranges: true,
            etag: Some("\"v1\""),
            conditions: true,
            cut: None,
            stall: None,
            silent: false,
            trickle: None,
            length_off: 0,
        }
    }
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..self }
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server. Dropping it closes its port and all connections.
pub struct Server {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    files: HashMap<String, Vec<u8>>,
    answer: Box<Answer>,
    requests: Mutex<Vec<Request>>,
    /// Bytes of bodies that answers promised.
    promised: AtomicU64,
    /// Bytes of bodies that were given to the system.
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Server {
    /// Serves `files` by their paths (`/0.tar`), as `answer` says.
    pub fn start(
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            files: files.into_iter().collect(),
            answer: Box::new(answer),
            requests: Mutex::default(),
            promised: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if served.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (connection, served) = (connection.unwrap(), Arc::clone(&served));
                // A client that goes away is no fault of the server.
                std::thread::spawn(move || drop(served.serve(connection)));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn promised(&self) -> u64 {
        self.shared.promised.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts connections.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        while let Some(head) = head(&mut connection)? {
            let request = self.note(&head);
            let reply = (self.answer)(&request);
            let file = self.files.get(request.target.split('?').next().unwrap_or_default());
            let body = reply.body.as_ref().or(file);
            let more: String =
                reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let conflict = reply.conditions
                && request.if_match.as_deref().is_some_and(|wanted| Some(wanted) != reply.etag);
            let status = match (reply.status, body) {
                _ if reply.silent => {
                    self.wait();
                    return Ok(());
                }
                (Some(status), _) => Err(status),
                (None, None) => Err(404),
                (None, Some(_)) if conflict => Err(412),
                (None, Some(body)) => Ok(body),
            };
            let body = match status {
                Ok(body) => body,
                Err(status) => {
                    let page = reply.body.as_deref().unwrap_or(b"the server is out of order");
                    let length = page.len();
                    write!(
                        connection,
                        "HTTP/1.1 {status} Injected\r\n{more}Content-Length: {length}\r\n\r\n"
                    )?;
                    connection.write_all(page)?;
                    continue;
                }
            };
            let (first, last) = request.range.filter(|_| reply.ranges).unwrap_or((0, usize::MAX));
            if request.range.is_some() && reply.ranges && first >= body.len() {
                write!(connection, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            let last = last.min(body.len().saturating_sub(1));
            let part = if body.is_empty() { &body[..] } else { &body[first..=last] };
            let mut head = String::from("HTTP/1.1 200 OK\r\n");
            if request.range.is_some() && reply.ranges {
                head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\n",
                    body.len()
                );
            }
            if let Some(etag) = reply.etag {
                head += &format!("ETag: {etag}\r\n");
            }
            let claimed = part.len() as i64 + reply.length_off;
            write!(connection, "{head}{more}Content-Length: {claimed}\r\n\r\n")?;
            self.promised.fetch_add(part.len() as u64, Ordering::Relaxed);
            let end = reply.cut.or(reply.stall).unwrap_or(usize::MAX).min(part.len());
            for chunk in part[..end.min(claimed.max(0) as usize)].chunks(reply.trickle.unwrap_or(16 << 10)) {
                connection.write_all(chunk)?;
                self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if reply.trickle.is_some() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            if reply.stall.is_some() {
                self.wait();
            }
            if reply.cut.is_some() || reply.stall.is_some() || reply.length_off > 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn wait(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn note(&self, head: &str) -> Request {
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let range = field("range:").and_then(|text| {
            let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut requests = self.requests.lock().unwrap();
        let start = range.map(|(first, _)| first);
        let repeats = requests.iter().filter(|r| r.target == target && r.range.map(|r| r.0) == start).count();
        let pairs = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let headers =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let request =
            Request { target, range, if_match: field("if-match:"), headers, number: requests.len(), repeats };
        requests.push(request.clone());
        request
    }
}

/// The head of the next request; `None` at the end of the connection.
fn head(connection: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
