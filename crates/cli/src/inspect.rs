//! `tldr-loader inspect`: what shards hold, and what is wrong with them.

use std::collections::BTreeSet;
use std::io::Write;

use tldr_loader::error::{ErrorKind, FailReason};
use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::{self, InspectJob, Inspection, MetadataInspection, Spread};
use tldr_loader::loader::check_tables;
use tldr_loader::shard::{Shard, survey};
use tldr_loader::{Error, Result};

use crate::options::Sources;
use crate::progress::Progress;

/// Read shards and show samples, sizes, dimensions, formats and faults.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Pixels an image may have; 100 million by default
    #[arg(long)]
    max_image_pixels: Option<u64>,
    /// Decode every image, to find those that cannot be
    #[arg(long)]
    decode: bool,
    /// Print JSON, every shard for itself too
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let source = self.sources.one()?;
        if let Some(lengths) = &source.lengths {
            let accepted = "here, where every shard is read and counted";
            return Err(Error::unused("lengths", format!("{lengths:?}"), accepted));
        }
        let shards = source.list()?;
        let job = InspectJob {
            read: source.open()?,
            limits: DecodeOptions {
                max_pixels: self.max_image_pixels.unwrap_or(DecodeOptions::default().max_pixels),
                ..DecodeOptions::default()
            },
            decode: self.decode,
        };
        let bar = Progress::new("shards");
        let found = jobs::inspect(&shards, &job, &|done| bar.at(done as u64, shards.len() as u64))?;
        bar.finish();
        if self.json {
            let text = serde_json::to_string_pretty(&found)
                .map_err(|error| Error::io("write JSON", std::io::Error::other(error)))?;
            ended(writeln!(std::io::stdout(), "{text}"))?;
        } else {
            ended(print(&mut std::io::stdout().lock(), &found, self.decode))?;
        }
        check_joins(&shards, &job, &found)?;
        let unread = found.shards.iter().filter(|shard| shard.error.is_some()).count();
        if unread > 0 {
            let detail = format!("{unread} of {} cannot be read: stdout says why", found.shards.len());
            return Err(ErrorKind::Shard { detail }.into());
        }
        let barren = found.shards.iter().filter(|shard| shard.is_barren()).count();
        if barren > 0 || found.samples == 0 {
            let of = found.shards.len();
            let what =
                if barren > 0 { format!("{barren} of {of} shards have") } else { "these shards have".into() };
            return Err(Error::no_samples(format!("{what} no usable sample: stdout says why")));
        }
        Ok(())
    }
}

/// Fails where a table of `--subset` or `--captions` has nothing to do with these shards, as training would.
fn check_joins(shards: &[Shard], job: &InspectJob, found: &Inspection) -> Result<()> {
    if !job.read.has_tables() {
        return Ok(());
    }
    let readable = shards.iter().zip(&found.shards).filter(|(_, of)| of.error.is_none());
    let (shards, lengths): (Vec<Shard>, Vec<u64>) =
        readable.map(|(shard, of)| (shard.clone(), of.groups)).unzip();
    check_tables(&job.read, &survey(&shards, &lengths, &job.read)?, found.groups)
}

fn print(out: &mut impl Write, found: &Inspection, decoded: bool) -> std::io::Result<()> {
    let formats: Vec<String> = found.shard_formats.iter().map(|(f, n)| format!("{n} {}", f.name())).collect();
    let size = if found.bytes > 0 { format!(", {}", megabytes(found.bytes)) } else { String::new() };
    writeln!(out, "shards    {} ({}){size}", found.shards.len(), formats.join(", "))?;
    let copies = found.samples - found.distinct;
    let copies = if copies > 0 { format!(", {copies} with the identity of another") } else { String::new() };
    writeln!(out, "samples   {} usable of {}{copies}", found.samples, found.groups)?;
    let formats: Vec<String> = found.image_formats.iter().map(|(f, n)| format!("{n} {}", f.name())).collect();
    writeln!(out, "images    {}", if formats.is_empty() { "none".into() } else { formats.join(", ") })?;
    let row = |out: &mut dyn Write, name: &str, s: &Spread, unit: &str| {
        writeln!(
            out,
            "  {name:<8}{:>10} to {:<10} median {:<10} mean {:.1} {unit}",
            s.min, s.max, s.median, s.mean
        )
    };
    row(out, "width", &found.width, "pixels")?;
    row(out, "height", &found.height, "pixels")?;
    row(out, "size", &found.image_bytes, "bytes")?;
    writeln!(out, "captions")?;
    row(out, "length", &found.caption_chars, "characters")?;
    let metadata = || found.shards.iter().filter_map(|shard| shard.metadata.as_ref());
    if metadata().count() > 0 {
        let columns: BTreeSet<&str> = metadata().flat_map(|m| &m.columns).map(String::as_str).collect();
        let columns: Vec<&str> = columns.into_iter().collect();
        let (files, samples) = (metadata().count(), metadata().map(|m| m.samples).sum::<u64>());
        writeln!(out, "metadata  {files} parquet, {samples} samples: {}", columns.join(", "))?;
    }
    let mut faults: Vec<String> = found.failed.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let unread = found.shards.iter().filter(|s| s.error.is_some()).count();
    if unread > 0 {
        faults.push(format!("{unread} {} that cannot be read", if unread == 1 { "shard" } else { "shards" }));
    }
    let damaged =
        found.shards.iter().filter(|s| s.error.is_none() && (s.skipped_bytes > 0 || !s.is_whole())).count();
    if damaged > 0 {
        faults.push(format!("{damaged} {} not whole", if damaged == 1 { "shard" } else { "shards" }));
    }
    let barren = found.shards.iter().filter(|shard| shard.is_barren()).count();
    if barren > 0 {
        let shards = if barren == 1 { "shard" } else { "shards" };
        faults.push(format!("{barren} {shards} without a usable sample"));
    }
    let how = if decoded { "" } else { " (images were not decoded: --decode)" };
    writeln!(out, "faults    {}{how}", if faults.is_empty() { "none".into() } else { faults.join(", ") })?;
    for shard in &found.shards {
        if let Some(error) = &shard.error {
            writeln!(out, "  {error}")?;
        }
        if shard.is_barren() {
            writeln!(out, "  {}: no usable sample, of {} in it", shard.url, shard.groups)?;
        }
        if shard.skipped_bytes > 0 {
            writeln!(
                out,
                "  {}: {} bytes skipped that are no part of the archive",
                shard.url, shard.skipped_bytes
            )?;
        }
        if let Some(listed) = shard.listed.filter(|&listed| listed != shard.groups) {
            writeln!(
                out,
                "  {}: {} samples, where sizes.json or a like file beside it lists {listed}",
                shard.url, shard.groups
            )?;
        }
        if let Some(MetadataInspection { file, absent, first_absent: Some(first), .. }) = &shard.metadata {
            writeln!(out, "  {}: {absent} samples of {file} are not in it, the first is {first}", shard.url)?;
        }
        for f in &shard.failures {
            writeln!(out, "  {}: {} at byte {}: {} ({})", shard.url, f.key, f.offset, f.reason, f.detail)?;
        }
        let named = shard.failures.len() as u64;
        let excluded = shard.failed.get(&FailReason::Excluded).copied().unwrap_or(0);
        let more = shard.failed.values().sum::<u64>() - excluded - named;
        if more > 0 {
            writeln!(out, "  {}: and {more} more", shard.url)?;
        }
    }
    Ok(())
}

/// Output that nobody reads any more (`inspect ... | head`) is no error.
fn ended(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to stdout", error))
        }
        _ => Ok(()),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
