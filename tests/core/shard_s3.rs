//! Promise: shards in a bucket read as local ones, and a ledger in a bucket serves as a local one, with
//! what the environment says of credentials and endpoints. The bucket is moto's.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use crate::support::{self, wait};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tldr_loader::Shard;
use tldr_loader::shard::{Group, ReadOptions, ShardReader, ShardWriter, Store, lengths, list};

/// A running moto server, ended when dropped.
struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// `None`, and a word about it, where moto is not installed.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/moto_server");
        if !program.exists() {
            println!("skipped: {} is not there (requirements-dev.txt names it)", program.display());
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { process, port };
        wait::until("moto to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(moto)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a bucket (`/bucket`) or an object (`/bucket/key`).
    fn put(&self, target: &str, body: &[u8]) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let length = body.len();
        write!(
            connection,
            "PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {length}\r\nConnection: close\r\n\
             x-amz-acl: public-read\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n",
            self.port
        )
        .unwrap();
        connection.write_all(body).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "PUT {target}: {answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        wait::ended(&mut self.process);
    }
}

/// Runs one of the ignored tests below in a process with the environment of a user of S3.
fn run_with(test: &str, folder: &Path, environment: &[(&str, &str)]) {
    let mut command = wait::test(module_path!(), &format!("inside::{test}"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    wait::passes(command.env("TLDR_TEST_FOLDER", folder).envs(environment.iter().copied()));
}

/// Four plain shards for a loader in `bulk`, and one of each format in `formats`.
fn corpus(folder: &Path) {
    std::fs::create_dir(folder.join("bulk")).unwrap();
    std::fs::create_dir(folder.join("formats")).unwrap();
    support::corpus(&folder.join("bulk"), 4, 100);
    for name in ["0.tar", "1.tar.gz", "2.tgz", "3.tar.zst"] {
        let mut writer = ShardWriter::create(folder.join("formats").join(name)).unwrap();
        for i in 0..30usize {
            let image: Vec<u8> = (0..3000 + i).map(|at| (at * (i + 3)) as u8).collect();
            writer.write(&i.to_string(), &[("jpg", &image), ("txt", b"a caption")]).unwrap();
        }
        writer.finish().unwrap();
    }
    std::fs::write(folder.join("formats/notes.md"), "no shard").unwrap();
}

#[test]
fn buckets_read_as_local_folders() {
    let Some(moto) = Moto::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    moto.put("/shards", b"");
    for set in ["bulk", "formats"] {
        for entry in folder.path().join(set).read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            moto.put(&format!("/shards/data/{set}/{name}"), &std::fs::read(path).unwrap());
        }
    }
    moto.put("/shards/data/sized/0.tar", b"");
    moto.put("/shards/data/sized/sizes.json", br#"{"0.tar": 17}"#);
    moto.put("/shards/data/alone/0.tar", b"");
    moto.put("/shards/data/alone/__len__", b"18\n");
    let endpoint = moto.endpoint();
    let keys =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];
    let by_option = [&keys[..], &[("TLDR_TEST_ENDPOINT", &endpoint)]].concat();
    let by_variable = [&keys[..], &[("AWS_ENDPOINT_URL", &endpoint)]].concat();
    for test in ["formats", "lengths_of_buckets", "a_loader", "what_is_missing"] {
        run_with(test, folder.path(), &by_option);
    }
    run_with("a_ledger", folder.path(), &by_option);
    run_with("formats", folder.path(), &by_variable);
    let unsigned = [("AWS_SKIP_SIGNATURE", "true"), ("AWS_ENDPOINT_URL", &endpoint)];
    run_with("reading_is_unsigned", folder.path(), &unsigned);
    let nobody = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"), ("AWS_ENDPOINT_URL", &endpoint)];
    run_with("no_credentials", folder.path(), &nobody);
}

/// What runs in the environment that `buckets_read_as_local_folders` makes.
mod inside {
    use super::*;

    fn folder() -> PathBuf {
        std::env::var_os("TLDR_TEST_FOLDER").unwrap().into()
    }

    fn options() -> Store {
        let endpoint = std::env::var("TLDR_TEST_ENDPOINT").ok();
        Store { endpoint, range_bytes: 10_000, retries: 2, ..Store::default() }
    }

    fn shards(pattern: &str) -> Vec<Shard> {
        list(&[pattern.into()], None, &options()).unwrap()
    }

    fn read(shard: &Shard) -> Vec<Group> {
        let mut reader = ShardReader::open(shard, &ReadOptions::default()).unwrap();
        std::iter::from_fn(|| reader.next_group().unwrap()).collect()
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn formats() {
        let near = folder().join("formats").display().to_string();
        let near = list(&[near], None, &Store::default()).unwrap();
        let far = shards("s3://shards/data/formats/");
        let braces = shards("s3://shards/data/formats/{0.tar,1.tar.gz,2.tgz,3.tar.zst}");
        assert_eq!((near.len(), far.len()), (4, 4));
        assert!(far.iter().zip(&braces).all(|(a, b)| a.url == b.url));
        for (near, far) in near.iter().zip(&far) {
            assert_eq!((&near.source, &near.path, near.hash), (&far.source, &far.path, far.hash));
            let groups = read(far);
            assert!(groups.len() == 30 && groups == read(near), "{}", far.url);
        }
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn lengths_of_buckets() {
        for (pattern, expected, scans) in [
            ("s3://shards/data/sized/", vec![17], 0),
            ("s3://shards/data/alone/0.tar", vec![18], 0),
            ("s3://shards/data/formats/", vec![30; 4], 4),
        ] {
            let mut calls = 0;
            assert_eq!(lengths(&shards(pattern), &mut |_, _| calls += 1).unwrap(), expected);
            assert_eq!(calls, scans, "{pattern}");
        }
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn a_loader() {
        let local = support::pattern(&folder().join("bulk"), 4);
        for make in [support::full as fn(&str) -> tldr_loader::loader::LoaderBuilder, support::builder] {
            let near = support::epoch(&make(&local).build().unwrap());
            let far = make("s3://shards/data/bulk/{00000..00003}.tar").stores(options()).build().unwrap();
            assert!(!near.is_empty() && near == support::epoch(&far));
        }
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn a_ledger() {
        use std::sync::atomic::Ordering;
        use support::{StubCaptioner, builder, clusters};
        use tldr_loader::ledger::Ledger;

        let open = |place: &str| Ledger::open_with(place, Some(4000), &options());
        let run = |ledger: &Ledger, urls: &str| {
            let stub = StubCaptioner::new();
            let asked = (stub.encoded.clone(), stub.captioned.clone());
            let loader = builder(urls).captioner(stub, clusters()).fuse("concat".parse().unwrap());
            let batches = support::epoch(&loader.stores(options()).ledger(ledger.clone()).build().unwrap());
            (batches, asked.0.load(Ordering::Relaxed), asked.1.load(Ordering::Relaxed))
        };
        let (place, far) = ("s3://shards/ledgers/one/", "s3://shards/data/bulk/{00000..00003}.tar");
        let expected = run(&Ledger::new(), far);
        assert!(expected.1 > 0 && expected.2 > 0);
        assert!(!Ledger::is_at(place, &options()).unwrap());
        let first = open(place).unwrap();
        assert_eq!(first.location().as_deref(), Some("s3://shards/ledgers/one"));
        assert_eq!(run(&first, far).0, expected.0);
        assert!(Ledger::is_at(place, &options()).unwrap());
        // What another process sees, and another one yet of local shards.
        let again = open(place).unwrap();
        assert_eq!(run(&again, far), (expected.0.clone(), 0, 0));
        assert!(!first.recordings().unwrap().is_empty());
        assert_eq!(again.recordings().unwrap(), first.recordings().unwrap());
        let local = support::pattern(&folder().join("bulk"), 4);
        assert_eq!(run(&again, &local).0, expected.0);
        assert_eq!(run(&open(place).unwrap(), &local), (expected.0, 0, 0));
        // What is no ledger, and what can hold none.
        let message = open("s3://shards/data").unwrap_err().to_string();
        assert!(message.contains("a folder of its own"), "{message}");
        let message = open("https://example.org/ledger").unwrap_err().to_string();
        assert!(message.contains("HTTP servers take no files"), "{message}");
        let message = open("s3://no-bucket/ledger").unwrap_err().to_string();
        assert!(message.contains("open the ledger s3://no-bucket/ledger"), "{message}");
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn what_is_missing() {
        for pattern in ["s3://shards/data/nothing.tar", "s3://no-bucket/0.tar"] {
            let error = ShardReader::open(&shards(pattern)[0], &ReadOptions::default()).err().unwrap();
            let message = error.to_string();
            assert!(message.contains("there is no such object"), "{message}");
            assert!(message.contains(&format!("(shard {pattern}")), "{message}");
        }
        for pattern in ["s3://shards/empty/", "s3://shards/data/bulkier/"] {
            let error = list(&[pattern.into()], None, &options()).unwrap_err().to_string();
            assert!(error.contains("holds no .tar"), "{error}");
        }
        let error = list(&["s3://no-bucket/".into()], None, &options()).unwrap_err().to_string();
        assert!(error.contains("cannot list s3://no-bucket/"), "{error}");
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn reading_is_unsigned() {
        assert_eq!(read(&shards("s3://shards/data/formats/0.tar")[0]).len(), 30);
    }

    #[test]
    #[ignore = "needs the environment of buckets_read_as_local_folders"]
    fn no_credentials() {
        let shard = &shards("s3://shards/data/formats/0.tar")[0];
        let message = ShardReader::open(shard, &ReadOptions::default()).err().unwrap().to_string();
        assert!(message.contains("no credentials were found"), "{message}");
    }
}
