//! `tldr-loader load`: makes a captioner or matcher directory of a Hugging Face BLIP.

use std::path::{Path, PathBuf};

use tldr_loader::captioner::{
    BlipKind, BlipOptions, Captioner, Decoding, GenerationConfig, Matcher, parse_device,
};
use tldr_loader::{Error, Result};

use super::say;

/// Make a captioner of a Hugging Face BLIP captioning model, or a matcher of one for retrieval.
///
/// Reads config.json, model.safetensors and tokenizer.json or vocab.txt from a folder, as
/// save_pretrained writes it; nothing is downloaded and nothing unpickled. Run `fit` next on a
/// captioner. A matcher, of a BlipForImageTextRetrieval, scores captions: it is a loader's judge, or
/// with --matcher a captioner's measure of alignment. Options of captions do not touch it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the BLIP model
    dir: PathBuf,
    /// Captioner directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Side of the previews; the model's own by default, else its positions are interpolated
    #[arg(long)]
    preview_size: Option<usize>,
    /// Folder of a BLIP for image-text retrieval, which then measures alignment
    #[arg(long, value_name = "DIR")]
    matcher: Option<PathBuf>,
    /// Rows of every encode batch and caption batch
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// How captions are written: greedy, beam or nucleus
    #[arg(long, default_value = "beam")]
    decoding: String,
    /// Captions that grow side by side, for beam
    #[arg(long, default_value_t = 3)]
    beams: usize,
    /// Above 0 longer captions win more often, for beam
    #[arg(long, default_value_t = 1.0)]
    length_penalty: f64,
    /// Probability of the tokens that are drawn from, for nucleus
    #[arg(long, default_value_t = 0.9)]
    top_p: f64,
    /// Divides the logits before drawing, for nucleus
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Seed of what is drawn, for nucleus
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda or cuda:N: where the model is checked; what is written is the same
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Fewest tokens of a caption
    #[arg(long, default_value_t = 5)]
    min_tokens: usize,
    /// Most tokens of a caption
    #[arg(long, default_value_t = 20)]
    max_tokens: usize,
    /// Text that every caption goes on from
    #[arg(long, default_value = "")]
    prompt: String,
    /// Above 1 words are repeated less
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let generation = GenerationConfig {
            batch_size: self.batch_size,
            min_tokens: self.min_tokens,
            max_tokens: self.max_tokens,
            decoding: Decoding::from_name(&self.decoding)?,
            beams: self.beams,
            length_penalty: self.length_penalty,
            top_p: self.top_p,
            temperature: self.temperature,
            seed: self.seed,
            prompt: self.prompt,
            repetition_penalty: self.repetition_penalty,
        };
        generation.validate()?;
        // However the two are written: what is at `out` is replaced.
        let same = |a: &Path, b: &Path| {
            a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a))
        };
        if same(&self.out, &self.dir) {
            let accepted = "another folder than the model's, whose files it would replace";
            return Err(Error::option("out", self.out.display(), accepted));
        }
        let options =
            BlipOptions { preview_size: self.preview_size, batch_size: self.batch_size, generation };
        let device = parse_device(&self.device)?;
        if BlipKind::of(&self.dir)? == BlipKind::Matching {
            if let Some(matcher) = &self.matcher {
                let accepted = "left out: DIR is a BLIP for retrieval itself";
                return Err(Error::option("matcher", matcher.display(), accepted));
            }
            let matcher = Matcher::load_blip(&self.dir, &options, device)?;
            matcher.save(&self.out)?;
            say!(
                "{}: a matcher of {} weights, previews of {} pixels; next: a loader with judge = {}",
                self.out.display(),
                matcher.weights(),
                matcher.config().preview_size,
                self.out.display()
            );
            return Ok(());
        }
        let mut captioner = Captioner::load_blip(&self.dir, &options, device)?;
        if let Some(matcher) = &self.matcher {
            let preview_size = Some(captioner.config().preview_size);
            let options = BlipOptions { preview_size, ..options };
            captioner.set_matcher(Some(Matcher::load_blip(matcher, &options, device)?))?;
        }
        captioner.save(&self.out)?;
        say!(
            "{}: {} weights, previews of {} pixels, {} tokens; next: tldr-loader fit SHARDS --captioner {}",
            self.out.display(),
            captioner.weights(),
            captioner.config().preview_size,
            captioner.tokenizer().vocab_size(),
            self.out.display()
        );
        Ok(())
    }
}
