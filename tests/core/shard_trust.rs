//! Promise: a server is given the time that it asks for; credentials go to the server that they are for and nowhere else;
//! what must not be read says what can be done.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fault_server::{Reply, Request, Server};
use crate::support::{self, wait};
use tldr_loader::config::{Config, Mode, Source};
use tldr_loader::options::Group as _;
use tldr_loader::shard::{Headers, ReadOptions, ShardReader, Store, Token, list};
use tldr_loader::{Result, Shard};

const SECRET: &str = "s3cret";

fn options() -> Store {
    Store { range_bytes: 10_000, retries: 3, read_timeout: Duration::from_secs(10), ..Store::default() }
}

fn with_token() -> Store {
    let headers = Headers::new([("X-Api-Key", "s3cret-key")]).unwrap();
    Store { token: Some(Token::new(SECRET)), headers, ..options() }
}

fn shard_bytes() -> Vec<u8> {
    support::shard_of(30)
}

fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start([("/set/0.tar".into(), shard_bytes())], answer)
}

fn shard(url: &str, options: &Store) -> Shard {
    list(&[url.to_owned()], None, options).unwrap().remove(0)
}

fn read(shard: &Shard) -> Result<usize> {
    let mut reader = ShardReader::open(shard, &ReadOptions::default())?;
    while reader.next_group()?.is_some() {}
    Ok(reader.position() as usize)
}

fn message(server: &Server, options: &Store) -> String {
    read(&shard(&server.url("/set/0.tar"), options)).unwrap_err().to_string()
}

#[test]
fn a_server_that_asks_for_time_is_given_it() {
    for status in [429, 503] {
        let server = server(move |request| match request.number {
            1 => Reply::status(status).with("Retry-After", "1"),
            _ => Reply::default(),
        });
        // 0.7 s of waiting at most, by itself; the time that was asked for is not among the number of retries.
        let options = Store { retries: 5, ..options() };
        let started = Instant::now();
        assert_eq!(read(&shard(&server.url("/set/0.tar"), &options)).unwrap(), 30);
        assert!(started.elapsed() >= Duration::from_secs(1), "{status}: {:?}", started.elapsed());
    }
}

