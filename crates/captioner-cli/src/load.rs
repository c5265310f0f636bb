//! `tldr-loader load`: makes a captioner or matcher directory of a Hugging Face BLIP.

use std::path::{Path, PathBuf};

use tldr_captioner::{BlipKind, BlipOptions, Captioner, Decoding, GenerationChange, Matcher, parse_device};
use tldr_loader::{Error, Result};

use tldr_cli::say;

/// Make a captioner of a Hugging Face BLIP captioning model, or a matcher of one for retrieval.
///
/// Reads config.json, model.safetensors and tokenizer.json or vocab.txt from a folder, as
/// save_pretrained writes it; nothing is downloaded and nothing unpickled. Run `fit` next on a
/// captioner. A matcher, of a BlipForImageTextRetrieval, scores captions: it is a loader's judge, or
/// with --matcher a captioner's measure of alignment. It takes no options of captions.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
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
    /// How captions are written: greedy, beam (the default) or nucleus
    #[arg(long)]
    decoding: Option<String>,
    /// Captions that grow side by side, for beam; 3 by default
    #[arg(long)]
    beams: Option<usize>,
    /// Above 0 longer captions win more often, for beam; 1 by default
    #[arg(long)]
    length_penalty: Option<f64>,
    /// Probability of the tokens that are drawn from, for nucleus; 0.9 by default
    #[arg(long)]
    top_p: Option<f64>,
    /// Divides the logits before drawing, for nucleus; 1 by default
    #[arg(long)]
    temperature: Option<f64>,
    /// Seed of what is drawn, for nucleus; 0 by default
    #[arg(long)]
    seed: Option<u64>,
    /// cpu, cuda or cuda:N: where the model is checked; what is written is the same
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Fewest tokens of a caption; 5 by default
    #[arg(long)]
    min_tokens: Option<usize>,
    /// Most tokens of a caption; 20 by default
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Text that every caption goes on from
    #[arg(long)]
    prompt: Option<String>,
    /// Above 1 words are repeated less; 1 by default
    #[arg(long)]
    repetition_penalty: Option<f64>,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let change = GenerationChange {
            batch_size: Some(self.batch_size),
            min_tokens: self.min_tokens,
            max_tokens: self.max_tokens,
            decoding: self.decoding.as_deref().map(Decoding::from_name).transpose()?,
            beams: self.beams,
            length_penalty: self.length_penalty,
            top_p: self.top_p,
            temperature: self.temperature,
            seed: self.seed,
            prompt: self.prompt,
            repetition_penalty: self.repetition_penalty,
        };
        let sets_captions =
            change != GenerationChange { batch_size: change.batch_size, ..Default::default() };
        let generation = change.apply(BlipOptions::default().generation)?;
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
                let accepted = "beside a DIR that is a BLIP for retrieval itself";
                return Err(Error::unused("matcher", matcher.display(), accepted));
            }
            if sets_captions {
                let accepted = "a BLIP that writes captions, for the options of captions to have an effect: this \
                                one is for retrieval";
                return Err(Error::option("dir", self.dir.display(), accepted));
            }
            let matcher = Matcher::load_blip(&self.dir, &options, device)?;
            matcher.save(&self.out)?;
            say!(
                "{}: a matcher of {} weights, previews of {} pixels; next: a loader with judge={}",
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
