//! What a gate lets pass.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::options::{Call, show, text_settings};

/// Which samples pass, by the alignment of image and original caption or by a score that the corpus has. Written as
/// `top(0.5)`, `top(0.3, by=clip_similarity)`, `top(0.5, within=cluster)` or `at_least(0.28, by=clip_similarity)`.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    /// The best share of the samples.
    Top {
        /// In (0, 1]; 1 lets everything pass.
        share: f64,
        /// The score: a column of a table of scores, a field of the json member, or a column of the Parquet file beside the
        /// shard. `None`: the captioner's alignment.
        by: Option<String>,
        /// Of what the share is.
        within: Within,
    },
    /// Samples of this score or a higher one.
    AtLeast {
        /// The least score that passes.
        score: f64,
        /// As for [`Top`](Self::Top).
        by: Option<String>,
    },
}

/// Of what a gate lets its share pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Within {
    /// The corpus.
    #[default]
    Corpus,
    /// Each cluster (TL;DR's public code).
    Cluster,
}

crate::names!(Within { Corpus => "corpus", Cluster => "cluster" }, option "gate", "within=corpus or within=cluster");

/// What is accepted.
const ACCEPTED: &str = "top(SHARE) or at_least(SCORE), with by=FIELD for a score that the corpus has, or \
                        top(SHARE, within=cluster); top(1) lets everything pass";

impl Gate {
    /// The gate that lets everything pass.
    pub const OFF: Self = Self::Top { share: 1.0, by: None, within: Within::Corpus };

    /// The best `share`, in (0, 1], by alignment.
    pub fn top(share: f64) -> Self {
        Self::Top { share, by: None, within: Within::Corpus }
    }

    /// Samples whose score, [`by`](Self::by) a field, is this or higher.
    pub fn at_least(score: f64) -> Self {
        Self::AtLeast { score, by: None }
    }

    /// By a score of the corpus: the name of its field or column.
    #[must_use]
    pub fn by(mut self, field: impl Into<String>) -> Self {
        let (Self::Top { by, .. } | Self::AtLeast { by, .. }) = &mut self;
        *by = Some(field.into());
        self
    }

    /// A share of each cluster. [`AtLeast`](Self::AtLeast) has no share and stays as it is.
    #[must_use]
    pub fn within_cluster(mut self) -> Self {
        if let Self::Top { within, .. } = &mut self {
            *within = Within::Cluster;
        }
        self
    }

    /// The score of the corpus that it goes by; `None` where it goes by alignment.
    pub fn field(&self) -> Option<&str> {
        let (Self::Top { by, .. } | Self::AtLeast { by, .. }) = self;
        by.as_deref()
    }

    /// The share that passes; `None` where everything does, or what passes is said by a score.
    pub fn share(&self) -> Option<f64> {
        match self {
            Self::Top { share, .. } if *share < 1.0 => Some(*share),
            _ => None,
        }
    }

    /// Of what the share is.
    pub fn within(&self) -> Within {
        match self {
            Self::Top { within, .. } => *within,
            Self::AtLeast { .. } => Within::Corpus,
        }
    }

    /// Whether it drops samples by how the captioner aligns them, and not by a score that the corpus has.
    pub fn is_by_alignment(&self) -> bool {
        self.field().is_none() && self.share().is_some()
    }

    /// Fails where it cannot be meant.
    ///
    /// # Errors
    /// A share outside of (0, 1]; a score that is not a number, or that is of no field.
    pub fn check(&self) -> Result<()> {
        let refuse = |accepted: &str| Err(Error::option("gate", self, accepted));
        match self {
            Self::Top { share, .. } if !(*share > 0.0 && *share <= 1.0) => {
                refuse("top(SHARE) with a share in (0, 1]; top(1) lets everything pass")
            }
            Self::Top { by: Some(_), within: Within::Cluster, .. } => {
                refuse("within=corpus beside a score of the corpus, which knows no clusters")
            }
            Self::AtLeast { score, .. } if !score.is_finite() => refuse("at_least(SCORE) with a number"),
            Self::AtLeast { by: None, .. } => refuse(
                "at_least(SCORE, by=FIELD), a score that the corpus has; alignments are quantiles, of which top(SHARE) \
                 lets a share pass",
            ),
            _ => Ok(()),
        }
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn by(field: &Option<String>) -> (&'static str, Option<&dyn Display>) {
            ("by", field.as_ref().map(|field| field as &dyn Display))
        }
        let shown = match self {
            Self::Top { share, by: field, within } => {
                let within = (*within != Within::Corpus).then_some(within as &dyn Display);
                show("top", &[("", Some(share)), by(field), ("within", within)])
            }
            Self::AtLeast { score, by: field } => show("at_least", &[("", Some(score)), by(field)]),
        };
        f.write_str(&shown)
    }
}

impl FromStr for Gate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::option("gate", text, ACCEPTED);
        let mut call = Call::parse(text).ok_or_else(wrong)?;
        let number =
            |call: &mut Call, name: &str| call.take(name).and_then(|n| n.parse().ok()).ok_or_else(wrong);
        let gate = match call.name.as_str() {
            "top" => Self::Top {
                share: number(&mut call, "share")?,
                by: call.take_named("by"),
                within: call.take_named("within").map_or(Ok(Within::Corpus), |name| name.parse())?,
            },
            "at_least" | "atleast" => {
                Self::AtLeast { score: number(&mut call, "score")?, by: call.take_named("by") }
            }
            _ => return Err(wrong()),
        };
        if call.is_spent() { Ok(gate) } else { Err(wrong()) }
    }
}

text_settings! {
    Gate: "Top | AtLeast | str", ACCEPTED;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gates_are_read_as_they_are_written() {
        for text in [
            "top(0.5)",
            "top(1)",
            "top(0.5, within=cluster)",
            "top(0.3, by=similarity)",
            "at_least(0.28, by=clip_l14)",
            "at_least(-1.5, by=\"a, b\")",
        ] {
            assert_eq!(text.parse::<Gate>().unwrap().to_string(), text);
        }
        assert_eq!("Top(share=0.5)".parse::<Gate>().unwrap(), Gate::top(0.5));
        assert_eq!("AtLeast(0.28, by='x')".parse::<Gate>().unwrap(), Gate::at_least(0.28).by("x"));
        for wrong in [
            "0.5",
            "top",
            "top()",
            "top(x)",
            "top(0.5, 0.6)",
            "top(0.5, of=2)",
            "half(1)",
            "top(0.5, within=x)",
        ] {
            assert!(wrong.parse::<Gate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (gate, says) in [
            (Gate::top(0.0), "a share in (0, 1]"),
            (Gate::top(1.5), "a share in (0, 1]"),
            (Gate::top(f64::NAN), "a share in (0, 1]"),
            (Gate::at_least(0.3), "by=FIELD"),
            (Gate::at_least(f64::NAN).by("s"), "a number"),
            (Gate::top(0.5).by("s").within_cluster(), "within=corpus"),
        ] {
            let error = gate.check().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("invalid gate={gate}: expected ")) && error.contains(says),
                "{error}"
            );
        }
        for gate in
            [Gate::OFF, Gate::top(0.5).within_cluster(), Gate::at_least(-3.0).by("s"), Gate::OFF.by("s")]
        {
            gate.check().unwrap();
        }
    }
}
