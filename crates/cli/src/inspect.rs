//! `tldr-loader inspect`: what shards hold, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use tldr_loader::error::{ErrorKind, FailReason};
use tldr_loader::jobs::{self, Checksums, InspectJob, Inspection, MetadataInspection, Spread};
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
    /// Decode every image, to find those that cannot be
    #[arg(long)]
    decode: bool,
    /// Compare images with the sha256 that the corpus has for them
    #[arg(long)]
    checksums: bool,
    /// Fail (exit status 1) where anything is wrong, not only where a shard cannot be used
    #[arg(long)]
    strict: bool,
    /// Print JSON, every shard for itself too
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let (source, limits) = self.sources.one()?;
        if let Some(lengths) = &source.lengths {
            let accepted = "here, where every shard is read and counted";
            return Err(Error::unused("lengths", format!("{lengths:?}"), accepted));
        }
        let shards = source.list()?;
        let job = InspectJob { read: source.open()?, limits, decode: self.decode, checksums: self.checksums };
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
        if self.strict && !found.faults.is_empty() {
            return Err(found.refused());
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
    let formats = if formats.is_empty() { String::new() } else { format!(" ({})", formats.join(", ")) };
    writeln!(out, "shards    {}{formats}{size}", found.shards.len())?;
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
    writeln!(out, "lengths   {}", lengths(found))?;
    if let Some(Checksums { same, different, absent }) = found.checksums {
        writeln!(out, "sha256    {same} equal, {different} different, {absent} without one")?;
        if different > 0 {
            writeln!(
                out,
                "  img2dataset has it of the file as downloaded: images that it encoded anew, as it does by default, differ"
            )?;
        }
    }
    let excluded = found.failed.get(&FailReason::Excluded).copied().unwrap_or(0);
    if excluded > 0 {
        writeln!(out, "excluded  {excluded}, by where or subset")?;
    }
    let faults = &found.faults;
    let how = if decoded { "" } else { " (images were not decoded: --decode)" };
    writeln!(out, "faults    {}{how}", if faults.is_empty() { "none".into() } else { faults.join(", ") })?;
    for shard in &found.shards {
        if let Some(error) = &shard.error {
            writeln!(out, "  {}: {error}", shard.url)?;
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
                "  {}: {} samples, where {} lists {listed}",
                shard.url,
                shard.groups,
                shard.listed_in.as_deref().unwrap_or("a file beside it")
            )?;
        }
        if let Some(MetadataInspection { file, absent, first_absent: Some(first), .. }) = &shard.metadata {
            writeln!(out, "  {}: {absent} samples of {file} are not in it, the first is {first}", shard.url)?;
        }
        let keys: Vec<&str> = shard.different.iter().map(|key| &**key).collect();
        if !keys.is_empty() {
            let more = shard.checksums.map_or(0, |checksums| checksums.different) - keys.len() as u64;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(out, "  {}: another sha256: {}{more}", shard.url, keys.join(", "))?;
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

/// Which files say how long the shards are: the ones that a loader believes.
fn lengths(found: &Inspection) -> String {
    let mut kinds: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for shard in &found.shards {
        if let (Some(kind), Some(file)) = (shard.listed_by, &shard.listed_in) {
            kinds.entry(kind).or_insert((0, file)).0 += 1;
        }
    }
    let listed: usize = kinds.values().map(|(n, _)| n).sum();
    let by = kinds.iter().map(|(kind, (n, first))| format!("{n} by {kind} ({first})"));
    let rest = found.shards.len() - listed;
    let rest = (rest > 0).then(|| format!("{rest} by counting"));
    by.chain(rest).collect::<Vec<_>>().join(", ")
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
