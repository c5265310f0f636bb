//! A scorer of the user's own, written in Python, that knows nothing of clusters and quantiles.
//!
//! What the object has to have is written down in `tldr_loader/_scorer_adapter.py`, which wraps whatever users give.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayView4};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tldr_loader::model::{Embedder, PreviewFilter, RawScores, Recaptioner};
use tldr_loader::text::Tokenizer;
use tldr_loader::{Result, SampleId};
use tldr_python::array::{Array, read, read_shaped};
use tldr_python::errors::OrRaise;

use crate::calls::{self, array, in_python};
use crate::tokens::tokenizer;

/// Such a scorer, with what does not change of it.
pub(crate) struct PythonEmbedder {
    scorer: Arc<Py<PyAny>>,
    preview_size: usize,
    preview_filter: PreviewFilter,
    batch_size: usize,
    fingerprint: u64,
    compute: String,
    is_exact: bool,
    finds_nearest: bool,
    /// Whether it wants to know what comes next.
    uploads: bool,
    /// Previews that Python has already, by their address here: of the next call, and of the one after it.
    held: Option<(usize, Py<Array>)>,
    awaited: Option<(usize, Py<Array>)>,
    captions: Option<(usize, u64)>,
    /// What makes token ids of captions, and how many of each.
    tokenizer: Option<(Tokenizer, usize)>,
}

impl PythonEmbedder {
    pub(crate) fn new(scorer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let filter: String = scorer.getattr("preview_filter")?.extract()?;
        let captions: Option<u64> = scorer.getattr("caption_fingerprint")?.extract()?;
        let batch_size = scorer.getattr("batch_size")?.extract()?;
        let tokens = scorer.getattr("tokens")?;
        let tokenizer = if tokens.is_none() { None } else { Some(tokenizer(&tokens)?) };
        Ok(Self {
            preview_size: scorer.getattr("preview_size")?.extract()?,
            preview_filter: PreviewFilter::from_name(&filter).or_raise(scorer.py())?,
            batch_size,
            fingerprint: scorer.getattr("fingerprint")?.extract()?,
            compute: scorer.getattr("compute")?.extract()?,
            is_exact: scorer.getattr("is_exact")?.extract()?,
            finds_nearest: scorer.getattr("finds_nearest")?.extract()?,
            uploads: scorer.getattr("uploads")?.extract()?,
            held: None,
            awaited: None,
            captions: captions.map(|fingerprint| (batch_size, fingerprint)),
            tokenizer,
            scorer: Arc::new(scorer.clone().unbind()),
        })
    }
}

/// Where previews lie: the loader does not move those that wait.
fn address(previews: ArrayView4<'_, u8>) -> usize {
    previews.as_ptr() as usize
}

impl PythonEmbedder {
    /// Previews as Python has them, which may know them already.
    fn previews<'py>(
        &mut self,
        py: Python<'py>,
        previews: ArrayView4<'_, u8>,
    ) -> PyResult<Bound<'py, Array>> {
        let held = std::mem::replace(&mut self.held, self.awaited.take());
        match held {
            Some((known, array)) if known == address(previews) => Ok(array.into_bound(py)),
            _ => array(py, previews),
        }
    }
}

impl Embedder for PythonEmbedder {
    fn preview_size(&self) -> usize {
        self.preview_size
    }

    fn preview_filter(&self) -> PreviewFilter {
        self.preview_filter
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn compute(&self) -> String {
        self.compute.clone()
    }

    fn is_exact(&self) -> bool {
        self.is_exact
    }

    fn score(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<RawScores> {
        let rows = captions.len();
        // Before Python's lock is taken.
        let ids = self.tokenizer.as_ref().map(|(tokenizer, context)| {
            Array::from_vec(tokenizer.encode_all(captions, *context), &[rows, *context])
        });
        in_python(|py| {
            let previews = self.previews(py, previews)?;
            let ids = ids.map(|ids| Bound::new(py, ids)).transpose()?;
            let found = self.scorer.bind(py).call_method1("score", (previews, captions.to_vec(), ids))?;
            let found = found.cast::<PyTuple>()?;
            let (embedding, shape) = read::<f32>("embedding", &found.get_item(0)?)?;
            let dim = if let [_, dim] = shape[..] { dim } else { 0 };
            let embedding = Array2::from_shape_vec((rows, dim), embedding).map_err(|_| {
                let expected = format!("embedding: shape [{rows}, dim] is expected, and this is {shape:?}");
                pyo3::exceptions::PyValueError::new_err(expected)
            })?;
            let cluster = found.get_item(2)?;
            let cluster = (!cluster.is_none()).then(|| read_shaped::<i64>("cluster", &cluster, &[rows]));
            let cluster = cluster.transpose()?.map(|numbers| {
                // Negative ones are beyond every cluster, too.
                numbers.into_iter().map(|number| u32::try_from(number).unwrap_or(u32::MAX)).collect()
            });
            Ok(RawScores {
                embedding,
                alignment: read_shaped("alignment", &found.get_item(1)?, &[rows])?,
                cluster,
            })
        })
    }

    fn expect(&mut self, next: ArrayView4<'_, u8>) -> Result<()> {
        if !self.uploads {
            return Ok(());
        }
        in_python(|py| {
            let array = array(py, next)?;
            self.scorer.bind(py).call_method1("expect", (&array,))?;
            self.awaited = Some((address(next), array.unbind()));
            Ok(())
        })
    }

    fn nearest(
        &mut self,
        points: ArrayView2<'_, f32>,
        centroids: ArrayView2<'_, f32>,
    ) -> Result<Option<(Vec<u32>, Vec<f32>)>> {
        if !self.finds_nearest {
            return Ok(None);
        }
        let rows = points.nrows();
        in_python(|py| {
            let array = |values: ArrayView2<'_, f32>| {
                Bound::new(py, Array::from_vec(values.iter().copied().collect(), values.shape()))
            };
            let found = self.scorer.bind(py).call_method1("nearest", (array(points)?, array(centroids)?))?;
            let found = found.cast::<PyTuple>()?;
            let numbers = read_shaped::<i64>("cluster", &found.get_item(0)?, &[rows])?;
            // Negative ones are beyond every cluster, too.
            let numbers =
                numbers.into_iter().map(|number| u32::try_from(number).unwrap_or(u32::MAX)).collect();
            Ok(Some((numbers, read_shaped("cosine", &found.get_item(1)?, &[rows])?)))
        })
    }

    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        self.captions.is_some().then_some(self)
    }
}

impl Recaptioner for PythonEmbedder {
    fn caption_batch_size(&self) -> usize {
        self.captions.map_or(1, |(rows, _)| rows)
    }

    fn caption_fingerprint(&self) -> u64 {
        self.captions.map_or(0, |(_, fingerprint)| fingerprint)
    }

    fn caption(&mut self, previews: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>> {
        let scorer = Arc::clone(&self.scorer);
        calls::caption(&scorer, |py| self.previews(py, previews), ids)
    }
}
