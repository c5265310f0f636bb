//! Shards: tar files of image-text pairs, listed, measured, read and written.
//!
//! [`list`] turns what users write into [`Shard`]s, [`lengths`] counts their groups, [`Filter`],
//! [`Subset`] and [`Share`] say which of them count, [`CaptionTable`] and [`ScoreTable`] bring captions and scores along, [`survey`] takes a sample,
//! [`ShardReader`] turns one shard into [`Sample`](crate::Sample)s, [`ShardMetadata`] reads what lies
//! beside it, [`ShardWriter`] writes one.
//! `store` is the one place that opens them; what lies in an object store or on an HTTP server is
//! read by `remote`.

mod beside;
mod by_index;
mod caption;
mod caption_table;
mod count;
mod credentials;
mod filter;
mod foreign;
mod group;
mod index;
mod join;
mod join_table;
mod lengths;
mod list;
mod local;
mod location;
mod members;
mod metadata;
mod npy;
mod patterns;
mod read_options;
mod reader;
mod remote;
mod reread;
mod row_groups;
mod scan;
mod score_rows;
mod score_table;
mod share;
mod store;
mod store_checks;
mod store_options;
mod subset;
mod survey;
mod version;
mod writer;

pub use by_index::ShardFetcher;
pub(crate) use caption::{BETWEEN, Gaps, OUTSIDE};
pub use caption_table::{CaptionTable, CaptionTables};
pub(crate) use count::{Count, count, of_selection};
pub use credentials::{Headers, Token};
pub use filter::Filter;
pub use group::Group;
pub use index::{MemberRange, ShardIndex};
pub use join::JoinBy;
pub use lengths::{Listed, lengths, listed};
pub use list::{list, list_present};
pub(crate) use list::{refuse_duplicates, shards_of, shown};
pub use location::Shard;
pub use metadata::ShardMetadata;
pub use read_options::{CaptionChoice, ReadOptions};
pub use reader::{Reread, ShardReader};
pub(crate) use remote::Bucket;
pub use reread::reread;
pub use score_table::{ScoreTable, ScoreTables};
pub use share::Share;
pub use store::ShardFormat;
pub(crate) use store_checks::{check_stores, refuse_shared_secrets};
pub use store_options::Store;
pub use subset::Subset;
pub(crate) use survey::survey_of;
pub use survey::{Survey, survey};
pub use writer::ShardWriter;
