//! How samples are made of members.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::options::text_settings;
use crate::shard::join::JoinBy;
use crate::shard::{CaptionTable, Filter, Share, Subset};

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
    /// Field of the json member that holds the caption; where it is absent or null, the column of
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
    /// Captions that take the place of the samples' own, or serve where they have none.
    pub captions: Option<Arc<CaptionTable>>,
    /// Field of the json member, or column of the Parquet file beside the shard, that holds a sample's
    /// [score](crate::Sample::score). It says nothing about which samples can be used.
    pub score_field: Option<String>,
}

impl ReadOptions {
    /// The options as users give them; opens the tables.
    ///
    /// # Errors
    /// Those of [`Subset::open`] and [`CaptionTable::open`].
    pub fn open(
        caption_key: Option<String>,
        caption_choice: Option<CaptionChoice>,
        filter: Option<Filter>,
        subset: Option<&Path>,
        captions: Option<&Path>,
    ) -> Result<Self> {
        Ok(Self {
            caption_key,
            caption_choice,
            filter,
            subset: subset.map(Subset::open).transpose()?.map(Arc::new),
            captions: captions.map(CaptionTable::open).transpose()?.map(Arc::new),
            share: None,
            score_field: None,
        })
    }

    /// Whether the Parquet file beside a shard may tell which samples can be used, or their captions.
    pub(crate) fn looks_beside(&self) -> bool {
        let uid = Some(JoinBy::Uid);
        self.caption_key.is_some()
            || self.filter.is_some()
            || self.subset.as_ref().map(|subset| subset.by()) == uid
            || self.captions.as_ref().map(|captions| captions.by()) == uid
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
        self.subset.is_some() || self.captions.is_some()
    }

    /// Whether all samples of a corpus count.
    pub(crate) fn takes_all(&self) -> bool {
        self.filter.is_none() && self.subset.is_none() && self.share.is_none()
    }
}
