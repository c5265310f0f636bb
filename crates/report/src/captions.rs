//! What captions became: the one that a kept sample is trained on in epoch 0, as far as ledger and tables say.

use tldr_loader::SampleId;
use tldr_loader::config::Captions;
use tldr_loader::jobs::Explained;
use tldr_loader::loader::Moment;
use tldr_loader::shard::CaptionChoice;
use tldr_loader::text::{Chosen, Evidence, Fuse, Tokenizer, is_repetitive};

use crate::looked::Looked;

/// A caption that is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trained {
    /// What the model sees of it; all of it, where no tokenizer is known.
    pub(crate) text: String,
    /// What the tokenizer cuts off.
    pub(crate) cut: String,
}

/// Says which caption kept samples are trained on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Training<'a> {
    pub(crate) captions: &'a Captions,
    pub(crate) tokenizer: Option<&'a Tokenizer>,
    /// Seed of the loader.
    pub(crate) seed: u64,
}

impl Training<'_> {
    /// Whether captions are drawn anew in every epoch; `choice` says how one of several is chosen.
    pub(crate) fn changes(&self, mut choices: impl Iterator<Item = Option<CaptionChoice>>) -> bool {
        matches!(self.captions.fuse, Fuse::Coin { .. } | Fuse::Mix(_) | Fuse::Gated { .. })
            || choices.any(|choice| choice == Some(CaptionChoice::Random))
    }

    /// The caption that a sample is trained on in epoch 0; `None` of one that is not kept, and where it takes a caption or a
    /// judge's score that the ledger lacks.
    pub(crate) fn caption(&self, Looked { explained, seen }: &Looked) -> Option<Trained> {
        let original = seen.original.as_deref().filter(|_| explained.outcome == "kept")?;
        let generated = explained.caption.as_deref().filter(|caption| self.is_usable(caption));
        if let Some(generated) = generated.filter(|_| explained.rescued) {
            // It is there for the sake of this caption.
            return Some(self.cut(generated.trim().to_owned()));
        }
        let fuse = &self.captions.fuse;
        let evidence = self.evidence(explained);
        let of_table = |table: &str| seen.of_tables.get(table).map(String::as_str);
        let other = match fuse.chosen(&evidence, &|table| of_table(table).is_some()) {
            Chosen::Original => None,
            // What the ledger lacks is made by the loader that needs it.
            Chosen::Generated if explained.caption.is_none() => return None,
            Chosen::Generated if fuse.needs_judge() && generated.is_some() && evidence.judged.is_none() => {
                return None;
            }
            Chosen::Generated => generated,
            Chosen::Table(table) => of_table(table),
        };
        Some(self.cut(fuse.fuse(self.tokenizer, self.captions.context_length, original, other, &evidence)))
    }

    fn evidence(&self, explained: &Explained) -> Evidence {
        let draw = Moment::new(self.seed, 0, SampleId(explained.id)).draw();
        Evidence { alignment: explained.alignment, judged: explained.judged, draw, epoch: 0 }
    }

    /// Divides a caption where the tokenizer cuts it.
    fn cut(&self, mut text: String) -> Trained {
        let Some(tokenizer) = self.tokenizer else { return Trained { text, cut: String::new() } };
        let room = self.captions.context_length.saturating_sub(tokenizer.added());
        let cut = text.split_off(tokenizer.truncate(&text, room).len());
        Trained { text, cut }
    }

    /// Whether a generated caption says something: others give way to the original.
    fn is_usable(&self, caption: &str) -> bool {
        !(caption.trim().is_empty() || self.captions.replace_repetitive && is_repetitive(caption))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokenizer() -> Tokenizer {
        let captions = ["a red square on a hill", "mostly red; mostly blue"];
        Tokenizer::train(captions.into_iter().cycle().take(20), 300).unwrap()
    }

    fn training(captions: &Captions) -> Training<'_> {
        Training { captions, tokenizer: None, seed: 3 }
    }

    #[test]
    fn what_is_drawn_anew_is_said() {
        let by = |fuse: &str, choice| {
            let captions = Captions { fuse: fuse.parse().unwrap(), ..Captions::default() };
            training(&captions).changes([None, choice].into_iter())
        };
        for (fuse, changes) in
            [("original", false), ("concat(4)", false), ("best(0.5)", false), ("coin", true)]
        {
            assert_eq!(by(fuse, Some(CaptionChoice::All)), changes, "{fuse}");
            assert!(by(fuse, Some(CaptionChoice::Random)), "{fuse}");
        }
        assert!(by("gated", None) && by("mix({original: 0.5, generated: 0.5})", None));
    }

    #[test]
    fn a_caption_is_cut_where_the_tokenizer_cuts_it() {
        let tokenizer = tokenizer();
        let captions = Captions { context_length: tokenizer.added() + 3, ..Captions::default() };
        let training = Training { tokenizer: Some(&tokenizer), ..training(&captions) };
        let whole = "a red square on a hill";
        let Trained { text, cut } = training.cut(whole.into());
        assert_eq!(format!("{text}{cut}"), whole);
        assert!(tokenizer.ids(&text).len() <= 3 && !text.is_empty() && !cut.is_empty());
        let short = training.cut("a red".into());
        assert_eq!((short.text.as_str(), short.cut.as_str()), ("a red", ""));
    }
}
