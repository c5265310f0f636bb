//! One corpus and how it is read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::options::{Field, Group, Refused, Setting, is_foreign};
use crate::shard::{
    self, CaptionChoice, CaptionTables, Filter, ReadOptions, ScoreTables, Shard, Store, Subset,
};
use crate::text::Fuse;

crate::group! {
    /// One corpus and how it is read.
    pub struct Source, fields of each source {
        /// Shards, one pattern or several: paths or URLs (`s3://`, `gs://`, `az://`, `hf://datasets/`, `http(s)://`) with
        /// `{00000..00331}` ranges, globs, folders, or `@FILE` that lists them. Tar files, or Parquet files with a
        /// column of images.
        Runtime urls: Vec<String> = vec![], own setter;
        /// Its name in the identity of its samples. Default: that of the folder that holds the shards.
        Runtime name: Option<String> = None, into String;
        /// Its share of the samples that are yielded, over the sum of all weights. Default: corpora without weights are
        /// read as one.
        Runtime weight: Option<f64> = None, own setter;
        /// Where the original caption is: the name of a table in `captions`, a field of the json member, or a column of the
        /// Parquet file beside the shard, each with a caption or a list of captions. A sample that has none there has that of
        /// its txt member. Default: the txt member; in Parquet files with images the column `caption`, `text` or `txt`.
        Reading caption_key: Option<String> = None, into String;
        /// Which caption a sample has where there are several (a list, or members like `0.txt` and `1.txt`): `first`,
        /// `random` (one that is drawn for each sample and epoch; a captioner sees the first) or `all` (as one text,
        /// between them "; "). Default: the first, with a warning.
        Reading caption_choice: Option<CaptionChoice> = None, some CaptionChoice;
        /// Which samples count, by columns of tables of `scores`, fields of their json or columns of the Parquet file beside
        /// the shard: a condition as in SQL, `NSFW = 'UNLIKELY' and width >= 200`. The others are excluded unseen, and no part of what keep_ratio is a
        /// share of. How many pass in each shard is counted when the loader is built: by the Parquet files beside the
        /// shards, else by one pass over their metadata (of local uncompressed shards only json is read). Default: all.
        Reading filter as "where": Option<Filter> = None, some Filter;
        /// A file that lists the samples that count: a `.parquet` or `.jsonl` with `uid` or `key` (or as `tldr-loader
        /// export` writes it), a `.txt` of one key a line, or DataComp's `.npy` of uids; or a pattern of its parts. The others are excluded. Default:
        /// all.
        Runtime subset: Option<PathBuf> = None, into PathBuf;
        /// Tables of other captions by name, `{"blip2": "captions.parquet"}`: each a `.parquet`, `.jsonl` or `.tsv` with
        /// `caption`, and `uid` or `key`, or a pattern of its parts. `fuse` chooses among them, the original and the generated caption by name;
        /// `caption_key` takes one for the original. Default: none.
        Runtime captions: CaptionFiles = CaptionFiles::default(), into CaptionFiles;
        /// Tables of scores, one or several: each a `.parquet`, `.jsonl` or structured `.npy` with `uid` or `key`, and columns
        /// of numbers, or a pattern of such files (`metadata/*.parquet`). Files with the same columns are parts of one
        /// table. `where` and `gate` know the columns by name, before fields of the same name, and batches carry them as
        /// `scores`. Default: none.
        Runtime scores: Vec<PathBuf> = vec![];
        /// Samples per shard, in the order of the list. Default: `sizes.json`, img2dataset's `_stats.json` or `.parquet`,
        /// or a scan.
        Runtime lengths: Option<Vec<u64>> = None, some Vec<u64>;
        /// How remote shards are read.
        Runtime store: Store = Store::default();
    }
}

impl Source {
    /// A corpus with the defaults.
    pub fn new(urls: Vec<String>) -> Self {
        Self { urls, ..Self::default() }
    }

