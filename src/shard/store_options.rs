//! How stores are asked: options.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::options::HIDDEN;
use crate::shard::{Headers, Token};

/// What a local cache of shards may hold, by default.
const SHARD_CACHE_BYTES: u64 = 64 << 30;

crate::group! {
    /// How shards in object stores and on HTTP servers are read; local shards need none of it. A reader holds at most
    /// `ranges_ahead * range_bytes` of a shard. Credentials of buckets come from the environment (`AWS_*`, `GOOGLE_*`,
    /// `AZURE_*`), and so may those of HTTP servers (`TLDR_LOADER_HTTP_TOKENS`) and of the Hugging Face hub (`HF_TOKEN`).
    pub struct Store {
        /// URL of a server that speaks S3 (MinIO, Ceph, R2), for `s3://` shards. Default: `AWS_ENDPOINT_URL` where that is
        /// set, else Amazon.
        Runtime endpoint: Option<String> = None;
        /// Bearer token for the HTTP server of the source's shards, or for the Hugging Face hub; sent to no other. Default:
        /// that of `TLDR_LOADER_HTTP_TOKENS` (`TOKEN@HOST;TOKEN@HOST:PORT`) for this server; for `hf://` shards
        /// `HF_TOKEN`, or what `hf auth login` wrote.
        Runtime token: Option<Token> = None;
        /// Headers for the HTTP server of the source's shards, by their names; sent to no other. Default: none.
        Runtime headers: Headers = Headers::default();
        /// Seconds to wait for the next bytes of an answer. Default: 30.
        Runtime read_timeout: Duration = Duration::from_secs(30);
        /// Times that a request is made again after a fault that may pass, before the fault ends the run; counted anew
        /// after each `range_bytes`. They also bound how long a server that asks for time (`Retry-After`) is given. Default:
        /// 8, which take 23 s of waiting.
        Runtime retries: u32 = 8;
        /// Bytes per request. Default: 4 MiB.
        Runtime range_bytes: usize = 4 << 20;
        /// Requests of one reader at a time. Default: 4.
        Runtime ranges_ahead: usize = 4;
        /// Local folder in which what was read of remote shards is kept for later epochs and runs; processes may share it.
        /// Default: none.
        Runtime shard_cache_dir: Option<PathBuf> = None;
        /// Bytes that this folder may hold; the least recently used go first. Default: 64 GiB.
        Runtime shard_cache_bytes: u64 = SHARD_CACHE_BYTES;
    }
}

impl Store {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn check(&self) -> Result<()> {
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let accepted = "the URL of a server that speaks S3, like https://minio.example.org:9000";
            return Err(Error::option("endpoint", format!("{endpoint:?}"), accepted));
        }
        if self.read_timeout.is_zero() {
            return Err(Error::option("read_timeout", "0 s", "more than 0 s"));
        }
        for (option, value) in [("range_bytes", self.range_bytes), ("ranges_ahead", self.ranges_ahead)] {
            if value == 0 {
                return Err(Error::option(option, value, "at least 1"));
            }
        }
        if self.shard_cache_dir.is_none() && self.shard_cache_bytes != SHARD_CACHE_BYTES {
            let why = "without shard_cache_dir, the folder that it bounds";
            return Err(Error::unused("shard_cache_bytes", self.shard_cache_bytes, why));
        }
        if self.shard_cache_dir.is_some() && self.shard_cache_bytes < self.range_bytes as u64 {
            let accepted = format!("at least range_bytes, {}", self.range_bytes);
            return Err(Error::option("shard_cache_bytes", self.shard_cache_bytes, accepted));
        }
        if self.token.is_some() && self.headers.iter().any(|(name, _)| name == "authorization") {
            return Err(Error::refused(
                "token",
                HIDDEN,
                "headers have an Authorization too: give one of them",
            ));
        }
        Ok(())
    }
}
