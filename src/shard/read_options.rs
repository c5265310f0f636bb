//! How samples are made of members, and joined with tables.

use std::sync::Arc;

use crate::options::text_settings;
use crate::shard::join::JoinBy;
use crate::shard::{CaptionTable, CaptionTables, Filter, ScoreTables, Share, Subset};

/// Which caption a sample has where there are several: a list in its json, in the Parquet file beside its shard or in a
/// table of captions, or several members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptionChoice {
    /// The first.
    First,
    /// One that is drawn for each sample and epoch. Scorers see the first, so that signals do not depend on the epoch.
    Random,
    /// All of them as one text.
    All,
}

crate::names!(
    CaptionChoice { First => "first", Random => "random", All => "all" },
    option "caption_choice", "one of first, random, all"
);

text_settings! {
    CaptionChoice: "Literal['first', 'random', 'all']", "one of first, random, all";
}

/// How samples are made of members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Name of a table of [`captions`](Self::captions) that holds the caption, or field of the json member that does; where it is absent or null, the column of
    /// that name in the Parquet file beside the shard ([`ShardMetadata`](crate::shard::ShardMetadata));
    /// where that has none either, the `.txt` or `.caption` member is used, as it is when this is
    /// `None`.
    pub caption_key: Option<String>,
    /// Which caption counts of several; `None` is the first, with a warning.
    pub caption_choice: Option<CaptionChoice>,
    /// Samples whose metadata (fields of the json member; where those are absent or null, columns of
    /// the Parquet file beside the shard) do not pass come out as
    /// [`Excluded`](crate::error::FailReason::Excluded).
    pub filter: Option<Filter>,
    /// Samples that it does not name come out as `Excluded` too, whatever else is wrong with them.
    pub subset: Option<Arc<Subset>>,
    /// Samples that are not in this share of the corpus come out as `Excluded` too, unread.
    pub share: Option<Share>,
    /// Other captions of the samples, by name.
    pub captions: Option<Arc<CaptionTables>>,
    /// Tables of scores: their columns count as fields of the samples, before those of the same name.
    pub scores: Option<Arc<ScoreTables>>,
    /// Column of a table of scores, field of the json member, or column of the Parquet file beside the shard, that holds a sample's
    /// [score](crate::Sample::score). It says nothing about which samples can be used.
    pub score_field: Option<String>,
    /// Fields and columns whose values come along with the samples.
    pub fields: Arc<[String]>,
}

impl ReadOptions {
    /// The table of captions that `caption_key` names, where it names one.
    pub(crate) fn caption_table(&self) -> Option<&Arc<CaptionTable>> {
        self.captions.as_ref()?.of(self.caption_key.as_deref()?)
    }

    /// Whether a table is joined by uids, which are fields of the samples.
    pub(crate) fn needs_uid(&self) -> bool {
        self.subset.as_ref().is_some_and(|subset| subset.by() == JoinBy::Uid)
            || self.captions.as_ref().is_some_and(|captions| captions.needs_uid())
            || self.scores.as_ref().is_some_and(|scores| scores.needs_uid())
    }

    /// Whether `name` is a column of a table of scores.
    fn is_column(&self, name: &str) -> bool {
        self.scores.as_ref().is_some_and(|scores| scores.column(name).is_some())
    }

    /// Fingerprints of what tables say of which samples there are and of their captions, by option. Other captions and
    /// scores leave what is read of a sample as it is, and what is recorded of it valid.
    pub(crate) fn tables(&self) -> Vec<(&'static str, u64)> {
        let subset = self.subset.iter().map(|subset| ("subset", subset.fingerprint()));
        let captions = self.caption_table().map(|captions| ("captions", captions.fingerprint()));
        let scores = self.scores.iter().flat_map(|scores| {
            let of_filter = self.filter.iter().flat_map(|filter| filter.columns());
            of_filter.filter_map(|name| Some(("scores", scores.fingerprint(scores.column(name)?))))
        });
        subset.chain(captions).chain(scores).collect()
    }

    /// Identifies the scores that samples have, where those are of a table; else 0.
    pub(crate) fn score_fingerprint(&self) -> u64 {
        let of = |scores: &Arc<ScoreTables>| {
            Some(scores.fingerprint(scores.column(self.score_field.as_deref()?)?))
        };
        self.scores.as_ref().and_then(of).unwrap_or_default()
    }

    /// Whether the Parquet file beside a shard may tell which samples can be used, or their captions.
    pub(crate) fn looks_beside(&self) -> bool {
        let (columns, fields): (Vec<&String>, Vec<&String>) =
            self.filter.iter().flat_map(|filter| filter.columns()).partition(|name| self.is_column(name));
        let by_uid = self.subset.as_ref().is_some_and(|subset| subset.by() == JoinBy::Uid)
            || self.caption_table().is_some_and(|captions| captions.by() == JoinBy::Uid)
            || !columns.is_empty() && self.scores.as_ref().is_some_and(|scores| scores.needs_uid());
        let by_caption = self.caption_key.is_some() && self.caption_table().is_none();
        by_caption || by_uid || !fields.is_empty()
    }

    /// What excludes samples, in words: the options and their values; empty where nothing does.
    pub(crate) fn excluded_by(&self) -> String {
        let filter = self.filter.as_ref().map(|filter| format!("where = {:?}", filter.to_string()));
        let subset = self.subset.as_ref();
        let subset = subset.map(|s| format!("the subset of {} entries by {}", s.len(), s.by()));
        let share = self.share.map(|_| "the share that validation holds out".to_owned());
        filter.into_iter().chain(subset).chain(share).collect::<Vec<_>>().join(" or ")
    }

    /// Whether samples are joined with a table.
    pub fn has_tables(&self) -> bool {
        self.subset.is_some() || self.captions.is_some() || self.scores.is_some()
    }

    /// Whether all samples of a corpus count.
    pub(crate) fn takes_all(&self) -> bool {
        self.filter.is_none() && self.subset.is_none() && self.share.is_none()
    }
}
