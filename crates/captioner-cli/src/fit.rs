//! `tldr-loader fit`: fits a captioner to a corpus.

use std::path::PathBuf;

use tldr_captioner::DecodeFrom;
use tldr_captioner::jobs::{FitJob, fit};
use tldr_loader::Result;
use tldr_loader::cluster::{AlignmentNorm, Features, GateWorth};

use tldr_cli::Progress;
use tldr_cli::Sources;
use tldr_cli::counted;
use tldr_cli::say;

/// Find the clusters of a corpus, their shares and the alignment quantiles.
///
/// Writes clusters.safetensors into the captioner directory; a loader can then use it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Captioner directory, as `train` or `load` writes it
    #[arg(long, value_name = "DIR")]
    captioner: PathBuf,
    /// Number of clusters; a hundredth of the points, from 8 to 3,000, by default
    #[arg(long)]
    clusters: Option<usize>,
    /// Points to sample; all, up to 300,000, by default
    #[arg(long)]
    samples: Option<u64>,
    /// How raw alignments are made comparable: sum, mean or matched
    #[arg(long)]
    alignment_norm: Option<String>,
    /// What images are compared by: bag-of-codes, or raw-index (the public code's way, an ablation)
    #[arg(long, default_value = "bag-of-codes")]
    features: String,
    /// Codes to learn for a loaded BLIP; up to 3,000, one for 64 sampled patches, by default
    #[arg(long)]
    codes: Option<usize>,
    /// What the decoder attends to, for a loaded BLIP: raw or quantised patches
    #[arg(long)]
    decode_from: Option<String>,
    /// Seed of sampling and of initial centroids
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let mut job = FitJob::new(vec![], self.captioner);
        (job.source, job.decode) = self.sources.one()?;
        job.clusters = self.clusters;
        job.samples = self.samples;
        if let Some(name) = &self.alignment_norm {
            job.alignment_norm = AlignmentNorm::from_name(name)?;
        }
        job.features = Features::from_name(&self.features)?;
        job.codes = self.codes;
        job.decode_from = self.decode_from.as_deref().map(DecodeFrom::from_name).transpose()?;
        job.seed = self.seed;
        job.device = self.device;
        if job.source.lengths.is_none() {
            job.source.lengths = Some(counted(&job.source)?);
        }
        let bar = Progress::new("points");
        let summary = fit(&job, &mut |done, total| {
            bar.at(done, total);
            Ok(())
        })?;
        bar.finish();
        if let Some(codebook) = &summary.codebook {
            say!(
                "{}: {} codes from {} patches; reconstruction error {:.3} of the patches' variance",
                job.captioner.display(),
                codebook.codes,
                codebook.patches,
                codebook.error
            );
        }
        say!(
            "{}: {} clusters in {} runs from {} points in {:.1} s",
            job.captioner.display(),
            summary.clusters,
            summary.runs,
            summary.points,
            summary.seconds
        );
        match summary.directions {
            Some(directions) => say!("embeddings of {directions} values, learned from near-duplicates"),
            None => say!("embeddings are mean patches: too few images to learn what tells them apart"),
        }
        say!("{}", summary.report);
        say!("a gate of 0.5 passes, by source:");
        summary.pass_by_source.iter().for_each(|source| say!("{source}"));
        if summary.failed > 0 {
            say!("{} samples could not be used", summary.failed);
        }
        say!("gate: {}", GateWorth::sentence(summary.worth.as_ref()));
        say!("{}", summary.captions);
        say!("fingerprint {:016x}", summary.fingerprint);
        Ok(())
    }
}
