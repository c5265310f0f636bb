//! `tldr-loader inspect`: what shards hold, and what is wrong with them.

use std::collections::BTreeMap;

use tldr_loader::error::FailReason;
use tldr_loader::shard::{ReadOptions, ShardReader, StoreOptions, list};
use tldr_loader::{Result, SampleId};

use super::progress_bar;

/// Read shards and count samples, bytes and faults.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shards: paths or URLs with {00000..00331} ranges, globs, folders, or @FILE that lists them
    #[arg(required = true)]
    urls: Vec<String>,
    /// Field of the json member that holds the caption; the txt member where a sample lacks it
    #[arg(long)]
    caption_key: Option<String>,
    /// URL of a server that speaks S3, for s3:// shards; the environment's, or Amazon, by default
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let stores = StoreOptions { endpoint: self.endpoint, ..StoreOptions::default() };
        let shards = list(&self.urls, None, &stores)?;
        let options = ReadOptions { caption_key: self.caption_key };
        let bar = progress_bar("shards");
        bar.set_length(shards.len() as u64);
        let (mut samples, mut image_bytes, mut words, mut skipped) = (0u64, 0u64, 0u64, 0u64);
        let mut failed: BTreeMap<FailReason, u64> = BTreeMap::new();
        let mut ids: std::collections::HashSet<SampleId> = std::collections::HashSet::new();
        for shard in &shards {
            let mut reader = ShardReader::open(shard, &options)?;
            while let Some(group) = reader.next_group()? {
                match group {
                    Ok(sample) => {
                        samples += 1;
                        image_bytes += sample.image.len() as u64;
                        words += sample.caption.split_whitespace().count() as u64;
                        ids.insert(sample.id);
                    }
                    Err(f) => {
                        bar.suspend(|| {
                            println!(
                                "{}: {} at byte {}: {} ({})",
                                shard.url, f.key, f.offset, f.reason, f.detail
                            );
                        });
                        *failed.entry(f.reason).or_default() += 1;
                    }
                }
            }
            skipped += reader.skipped_bytes();
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mean = |total: u64| total as f64 / samples.max(1) as f64;
        println!(
            "{} shards, {samples} samples ({} distinct), {:.1} kB an image, {:.1} words a caption",
            shards.len(),
            ids.len(),
            mean(image_bytes) / 1e3,
            mean(words)
        );
        let reasons: Vec<String> = failed.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        println!("failed: {}", if reasons.is_empty() { "none".into() } else { reasons.join(", ") });
        if skipped > 0 {
            println!("damaged: {skipped} bytes skipped");
        }
        Ok(())
    }
}
