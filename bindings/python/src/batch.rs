//! `Batch`: what the training loop gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyTuple};
use serde_json::Value;
use tldr_loader::Error;
use tldr_python::{errors, plain};

use crate::frame::{Arrays, Frame};

/// One batch of kept samples on one rank; unpacks as `images, tokens`.
///
/// Lists have one entry per row and are made on access.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Batch {
    /// Pixels, `[batch, 3, image_size, image_size]`, in the type of `pixels`.
    #[pyo3(get)]
    images: Py<PyAny>,
    /// Token ids of `captions`, int64 `[batch, context_length]`; `None` without a tokenizer.
    #[pyo3(get)]
    tokens: Option<Py<PyAny>>,
    /// 1 / pi, float32 `[batch]`, where `weights` was asked for.
    ///
    /// 1 where nothing was selected, 0 where a row is not `valid`.
    #[pyo3(get)]
    weights: Option<Py<PyAny>>,
    /// Which rows are a sample's own, and the tensor of it once somebody has asked.
    valid: Vec<bool>,
    valid_tensor: PyOnceLock<Py<PyAny>>,
    frame: Arc<Frame>,
    validity: Arc<Validity>,
    /// Its arrays were moved out: an empty batch of memory, with everything else.
    rest: tldr_loader::loader::Batch,
}

/// What is known of how a loader's batches are used: whoever looks at `valid` knows of rows that are not real.
#[derive(Debug, Default)]
pub(crate) struct Validity {
    /// Whether `valid` of any batch was read.
    read: AtomicBool,
    /// Whether it was said that it should be.
    told: AtomicBool,
}

impl Batch {
    /// Takes a batch over, whose arrays were moved out.
    pub(crate) fn new(
        arrays: Arrays,
        batch: tldr_loader::loader::Batch,
        frame: &Arc<Frame>,
        validity: &Arc<Validity>,
    ) -> Self {
        Self {
            images: arrays.images,
            tokens: arrays.tokens,
            weights: arrays.weights,
            valid: batch.valid.as_slice().to_vec(),
            valid_tensor: PyOnceLock::new(),
            frame: Arc::clone(frame),
            validity: Arc::clone(validity),
            rest: batch,
        }
    }
}

#[pymethods]
impl Batch {
    /// Epoch, from 0.
    #[getter]
    fn epoch(&self) -> u64 {
        self.rest.epoch
    }

    /// Index of the batch in its epoch, from 0.
    #[getter]
    fn step(&self) -> u64 {
        self.rest.step
    }

    /// Whether a row is a sample's own, bool `[batch]`.
    ///
    /// Always true but in mode `eval` on several ranks, where rows that are not real repeat samples of the
    /// rank, or are blank where it has none: leave them out of what is summed.
    #[getter]
    fn valid(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.validity.read.store(true, Ordering::Relaxed);
        let tensor = self.valid_tensor.get_or_try_init(py, || self.frame.column(py, self.valid.clone()))?;
        Ok(tensor.clone_ref(py))
    }

    /// Identities: 64-bit hashes of source, shard and key.
    #[getter]
    fn ids(&self) -> Vec<u64> {
        self.rest.ids.iter().map(|id| id.0).collect()
    }

    /// WebDataset keys.
    #[getter]
    fn keys(&self) -> Vec<&str> {
        self.rest.keys.iter().map(|k| &**k).collect()
    }

    /// The json members, as stored.
    #[getter]
    fn json<'py>(&self, py: Python<'py>) -> Vec<Option<Bound<'py, PyBytes>>> {
        self.rest.json.iter().map(|j| j.as_deref().map(|bytes| PyBytes::new(py, bytes))).collect()
    }

    /// Clusters; `None` where no captioner ran.
    #[getter]
    fn clusters(&self) -> Vec<Option<u32>> {
        self.rest.clusters.clone()
    }

    /// Alignment of image and original caption as a quantile of the corpus.
    #[getter]
    fn alignment(&self) -> Vec<Option<f32>> {
        self.rest.alignment.clone()
    }

    /// Probability of inclusion, given gate and dedup; `None` where it depends on the sample.
    #[getter]
    fn pi(&self) -> Vec<Option<f32>> {
        self.rest.pi.clone()
    }

    /// What the tables of `scores` say of the rows: float32 `[batch]` by column, `nan` for nothing.
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let scores = PyDict::new(py);
        for (name, values) in &self.rest.scores {
            scores.set_item(&**name, self.frame.column(py, values.clone())?)?;
        }
        Ok(scores)
    }

    /// Values of the `fields` that were asked for, `[batch]` by name.
    ///
    /// int64 where every row of the batch has a whole number, float64 where every row has a number or
    /// nothing (`nan`), else a list of what the rows have, `None` where they have nothing.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        for (name, values) in &self.rest.fields {
            let whole: Option<Vec<i64>> = values.iter().map(Value::as_i64).collect();
            let number = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
            let numbers = || values.iter().map(number).collect::<Option<Vec<f64>>>();
            let is_any = values.iter().any(Value::is_number);
            let column = match (whole, numbers().filter(|_| is_any)) {
                (Some(whole), _) => self.frame.column(py, whole)?.into_bound(py),
                (None, Some(numbers)) => self.frame.column(py, numbers)?.into_bound(py),
                (None, None) => plain::to_python(py, &Value::Array(values.clone()))?,
            };
            fields.set_item(&**name, column)?;
        }
        Ok(fields)
    }

    /// Fingerprint of what decided which samples are here, as in the loader's state.
    #[getter]
    fn policy(&self) -> u64 {
        self.rest.policy
    }

    /// Original captions.
    #[getter]
    fn original(&self) -> Vec<&str> {
        self.rest.original.iter().map(String::as_str).collect()
    }

    /// Generated captions, where one was needed.
    #[getter]
    fn generated(&self) -> Vec<Option<&str>> {
        self.rest.generated.iter().map(Option::as_deref).collect()
    }

    /// What the judge says of the generated captions, in [0, 1]; `None` where it was not asked.
    #[getter]
    fn judged(&self) -> Vec<Option<f32>> {
        self.rest.judged.clone()
    }

    /// Whether the gate dropped the sample and its generated caption brought it back.
    #[getter]
    fn rescued(&self) -> Vec<bool> {
        self.rest.rescued.clone()
    }

    /// The captions to train on, as `fuse` makes them.
    #[getter]
    fn captions(&self) -> Vec<&str> {
        self.rest.captions.iter().map(String::as_str).collect()
    }

    fn __len__(&self) -> usize {
        self.rest.len()
    }

    /// Yields images and tokens.
    ///
    /// Warns, once a loader, where rows are not real and nobody has looked at `valid`.
    ///
    /// Raises:
    ///     ConfigError: The loader has no tokenizer.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let Some(tokens) = &self.tokens else {
            let accepted = "a tokenizer, for batches to unpack as `images, tokens`; \
                            without one use `batch.images` and `batch.captions`";
            return Err(errors::to_python(py, &Error::option("tokenizer", "None", accepted)));
        };
        let known = !self.valid.contains(&false) || self.validity.read.load(Ordering::Relaxed);
        if !known && !self.validity.told.swap(true, Ordering::Relaxed) {
            let text = c"rows of this batch are not real: they make the batches of every rank as many and as long as the \
                         others', and count twice where they are summed; leave out rows where batch.valid is False";
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), text, 1)?;
        }
        PyTuple::new(py, [&self.images, tokens])?.try_iter()
    }

    fn __repr__(&self) -> String {
        format!("Batch(epoch={}, step={}, samples={})", self.rest.epoch, self.rest.step, self.__len__())
    }
}
