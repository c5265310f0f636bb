//! `tldr-loader synth`: writes a synthetic corpus.

use std::path::PathBuf;
use std::time::Instant;

use tldr_loader::{Error, Result};
use tldr_synth::{NoiseShares, SynthOptions, write_corpus};

use crate::progress::Progress;
use crate::say;

/// Draw a synthetic web-like corpus with ground truth, as WebDataset shards.
///
/// Writes DIR/train and a clean DIR/test, each with a sizes.json; the truth of each sample
/// stands in its json. The same options give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write to; its train and test folders must be empty or absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Training samples
    #[arg(long, default_value_t = SynthOptions::default().samples)]
    samples: u64,
    /// Training shards
    #[arg(long, default_value_t = SynthOptions::default().shards)]
    shards: u64,
    /// Clean test samples, whose captions are distinct and unseen (0: no test split)
    #[arg(long, default_value_t = SynthOptions::default().test_samples)]
    test_samples: u64,
    /// Side of the square images, in pixels
    #[arg(long, default_value_t = SynthOptions::default().size)]
    size: u32,
    /// Share of training captions that are noise
    #[arg(long, value_name = "SHARE", default_value_t = SynthOptions::default().misaligned)]
    misaligned: f64,
    /// Weights of the kinds of noise: caption of another scene, generic caption, one attribute
    /// wrong, caption of another scene of the same class
    #[arg(long, value_name = "SWAPPED,GENERIC,ATTRIBUTE,SAME-CLASS", value_delimiter = ',')]
    noise_shares: Option<Vec<f64>>,
    /// Near-duplicates of each scene (1: every scene once)
    #[arg(long, value_name = "N", default_value_t = SynthOptions::default().duplicates)]
    duplicates: u64,
    /// Exponent of Zipf's law for the classes (0: equally common)
    #[arg(long, value_name = "EXPONENT", default_value_t = SynthOptions::default().zipf)]
    zipf: f64,
    /// Seed of every random choice
    #[arg(long, default_value_t = SynthOptions::default().seed)]
    seed: u64,
    /// Threads that draw (0: one per core); they change nothing but the time
    #[arg(long, default_value_t = SynthOptions::default().threads)]
    threads: usize,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let noise = match self.noise_shares.as_deref() {
            None => NoiseShares::default(),
            Some(_) if self.misaligned == 0.0 => {
                let accepted = "with misaligned=0, where there is no noise";
                return Err(Error::unused("noise_shares", "given", accepted));
            }
            Some(&[swapped, generic, attribute, same_class]) => {
                NoiseShares { swapped, generic, attribute, same_class }
            }
            Some(others) => {
                let given = format!("{} weights", others.len());
                return Err(Error::option("noise_shares", given, "exactly four weights"));
            }
        };
        let options = SynthOptions {
            samples: self.samples,
            shards: self.shards,
            test_samples: self.test_samples,
            size: self.size,
            misaligned: self.misaligned,
            noise,
            duplicates: self.duplicates,
            zipf: self.zipf,
            seed: self.seed,
            threads: self.threads,
        };
        let bar = Progress::new("samples");
        let start = Instant::now();
        let summary = write_corpus(&self.out, &options, &mut |done, total| {
            bar.at(done, total);
        })?;
        bar.finish();
        say!(
            "{}: {} samples of {} scenes in {} shards, {} test samples, {:.1} MB, {:.1} s",
            self.out.display(),
            summary.samples,
            summary.scenes,
            summary.shards,
            summary.test_samples,
            summary.bytes as f64 / 1e6,
            start.elapsed().as_secs_f64()
        );
        let kinds: Vec<String> =
            summary.noise.iter().map(|(noise, count)| format!("{} {count}", noise.name())).collect();
        say!("noise: {}", kinds.join(", "));
        Ok(())
    }
}
