//! Shards: tar files of image-text pairs, listed, measured, read and written.
//!
//! [`list`] turns what users write into [`Shard`]s, [`lengths`] counts their groups, [`Filter`],
//! [`Subset`] and [`Share`] say which of them count, [`CaptionTable`] brings other captions along, [`survey`] takes a sample,
//! [`ShardReader`] turns one shard into [`Sample`](crate::Sample)s, [`ShardMetadata`] reads what lies
//! beside it, [`ShardWriter`] writes one.
//! `store` is the one place that opens them; what lies in an object store or on an HTTP server is
//! read by `remote`.

use std::sync::Arc;

use crate::hash;
use crate::sample::SampleId;
use place::Place;

mod caption;
mod caption_table;
mod count;
mod fetch;
mod filter;
mod group;
mod index;
mod join;
mod lengths;
mod list;
mod local;
mod mark;
mod members;
mod metadata;
mod npy;
mod patterns;
mod place;
mod reader;
mod remote;
mod scan;
mod share;
mod store;
mod subset;
mod survey;
mod table;
mod writer;

pub(crate) use caption::{Gaps, OUTSIDE};
pub use caption_table::CaptionTable;
pub(crate) use count::{Count, count, of_selection};
pub use fetch::ShardFetcher;
pub use filter::Filter;
pub use group::Group;
pub use index::{MemberRange, ShardIndex};
pub use join::JoinBy;
pub use lengths::{lengths, listed};
pub use list::list;
pub(crate) use list::{check_endpoint, refuse_duplicates, shards_of, shown};
pub use metadata::ShardMetadata;
pub use place::Store;
pub use reader::{ReadOptions, ShardReader};
pub(crate) use remote::Bucket;
pub use share::Share;
pub use store::ShardFormat;
pub use subset::Subset;
pub(crate) use survey::survey_of;
pub use survey::{Survey, survey};
pub use writer::ShardWriter;

/// One shard of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Where it is: a local path, as the caller wrote it, or a URL (without its query, which may
    /// hold a signature).
    pub url: Arc<str>,
    /// Name of the source: by default the name of the folder that holds the shard.
    pub source: Arc<str>,
    /// Path below the source's root: the file name.
    pub path: Arc<str>,
    /// Hash of (source, path): [`SampleId::shard_hash`](crate::SampleId::shard_hash).
    pub hash: u64,
    pub(crate) place: Place,
}

impl Shard {
    /// The local file `path` of `source`.
    pub fn local(path: &str, source: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        Self {
            url: path.into(),
            source: source.into(),
            path: name.into(),
            hash: SampleId::shard_hash(source, name),
            place: Place::Local,
        }
    }

    /// What it is known by, with so many `samples` in it, where its source may have another name or the data may have
    /// moved, but not both: hashes of (source, path, samples) and of its URL, of a local file the absolute path. The
    /// number keeps apart what is called alike, as `train/00000.tar` is in many a corpus.
    pub fn marks(&self, samples: u64) -> [u64; 2] {
        let absolute = match self.place {
            Place::Local => std::path::absolute(&*self.url).ok(),
            Place::Remote(_) => None,
        };
        let url = absolute.map_or(hash::hash_str(&self.url), |path| hash::hash_str(&path.to_string_lossy()));
        [hash::combine(&[self.hash, samples]), url]
    }

    /// Whether one of its [marks](Self::marks) is among `marks`, which ascend.
    pub fn is_marked(&self, samples: u64, marks: &[u64]) -> bool {
        self.marks(samples).iter().any(|mark| marks.binary_search(mark).is_ok())
    }

    /// Its file name up to the first dot, which files that lie beside it share.
    fn stem(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }
}
