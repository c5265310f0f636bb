//! One self-contained page that shows what a corpus holds, what is kept of it, what is dropped, and why, with pictures.
//!
//! [`report`] reads the ledger once or twice ([`Decisions`]), draws the samples that are shown by hash, reads those
//! and no others from their shards, and writes the page, `report.json` and the pairs of near-duplicates beside it. The
//! page opens from a file, asks for nothing, and has its pictures in itself. The same inputs and seed give the same bytes.

mod assemble;
mod captions;
mod choose;
mod draw;
mod gather;
mod histogram;
mod looked;
mod model;
mod page;
mod pictures;
mod scored;
mod sprites;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tldr_loader::aside;
use tldr_loader::cluster::Clusters;
use tldr_loader::config::{Captions, Config, Source};
use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::{Decisions, DecisionsJob, Wanted, write_pairs};
use tldr_loader::loader::{PlanFile, reading_fingerprint};
use tldr_loader::model::Scorer;
use tldr_loader::text::Tokenizer;
use tldr_loader::{Error, Result};

use gather::Sizes;

/// Megabytes of a page, unless more are asked for.
pub const MAX_MB: f64 = 15.0;
/// Qualities that sheets of pictures are tried at, until the page is small enough.
const QUALITIES: [u8; 4] = [78, 62, 45, 25];

/// What to report.
#[derive(Debug, Clone)]
pub struct ReportJob {
    /// Whose decisions.
    pub decisions: DecisionsJob,
    /// Where pictures and captions are.
    pub sources: Vec<Source>,
    /// How pictures are decoded.
    pub decode: DecodeOptions,
    /// The clusters of the captioner, which say what the gate is worth; a plan says so itself.
    pub clusters: Option<Arc<Clusters>>,
    /// Which captions kept samples are trained on.
    pub captions: Captions,
    /// The tokenizer of the trained model, which cuts captions.
    pub tokenizer: Option<Tokenizer>,
    /// Seed of the loader, by which captions are drawn.
    pub loader_seed: u64,
    /// The page: a file that ends in `.html`.
    pub out: PathBuf,
    /// The command that was given, for the page's head.
    pub command: String,
    /// Most megabytes of the page.
    pub max_mb: f64,
    /// Seed of the samples that are shown.
    pub seed: u64,
}

impl ReportJob {
    /// A report of `sources` under `decisions`, written to `out`.
    pub fn new(decisions: DecisionsJob, sources: Vec<Source>, out: impl Into<PathBuf>) -> Self {
        Self {
            decisions,
            sources,
            decode: DecodeOptions::default(),
            clusters: None,
            captions: Captions::default(),
            tokenizer: None,
            loader_seed: 0,
            out: out.into(),
            command: String::new(),
            max_mb: MAX_MB,
            seed: 0,
        }
    }

    /// A report of the sources of `config`, by its plan, else by its selection where there is a captioner, else by nothing.
    /// `fitted` is the fingerprint of that captioner, and its clusters.
    ///
    /// # Errors
    /// No ledger; a captioner that the plan was not made with; a selection, a table or a tokenizer that cannot be used.
    pub fn of(
        config: &Config,
        fitted: Option<(u64, Arc<Clusters>)>,
        out: impl Into<PathBuf>,
    ) -> Result<Self> {
        let Some(ledger) = &config.ledger else {
            return Err(Error::option(
                "ledger",
                "none",
                "the folder of the ledger, which has keys and signals",
            ));
        };
        let scorer = fitted.as_ref().map(|(scorer, _)| *scorer);
        let clusters = fitted.as_ref().map(|(_, clusters)| Arc::clone(clusters));
        let decisions =
            DecisionsJob::of(ledger, config.plan.as_deref(), fitted, &config.selection, config.seed)?;
        if let Some(plan) = &config.plan {
            check_reading(config, plan, PlanFile::load(plan)?.reading)?;
        }
        check_fuse(config)?;
        let decode = config.images.decode();
        let read = config.sources.first().map(Source::open).transpose()?.unwrap_or_default();
        let wanted = Wanted { window: decisions.wanted.window, ..Wanted::read_as(scorer, &read, &decode) };
        let rescue = config.captions.rescue;
        let decisions = DecisionsJob { wanted, rescue, ..decisions };
        let captions = config.captions.clone();
        let tokenizer = config.tokenizer.as_deref().map(Tokenizer::from_file).transpose()?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_rows(captions.context_length)?;
        }
        let job = Self::new(decisions, config.sources.clone(), out);
        Ok(Self { decode, clusters, captions, tokenizer, loader_seed: config.seed, ..job })
    }

    fn check(&self) -> Result<()> {
        if self.out.extension().and_then(|extension| extension.to_str()) != Some("html") {
            let given = format!("{:?}", self.out.display());
            return Err(Error::option("out", given, "a file that ends in .html"));
        }
        if let Some(folder) =
            self.out.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        {
            let accepted = format!("a file in a folder that is there; make {:?} first", folder.display());
            return Err(Error::option("out", format!("{:?}", self.out.display()), accepted));
        }
        if !(self.max_mb.is_finite() && self.max_mb >= 1.0) {
            return Err(Error::option("max_mb", self.max_mb, "megabytes, at least 1"));
        }
        Ok(())
    }

    /// How much is drawn: in proportion to the size of the page.
    fn sizes(&self) -> Sizes {
        let share = (self.max_mb / MAX_MB).min(8.0);
        let of = |n: f64, least: usize| ((n * share) as usize).max(least);
        Sizes {
            browse: of(600.0, 40),
            edge: of(18.0, 6).min(60),
            clusters: of(48.0, 4),
            of_cluster: 6,
            groups: of(30.0, 4),
            of_group: 4,
            failures: of(12.0, 3).min(48),
            captions: of(60.0, 6),
            rescued: of(24.0, 6),
        }
    }
}

