//! What a batch says of its rows, beside its arrays.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::Result;
use crate::loader::kept::Kept;
use crate::sample::SampleId;

/// Declares [`Rows`]: each column with its doc, its type, and what it is of a kept sample.
macro_rules! columns {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = $of:expr;)*) => {
        /// What is known of the rows of a batch. All vectors have one entry per row.
        #[derive(Debug)]
        pub struct Rows {
            $($(#[doc = $doc])* pub $name: Vec<$type>,)*
        }

        impl Rows {
            pub(super) fn with_capacity(rows: usize) -> Self {
                Self { $($name: Vec::with_capacity(rows)),* }
            }

            /// Adds the row of a kept sample.
            ///
            /// # Errors
            /// Its json waits in a file, and cannot be read back.
            pub(super) fn push(&mut self, kept: &Kept) -> Result<()> {
                $(
                    let of: fn(&Kept) -> Result<$type> = $of;
                    self.$name.push(of(kept)?);
                )*
                Ok(())
            }
        }
    };
}

columns! {
    /// Identities.
    ids: SampleId = |kept| Ok(kept.sample.id);
    /// WebDataset keys.
    keys: Arc<str> = |kept| Ok(Arc::clone(&kept.sample.key));
    /// The json members, as stored.
    json: Option<Vec<u8>> = |kept| kept.json.as_ref().map(|json| json.bytes().map(Cow::into_owned)).transpose();
    /// Clusters; `None` where no captioner ran.
    clusters: Option<u32> = |kept| Ok(kept.cluster);
    /// Alignment quantiles of image and original caption; `None` where no captioner ran.
    alignment: Option<f32> = |kept| Ok(kept.alignment);
    /// Probabilities of inclusion, given gate and dedup; `None` where the priority depends on the
    /// sample or nothing was selected.
    pi: Option<f32> = |kept| Ok(kept.pi);
    /// Original captions.
    original: String = |kept| Ok(kept.sample.caption.clone());
    /// Generated captions, where one was needed.
    generated: Option<Arc<str>> = |kept| Ok(kept.generated.clone());
    /// What the judge says of the generated captions, in [0, 1]; `None` where it was not asked.
    judged: Option<f32> = |kept| Ok(kept.judged);
    /// Whether the gate dropped the sample and its generated caption brought it back.
    rescued: bool = |kept| Ok(kept.rescued);
}
