//! `Loader` and its iterator.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use tldr_loader::config::Config;
use tldr_loader::loader::LoaderState;
use tldr_loader::{ErrorKind, Result};
use tldr_python::errors::{self, OrRaise};
use tldr_python::given::{read, read_whole};
use tldr_python::interrupt::interruptible;
use tldr_python::values::sources;
use tldr_python::{log, plain};

use crate::batches::Batches;
use crate::frame::{self, Frame};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::ranks;
use crate::running::Running;

/// A stream of batches of kept samples, epoch after epoch. `_reference.py` gives it the text on its options.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Loader {
    running: Arc<Running>,
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(
        signature = (source, **options),
        text_signature = "(source, *, captioner=None, selection=None, captions=None, images=None, tokenizer=None, \
            batch_size=256, device='cpu', mode='reduced', seed=0, ledger=None, plan=None, samples_per_epoch=None, \
            fields=(), runtime=None, world=None)"
    )]
    fn new(py: Python<'_>, source: &Bound<'_, PyAny>, options: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let config = Config { sources: sources(source)?, ..Config::default() };
        Self::build(py, Options::read(config, options.as_ref())?)
    }

    /// A loader with the options of a TOML file; those that are given here go before.
    ///
    /// Args:
    ///     path: The file: options by name, groups as tables, sources as an array of tables.
    ///     options: As for `Loader`, and `source`. Of a group, the fields that differ from their defaults.
    ///
    /// Raises:
    ///     ConfigError: As `Loader`; an option that is not known.
    #[classmethod]
    #[pyo3(signature = (path, **options))]
    fn from_config(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        options: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let path: PathBuf = read("path", path)?;
        Self::build(py, Options::read(Config::load(path).or_raise(py)?, options.as_ref())?)
    }

    /// The batches of an epoch: of the current one, from its start or from where a loaded state left off.
    ///
    /// Nothing happens before the first batch is asked for; which epoch it is, and where it starts, is what
    /// holds then. With the first batch of all, where torch.distributed is initialised, the ranks compare their
    /// loaders.
    fn __iter__(&self) -> Batches {
        Batches::new(Arc::clone(&self.running))
    }

    fn __len__(&self) -> usize {
        self.running.loader().num_batches() as usize
    }

    /// Batches of the current epoch, the same on every rank; in mode `eval` as the lengths make.
    #[getter]
    fn num_batches(&self) -> u64 {
        self.running.loader().num_batches()
    }

    /// Batches of an epoch: epochs differ where `keep_ratio` is a schedule.
    fn num_batches_of(&self, epoch: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.running.loader().num_batches_of(read_whole("epoch", epoch)?))
    }

    /// Samples of the current epoch over all ranks.
    #[getter]
    fn num_samples(&self) -> u64 {
        self.running.loader().num_samples()
    }

    /// Number of token ids: rows that a text embedding needs; `None` without a tokenizer.
    #[getter]
    fn vocab_size(&self) -> Option<usize> {
        self.running.loader().vocab_size()
    }

    /// Samples per batch on this rank.
    #[getter]
    fn batch_size(&self) -> usize {
        self.running.loader().batch_size()
    }

    /// Rank of this process among those that share the corpus.
    ///
    /// `None` before the first batch where the environment has `WORLD_SIZE` and no `RANK`: the process group
    /// says it then.
    #[getter]
    fn rank(&self) -> Option<usize> {
        self.running.loader().rank()
    }

    /// Number of processes that share the corpus.
    #[getter]
    fn world_size(&self) -> usize {
        self.running.loader().world_size()
    }

    /// The loader itself: Lightning calls `loader.sampler.set_epoch` at the start of an epoch.
    #[getter]
    fn sampler(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    /// The epoch of the next batch: after the last batch of an epoch the next one.
    #[getter]
    fn epoch(&self) -> u64 {
        self.running.loader().epoch()
    }

    /// What the loader remembers of samples; pass it to another loader to re-use it.
    #[getter]
    fn ledger(&self) -> Ledger {
        Ledger(self.running.loader().ledger().clone())
    }

    /// Moves to the start of an epoch. Epochs are independent: no history is needed.
    ///
    /// Naming the epoch of a state that was just loaded keeps the place in it: iterating yields what is left,
    /// which is nothing where the state was saved after the last batch.
    fn set_epoch(&self, epoch: &Bound<'_, PyAny>) -> PyResult<()> {
        self.running.loader().set_epoch(read_whole("epoch", epoch)?);
        Ok(())
    }

    /// Where the loader stands: the batches handed over so far. The same on every rank.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.running.loader().state())?)
    }

    /// Moves to a saved state, of any world size with the same global batch and lanes.
    ///
    /// Iterating then yields exactly what the saved run had not yielded yet, which after the last batch of an
    /// epoch is the next one.
    ///
    /// Raises:
    ///     StateError: The state was saved by another configuration; lists every difference.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyAny>) -> PyResult<()> {
        let invalid = |detail: String| {
            let message = format!("not a state of a loader, as `state_dict` makes one: {detail}");
            errors::to_python(py, &ErrorKind::State(message).into())
        };
        let Ok(state_dict) = state_dict.cast::<PyDict>() else {
            return Err(invalid(format!("a dict is expected, and this is {}", state_dict.get_type())));
        };
        let fields = plain::from_python(state_dict).map_err(|e| invalid(e.to_string()))?;
        let state: LoaderState = serde_json::from_value(fields).map_err(|e| invalid(e.to_string()))?;
        self.running.loader().load_state(&state).or_raise(py)
    }

    /// Statistics of the epoch that was started last, on this rank: plain data, of the type `Stats`.
    ///
    /// It says what each is, and which seconds are wall-clock and which are summed over threads.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.running.loader().stats())?)
    }

    fn __repr__(&self) -> String {
        format!(
            "Loader(num_batches={}, batch_size={}, epoch={})",
            self.running.loader().num_batches(),
            self.running.loader().batch_size(),
            self.running.loader().epoch()
        )
    }
}

impl Loader {
    fn build(py: Python<'_>, options: Options) -> PyResult<Self> {
        let tensors = frame::tensors(py, &options.config.device)?;
        // As torch spells it: `cuda` is its current device.
        let device = tensors.as_ref().map_or(Ok(options.config.device.clone()), |tensors| {
            PyResult::Ok(tensors.getattr(py, "device")?.bind(py).str()?.to_string())
        })?;
        let mut builder = options.builder(py, device)?;
        if let Some((rank, world_size)) = ranks::group(py)? {
            builder = builder.process_group(rank, world_size);
        }
        let build = move |_: &mut dyn FnMut(()) -> Result<()>| builder.build();
        let loader = interruptible(py, "build", build, |()| Ok(()))?;
        log::hand_over(py)?;
        let frame = Arc::new(Frame::new(py, tensors, &loader)?);
        Ok(Self { running: Arc::new(Running::new(loader, frame)) })
    }
}