/// What a report is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportStage {
    /// Reading the ledger: shards.
    Ledger,
    /// Reading pictures: shards.
    Pictures,
}

tldr_loader::names!(ReportStage { Ledger => "ledger", Pictures => "pictures" });

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSummary {
    /// Samples of the recording.
    pub samples: u64,
    /// Of these, kept ones; usable ones where nothing decides.
    pub kept: u64,
    /// Samples that are shown.
    pub shown: usize,
    /// Of these, those with a picture.
    pub pictures: usize,
    /// Bytes of the page.
    pub bytes: u64,
    /// The data of the page.
    pub json: PathBuf,
    /// The pairs of near-duplicates that were sampled.
    pub pairs: PathBuf,
}

/// Runs the job; a `scorer` that is given scores sampled pictures anew, with their own captions and with others'.
/// `progress(stage, done, total)` is called on this thread.
///
/// # Errors
/// Options by name; as [`Decisions::open`]; sources that cannot be listed, or none of whose shards is in the ledger; files
/// that cannot be written. A shard that cannot be read costs its samples their pictures.
pub fn report(
    job: &ReportJob,
    scorer: Option<&mut dyn Scorer>,
    progress: &mut dyn FnMut(ReportStage, u64, u64) -> Result<()>,
) -> Result<ReportSummary> {
    job.check()?;
    let decisions = Decisions::open(&job.decisions, &mut |done, of| progress(ReportStage::Ledger, done, of))?;
    let mut shards = pictures::Shards::default();
    for source in &job.sources {
        let own = pictures::Shards::of(source)?;
        if !decisions.shards().any(|shard| own.contains(shard)) {
            let accepted = "shards that the ledger has, of the same source name and file names";
            return Err(Error::option("sources", source.urls.join(", "), accepted));
        }
        shards.extend(own);
    }
    let assembled = assemble::assemble(job, &decisions, &shards, scorer, progress)?;
    let beside = |ending: &str| job.out.with_extension(ending);
    let (json, pairs) = (beside("json"), beside("pairs.parquet"));
    let limit = (job.max_mb * 1e6) as usize;
    let mut page = String::new();
    let mut model = assembled.model;
    for quality in QUALITIES {
        model.tiles.quality = quality;
        page = page::page(&model, &sprites::sheets(&assembled.tiles.iter().collect::<Vec<_>>(), quality)?)?;
        if page.len() <= limit {
            break;
        }
    }
    if page.len() > limit {
        let least = format!(
            "at least {:.1}: the page has {} samples and their captions",
            page.len() as f64 / 1e6,
            model.samples.len()
        );
        return Err(Error::option("max_mb", job.max_mb, least));
    }
    write(&job.out, page.as_bytes())?;
    write(&json, &page::json(&model)?)?;
    write_pairs(&pairs, &assembled.pairs)?;
    Ok(ReportSummary {
        samples: model.funnel.read,
        kept: model.funnel.kept,
        shown: model.samples.len(),
        pictures: assembled.tiles.len(),
        bytes: page.len() as u64,
        json,
        pairs,
    })
}

/// Fails where sources are read otherwise than when a plan was made; `made` identifies how that was. Sources that differ
/// among each other are taken as they are.
fn check_reading(config: &Config, plan: &Path, made: u64) -> Result<()> {
    let decode = config.images.decode();
    let mut readings = vec![];
    for source in &config.sources {
        readings.push(reading_fingerprint(&source.open()?, &decode));
    }
    match readings.first() {
        Some(first) if readings.iter().all(|own| own == first) && *first != made => {
            let accepted = "a plan that was made with these caption_key, caption_choice, where, subset, captions, scores and \
                            images: give those it was made with, or plan again";
            Err(Error::option("plan", format!("{:?}", plan.display()), accepted))
        }
        _ => Ok(()),
    }
}

/// Fails where `fuse` names a table of captions that no source has.
fn check_fuse(config: &Config) -> Result<()> {
    let fuse = &config.captions.fuse;
    let has = |name: &str| config.sources.iter().any(|source| source.captions.0.contains_key(name));
    match fuse.tables().into_iter().find(|name| !has(name)) {
        Some(name) => {
            let accepted = format!("the names of tables in captions of the sources: {name:?} is none");
            Err(Error::option("fuse", fuse, accepted))
        }
        None => Ok(()),
    }
}

fn write(out: &Path, content: &[u8]) -> Result<()> {
    aside::write(out, content).map_err(|error| Error::io(format!("write {}", out.display()), error))
}