    /// Which samples count, in words: what `where` and `subset` say; `None` where all do.
    pub fn conditions(&self) -> Option<String> {
        let filter = self.filter.as_ref().map(|filter| format!("where {filter}"));
        let subset = self.subset.as_ref().map(|path| format!("the subset {}", path.display()));
        let both: Vec<String> = [filter, subset].into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join(", or "))
    }

    /// Its shards that are there, and the names of local files that are missing, of patterns of which some are there.
    ///
    /// # Errors
    /// Those of [`list`](crate::shard::list).
    pub fn list_present(&self) -> crate::Result<(Vec<Shard>, Vec<String>)> {
        shard::list_present(&self.urls, self.name.as_deref(), &self.store)
    }

    /// Its shards.
    ///
    /// # Errors
    /// Those of [`list`](crate::shard::list).
    pub fn list(&self) -> crate::Result<Vec<Shard>> {
        shard::list(&self.urls, self.name.as_deref(), &self.store)
    }

    /// How samples are made of members; opens the tables.
    ///
    /// # Errors
    /// Those of [`Subset::open`], [`CaptionTables::open`] and [`ScoreTables::open`].
    pub fn open(&self) -> Result<ReadOptions> {
        let CaptionFiles(captions) = &self.captions;
        Ok(ReadOptions {
            caption_key: self.caption_key.clone(),
            caption_choice: self.caption_choice,
            filter: self.filter.clone(),
            subset: self.subset.as_ref().map(Subset::open).transpose()?.map(Arc::new),
            captions: (!captions.is_empty())
                .then(|| CaptionTables::open(captions))
                .transpose()?
                .map(Arc::new),
            scores: (!self.scores.is_empty())
                .then(|| ScoreTables::open(&self.scores))
                .transpose()?
                .map(Arc::new),
            ..ReadOptions::default()
        })
    }
}

/// Files with captions, by the name that they have in [`Fuse`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptionFiles(pub BTreeMap<String, PathBuf>);

impl<N: Into<String>, P: Into<PathBuf>, const COUNT: usize> From<[(N, P); COUNT]> for CaptionFiles {
    fn from(files: [(N, P); COUNT]) -> Self {
        Self(files.into_iter().map(|(name, path)| (name.into(), path.into())).collect())
    }
}

/// An object of paths by name, or the text `NAME=FILE`.
impl Setting for CaptionFiles {
    const ACCEPTED: &'static str =
        "files by name: {\"blip2\": \"captions.parquet\"}, or blip2=captions.parquet";
    const PYTHON: &'static str = "Mapping[str, str | os.PathLike[str]]";

    fn from_value(value: &Value) -> Option<Self> {
        Self::read(value).ok()
    }

    fn to_value(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, path)| (name.clone(), path.to_value())).collect())
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        let files = match value {
            Value::String(text) => match text.split_once('=') {
                Some((name, path)) => BTreeMap::from([(name.trim().to_owned(), PathBuf::from(path.trim()))]),
                None => {
                    let accepted =
                        format!("{}; `fuse` and `caption_key` know a table by its name", Self::ACCEPTED);
                    return Err(Error::option("captions", format!("{text:?}"), accepted).into());
                }
            },
            Value::Object(files) if !is_foreign(value) => {
                let file = |(name, path): (&String, &Value)| Some((name.clone(), PathBuf::from_value(path)?));
                files.iter().map(file).collect::<Option<_>>().ok_or(Refused::Type)?
            }
            _ => return Err(Refused::Type),
        };
        match files.keys().find(|name| !Fuse::is_name(name)) {
            None => Ok(Self(files)),
            Some(name) => {
                let accepted =
                    "a name of letters, digits, `_`, `-` and `.` that `fuse` has no other meaning for";
                Err(Error::option("captions", format!("{name:?}"), accepted).into())
            }
        }
    }
}

/// One corpus or several; a text, or a list of them, is one.
impl Setting for Vec<Source> {
    const ACCEPTED: &'static str = "a pattern of shards, a list of them, a Source, or a list of these";
    const PYTHON: &'static str = "Source | Sequence[Source]";
    const EACH: Option<(&'static str, &'static [Field])> = Some((Source::NAME, Source::FIELDS));

    fn from_value(value: &Value) -> Option<Self> {
        Self::read(value).ok()
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(Setting::to_value).collect())
    }

    fn read(value: &Value) -> Result<Self, Refused> {
        if let Some(urls) = Vec::<String>::from_value(value) {
            return Ok(if urls.is_empty() { vec![] } else { vec![Source::new(urls)] });
        }
        match value {
            Value::Array(sources) => sources.iter().map(read_source).collect(),
            _ => Ok(vec![read_source(value)?]),
        }
    }
}

fn read_source(value: &Value) -> Result<Source, Refused> {
    match Vec::<String>::from_value(value) {
        Some(urls) => Ok(Source::new(urls)),
        None => <Source as Setting>::read(value),
    }
}
