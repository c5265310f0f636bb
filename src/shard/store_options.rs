//! How stores are asked: options.

use std::time::Duration;

use crate::error::{Error, Result};

crate::group! {
    /// How shards in object stores and on HTTP servers are read; local shards need none of it. A reader holds at most
    /// `ranges_ahead * range_bytes` of a shard. Credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    pub struct Store {
        /// URL of a server that speaks S3 (MinIO, Ceph, R2), for `s3://` shards. Default: `AWS_ENDPOINT_URL` where that is
        /// set, else Amazon.
        Runtime endpoint: Option<String> = None;
        /// Seconds to wait for the next bytes of an answer. Default: 30.
        Runtime read_timeout: Duration = Duration::from_secs(30);
        /// Times that a request is made again after a fault that may pass, before the fault ends the run; counted anew
        /// after each `range_bytes`. Default: 8, which take 23 s of waiting.
        Runtime retries: u32 = 8;
        /// Bytes per request. Default: 4 MiB.
        Runtime range_bytes: usize = 4 << 20;
        /// Requests of one reader at a time. Default: 4.
        Runtime ranges_ahead: usize = 4;
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
        Ok(())
    }
}
