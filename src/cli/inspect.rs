//! `tldr-loader inspect`: what shards hold, and what is wrong with them.

use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::{self, InspectJob, Inspection, Spread};
use tldr_loader::shard::{ReadOptions, StoreOptions, list};
use tldr_loader::{Error, Result};

use super::progress_bar;

/// Read shards and show samples, sizes, dimensions, formats and faults.
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
    /// Decode every image, to find those that cannot be
    #[arg(long)]
    decode: bool,
    /// Print JSON, every shard for itself too
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let stores = StoreOptions { endpoint: self.endpoint, ..StoreOptions::default() };
        let shards = list(&self.urls, None, &stores)?;
        let job = InspectJob {
            read: ReadOptions { caption_key: self.caption_key },
            decode: self.decode.then(DecodeOptions::default),
        };
        let bar = progress_bar("shards");
        bar.set_length(shards.len() as u64);
        let found = jobs::inspect(&shards, &job, &|done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        if self.json {
            let text = serde_json::to_string_pretty(&found)
                .map_err(|error| Error::io("write JSON", std::io::Error::other(error)))?;
            println!("{text}");
        } else {
            print(&found, self.decode);
        }
        Ok(())
    }
}

fn print(found: &Inspection, decoded: bool) {
    let formats: Vec<String> = found.shard_formats.iter().map(|(f, n)| format!("{n} {}", f.name())).collect();
    let size = if found.bytes > 0 { format!(", {}", megabytes(found.bytes)) } else { String::new() };
    println!("shards    {} ({}){size}", found.shards.len(), formats.join(", "));
    let copies = found.samples - found.distinct;
    let copies = if copies > 0 { format!(", {copies} with the identity of another") } else { String::new() };
    println!("samples   {} usable of {}{copies}", found.samples, found.groups);
    let formats: Vec<String> = found.image_formats.iter().map(|(f, n)| format!("{n} {}", f.name())).collect();
    println!("images    {}", if formats.is_empty() { "none".into() } else { formats.join(", ") });
    let row = |name: &str, s: &Spread, unit: &str| {
        println!(
            "  {name:<8}{:>10} to {:<10} median {:<10} mean {:.1} {unit}",
            s.min, s.max, s.median, s.mean
        );
    };
    row("width", &found.width, "pixels");
    row("height", &found.height, "pixels");
    row("size", &found.image_bytes, "bytes");
    println!("captions");
    row("length", &found.caption_chars, "characters");
    let faults: Vec<String> = found.failed.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let how = if decoded { "" } else { " (images were not decoded: --decode)" };
    println!("faults    {}{how}", if faults.is_empty() { "none".into() } else { faults.join(", ") });
    for shard in &found.shards {
        if shard.skipped_bytes > 0 {
            println!("  {}: {} bytes passed over after damaged tar headers", shard.url, shard.skipped_bytes);
        }
        for f in &shard.failures {
            println!("  {}: {} at byte {}: {} ({})", shard.url, f.key, f.offset, f.reason, f.detail);
        }
        let named = shard.failures.len() as u64;
        let more = shard.failed.values().sum::<u64>() - named;
        if more > 0 {
            println!("  {}: and {more} more", shard.url);
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
