//! The options of every subcommand that reads shards.

use std::path::PathBuf;
use std::time::Duration;

use tldr_loader::Result;
use tldr_loader::shard::{ReadOptions, StoreOptions};

/// Where shards are and how they are read.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Shards: paths or URLs with {00000..00331} ranges, globs, folders, or @FILE that lists them
    #[arg(required = true)]
    pub urls: Vec<String>,
    /// Field of the json member, or column of the parquet beside the shard, that holds the caption;
    /// the txt member where a sample has neither
    #[arg(long)]
    caption_key: Option<String>,
    /// Only samples whose metadata pass: "NSFW = 'UNLIKELY' and width >= 200" (fields of the json
    /// member, or columns of the parquet beside the shard)
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
    /// Only samples that this file lists: keys or uids in a .parquet, .jsonl or .txt, DataComp's .npy, or an
    /// export
    #[arg(long, value_name = "FILE")]
    subset: Option<PathBuf>,
    /// Captions by key or uid, in a .parquet, .jsonl or .tsv; samples that are not in it keep their own
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// URL of a server that speaks S3, for s3:// shards; the environment's, or Amazon, by default
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Longest wait for the next bytes of a store
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    read_timeout: f64,
    /// Times that a request to a store is made again
    #[arg(long, default_value_t = 8)]
    retries: u32,
}

impl Source {
    /// How samples are read; opens the tables.
    pub fn read(&self) -> Result<ReadOptions> {
        ReadOptions::open(
            self.caption_key.clone(),
            self.filter.as_deref(),
            self.subset.as_deref(),
            self.captions.as_deref(),
        )
    }

    /// How stores are asked.
    pub fn stores(&self) -> StoreOptions {
        StoreOptions {
            endpoint: self.endpoint.clone(),
            // What is no duration is refused, as 0 s, where the options are checked.
            read_timeout: Duration::try_from_secs_f64(self.read_timeout).unwrap_or_default(),
            retries: self.retries,
            ..StoreOptions::default()
        }
    }
}