#[test]
fn a_server_that_asks_for_more_time_than_the_retries_have_ends_the_run_at_once() {
    let started = Instant::now();
    for (status, asked) in [(429, "600"), (503, "Fri, 01 Jan 2100 00:00:00 GMT")] {
        let server = server(move |_| Reply::status(status).with("Retry-After", asked));
        let message = message(&server, &options());
        assert!(message.contains("the server asks to wait") && message.contains("Retry-After"), "{message}");
        assert!(message.contains("retries=3 leaves 0.7 s"), "{message}");
        assert_eq!(server.requests().len(), 1);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    // Of other answers it says when to come back, and not that the request failed for lack of time.
    let server = server(|_| Reply::status(404).with("Retry-After", "600"));
    assert!(message(&server, &options()).contains("there is no such object"));
}

#[test]
fn token_and_headers_come_with_every_request() {
    let server = server(|request| {
        let is_known = request.header("authorization") == Some("Bearer s3cret")
            && request.header("x-api-key") == Some("s3cret-key");
        if is_known { Reply::default() } else { Reply::status(401) }
    });
    assert_eq!(read(&shard(&server.url("/set/0.tar"), &with_token())).unwrap(), 30);
    let message = message(&server, &options());
    assert!(
        message.contains("no credentials were sent") && message.contains("token or headers"),
        "{message}"
    );
    assert!(message.contains("TLDR_LOADER_HTTP_TOKENS=TOKEN@127.0.0.1:"), "{message}");
}

#[test]
fn credentials_are_not_sent_on_to_another_server() {
    let other = Arc::new(server(|request| {
        let is_clean = request.header("authorization").is_none() && request.header("x-api-key").is_none();
        if is_clean { Reply::default() } else { Reply::status(418) }
    }));
    for status in [301, 302, 303, 307, 308] {
        let target = other.url("/set/0.tar?sig=1");
        let first = server(move |request| {
            let is_known = request.header("authorization") == Some("Bearer s3cret");
            match (is_known, request.target.ends_with("/here.tar")) {
                (false, _) => Reply::status(401),
                // On the same server they are sent again.
                (_, false) => Reply::status(status).with("Location", "/set/here.tar"),
                (_, true) => Reply::status(status).with("Location", &*target),
            }
        });
        assert_eq!(read(&shard(&first.url("/set/0.tar"), &with_token())).unwrap(), 30, "{status}");
    }
    assert!(other.requests().iter().all(|request| request.range.is_some()));
    // Where the other one is not there once, the first is asked again.
    let (gone, there) = (server(|_| Reply::default()).url("/set/0.tar"), other.url("/set/0.tar"));
    let first = server(move |request| {
        let target = if request.number == 1 { &gone } else { &there };
        Reply::status(302).with("Location", &**target)
    });
    assert_eq!(read(&shard(&first.url("/set/0.tar"), &with_token())).unwrap(), 30);
    // Where the other one wants credentials, it is named: those of the first are not at fault.
    let closed = server(|_| Reply::status(401));
    let target = closed.url("/set/0.tar");
    let first = server(move |_| Reply::status(302).with("Location", &*target));
    let refused = message(&first, &with_token());
    let place = closed.url("");
    assert!(refused.contains(&format!("redirected to {place}, which got no token")), "{refused}");
    let looping = server(|_| Reply::status(302).with("Location", "/set/0.tar"));
    let message = message(&looping, &with_token());
    assert!(message.contains("more than 20 redirects"), "{message}");
    assert_eq!(looping.requests().len(), 21);
}

#[test]
fn a_token_is_for_one_server() {
    let (first, second) = (server(|_| Reply::default()), server(|_| Reply::default()));
    let urls = [first.url("/set/0.tar"), second.url("/other/0.tar")];
    let error = list(&urls, None, &with_token()).unwrap_err().to_string();
    assert!(error.contains("invalid token=(hidden): it is for one server"), "{error}");
    let key = Store { headers: Headers::new([("X-Api-Key", SECRET)]).unwrap(), ..options() };
    let error = list(&urls, None, &key).unwrap_err().to_string();
    assert!(
        error.contains("invalid headers=(hidden): it is for one server") && !error.contains(SECRET),
        "{error}"
    );
    // By several sources no more than by one.
    let sources = |stores: [Store; 2]| {
        let mut config = Config { mode: Mode::Full, ..Config::default() };
        let pairs = urls.iter().zip(stores);
        config.sources = pairs
            .map(|(url, store)| Source { store, lengths: Some(vec![30]), ..Source::new(vec![url.clone()]) })
            .collect();
        tldr_loader::Loader::from_config(config).build().map(drop)
    };
    let error = sources([with_token(), with_token()]).unwrap_err().to_string();
    assert!(error.contains("it is for one server") && !error.contains(SECRET), "{error}");
    assert!(first.requests().is_empty() && second.requests().is_empty());
    let other = Store { token: Some(Token::new("another")), ..options() };
    let error = sources([with_token(), other]).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(!error.contains("one server"), "{error}");
    for (option, store) in [("token", with_token()), ("headers", key)] {
        let error = list(&["s3://b/0.tar".into()], None, &store).unwrap_err().to_string();
        assert!(
            error.contains(&format!("invalid {option}=(hidden): it has no effect without https://")),
            "{error}"
        );
    }
}

/// Writes what is logged to a buffer.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn secrets_are_in_no_message_log_state_or_ledger() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus");
    std::fs::create_dir(&corpus).unwrap();
    support::corpus(&corpus, 1, 100);
    let bytes = std::fs::read(corpus.join("00000.tar")).unwrap();
    let server = Server::start([("/set/0.tar".into(), bytes)], |request| match request.number % 7 {
        3 if request.repeats == 0 => Reply::status(503),
        _ if request.header("authorization") != Some("Bearer s3cret") => Reply::status(401),
        _ => Reply::default(),
    });
    let state = tracing::subscriber::with_default(subscriber, || {
        let ledger = tldr_loader::ledger::Ledger::open(folder.path().join("ledger"), None).unwrap();
        let stores = Store { retries: 6, ..with_token() };
        let loader =
            support::builder(&server.url("/set/0.tar")).stores(stores).ledger(ledger).build().unwrap();
        assert!(!support::epoch(&loader).is_empty());
        serde_json::to_string(&loader.state()).unwrap()
    });
    let url = server.url("/set/0.tar");
    let refused = Server::start([], |_| Reply::status(403));
    let refused = shard(&refused.url("/set/0.tar"), &with_token());
    let error = read(&refused).unwrap_err();
    assert!(error.to_string().contains("the token or headers that were sent"), "{error}");
    let mut texts = vec![
        state,
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap(),
        format!("{error} {error:?} {refused:?} {:?}", shard(&url, &with_token())),
        format!("{:?} {:?}", with_token(), with_token().write()),
    ];
    for entry in walk(folder.path()) {
        texts.push(String::from_utf8_lossy(&std::fs::read(entry).unwrap()).into_owned());
    }
    assert!(texts.len() > 5, "{} texts", texts.len());
    assert!(texts.iter().all(|text| !text.contains(SECRET)), "{texts:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn credentials_do_not_change_what_a_loader_is() {
    let folder = tempfile::tempdir().unwrap();
    support::corpus(folder.path(), 1, 100);
    let bytes = std::fs::read(folder.path().join("00000.tar")).unwrap();
    let server = Server::start([("/set/0.tar".into(), bytes)], |_| Reply::default());
    let state = |stores: Store| {
        let loader = support::full(&server.url("/set/0.tar")).stores(stores).build().unwrap();
        serde_json::to_string(&loader.state()).unwrap()
    };
    assert_eq!(state(with_token()), state(options()));
}

#[test]
fn tokens_of_the_environment_are_for_their_servers() {
    let mine = Arc::new(server(|request| match request.header("authorization") {
        Some("Bearer s3cret") => Reply::default(),
        _ => Reply::status(401),
    }));
    let other = server(|request| match request.header("authorization") {
        None => Reply::default(),
        _ => Reply::status(418),
    });
    let host = mine.url("").replace("http://", "");
    let mut test = wait::test(module_path!(), "inside::by_the_environment");
    test.env("TLDR_LOADER_HTTP_TOKENS", format!("x@example.org;{SECRET}@{host}"));
    wait::passes(
        test.env("TLDR_TEST_MINE", mine.url("/set/0.tar")).env("TLDR_TEST_OTHER", other.url("/o/0.tar")),
    );
    let mut test = wait::test(module_path!(), "inside::an_environment_that_cannot_be_read");
    wait::passes(test.env("TLDR_LOADER_HTTP_TOKENS", SECRET));
}

/// What runs in an environment of its own.
mod inside {
    use super::*;

    #[test]
    #[ignore = "needs the environment of tokens_of_the_environment_are_for_their_servers"]
    fn by_the_environment() {
        let [mine, other] = ["TLDR_TEST_MINE", "TLDR_TEST_OTHER"].map(|name| std::env::var(name).unwrap());
        assert_eq!(read(&shard(&mine, &options())).unwrap(), 30);
        // It is not sent there, where there is no shard either.
        let error = read(&shard(&other, &options())).unwrap_err().to_string();
        assert!(error.contains("there is no such object"), "{error}");
        // The option goes before it.
        let error = read(&shard(&mine, &Store { token: Some(Token::new("old")), ..options() })).unwrap_err();
        assert!(error.to_string().contains("the server does not accept the token or headers"), "{error}");
    }

    #[test]
    #[ignore = "needs the environment of tokens_of_the_environment_are_for_their_servers"]
    fn an_environment_that_cannot_be_read() {
        let error = list(&["https://h/0.tar".into()], None, &options()).unwrap_err().to_string();
        assert!(
            error.contains("TLDR_LOADER_HTTP_TOKENS=(hidden): the environment variable is not TOKEN@HOST")
                && !error.contains(SECRET),
            "{error}"
        );
    }
}

#[test]
fn what_must_not_be_read_says_what_can_be_done() {
    let signed = server(|_| Reply::status(403));
    let error =
        read(&shard(&signed.url("/set/0.tar?X-Amz-Signature=s3cret"), &options())).unwrap_err().to_string();
    assert!(error.contains("the signature in the query of the URL may have expired"), "{error}");
    assert!(!error.contains(SECRET), "{error}");
    let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>x</Message></Error>";
    let store = server(move |_| Reply::status(403).body(body));
    for (test, environment, expected) in [
        (
            "s3://bucket/0.tar",
            vec![
                ("AWS_ENDPOINT_URL", store.url("")),
                ("AWS_ACCESS_KEY_ID", "a".into()),
                ("AWS_SECRET_ACCESS_KEY", "b".into()),
            ],
            "AWS_SESSION_TOKEN",
        ),
        (
            "az://container/0.tar",
            vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "a".into()),
                ("AZURE_STORAGE_ENDPOINT", store.url("")),
                ("AZURE_ALLOW_HTTP", "true".into()),
                ("AZURE_SKIP_SIGNATURE", "true".into()),
            ],
            "AZURE_STORAGE_SAS_KEY",
        ),
    ] {
        let mut command = wait::test(module_path!(), "of_a_bucket::is_denied");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_") || name.starts_with("AZURE_")) {
                command.env_remove(name);
            }
        }
        command.env("TLDR_TEST_URL", test).env("TLDR_TEST_EXPECTED", expected).envs(environment);
        wait::passes(&mut command);
    }
}

/// What runs in an environment of its own.
mod of_a_bucket {
    use super::*;

    #[test]
    #[ignore = "needs the environment of what_must_not_be_read_says_what_can_be_done"]
    fn is_denied() {
        let [url, expected] =
            ["TLDR_TEST_URL", "TLDR_TEST_EXPECTED"].map(|name| std::env::var(name).unwrap());
        let error = read(&shard(&url, &options())).unwrap_err().to_string();
        assert!(error.contains("access is denied; check A") && error.contains(&expected), "{error}");
        assert!(error.contains("403") && error.contains("SignatureDoesNotMatch"), "{error}");
    }
}
