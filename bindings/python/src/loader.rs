//! `Loader` and its iterator.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tch::Device;
use tldr_loader::image::Normalize;
use tldr_loader::loader::{LoaderState, Mode, Next};
use tldr_loader::text::Tokenizer;
use tldr_loader::{Error, ErrorKind, Result};

use crate::batch::Batch;
use crate::errors::{self, OrRaise};
use crate::interrupt::{LOOK, interruptible};
use crate::ledger::Ledger;
use crate::options::{self, CaptionerSource, DeviceName, Urls};
use crate::plain;

/// How long the end of an epoch's threads is awaited: half of the second that Ctrl-C may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// A stream of batches of survivors, epoch after epoch.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Loader {
    loader: tldr_loader::loader::Loader,
    device: Device,
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(signature = (
        urls, *, captioner=None, keep_ratio=0.25, batch_size=256, image_size=224, tokenizer=None,
        device=None, mode="reduced", gate=None, dedup=None, quota=None, priority="uniform",
        rotate=false, fuse="original", seed=0, transform=None, crop_scale=None, crop_ratio=None,
        flip=None, mean=None, std=None, pixels="float32", context_length=77, rank=None,
        world_size=None, lanes=None, window=2048, shuffle_windows=8, threads=None, prefetch=2,
        source=None, lengths=None, endpoint=None, read_timeout=None, retries=None, caption_key=None, max_image_pixels=None, on_error="skip",
        max_errors=0.1, ledger=None
    ))]
    // Python's keyword-only arguments: nobody calls this from Rust.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        urls: Urls,
        captioner: Option<CaptionerSource>,
        keep_ratio: f64,
        batch_size: usize,
        image_size: usize,
        tokenizer: Option<PathBuf>,
        device: Option<DeviceName>,
        mode: &str,
        gate: Option<f64>,
        dedup: Option<f32>,
        quota: Option<&str>,
        priority: &str,
        rotate: bool,
        fuse: &str,
        seed: u64,
        transform: Option<&str>,
        crop_scale: Option<(f64, f64)>,
        crop_ratio: Option<(f64, f64)>,
        flip: Option<f64>,
        mean: Option<[f32; 3]>,
        std: Option<[f32; 3]>,
        pixels: &str,
        context_length: usize,
        rank: Option<usize>,
        world_size: Option<usize>,
        lanes: Option<usize>,
        window: usize,
        shuffle_windows: usize,
        threads: Option<usize>,
        prefetch: usize,
        source: Option<String>,
        lengths: Option<Vec<u64>>,
        endpoint: Option<String>,
        read_timeout: Option<f64>,
        retries: Option<u32>,
        caption_key: Option<String>,
        max_image_pixels: Option<u64>,
        on_error: &str,
        max_errors: f64,
        ledger: Option<Py<Ledger>>,
    ) -> PyResult<Self> {
        let device = device.map_or(Ok(Device::Cpu), |d| d.parse()).or_raise(py)?;
        let normalize = Normalize {
            mean: mean.unwrap_or(Normalize::default().mean),
            std: std.unwrap_or(Normalize::default().std),
        };
        let options = || -> Result<_> {
            let mode = options::mode(mode)?;
            let mut builder = tldr_loader::loader::Loader::builder(urls.patterns())
                .keep_ratio(keep_ratio)
                .batch_size(batch_size)
                .image_size(image_size)
                .mode(mode)
                .dedup(dedup)
                .priority(options::priority(priority)?)
                .rotate(rotate)
                .fuse(fuse.parse()?)
                .seed(seed)
                .normalize(normalize)
                .pixels(options::pixels(pixels)?)
                .context_length(context_length)
                .window(window)
                .shuffle_windows(shuffle_windows)
                .prefetch(prefetch)
                .on_error(options::on_error(on_error)?)
                .max_errors(max_errors);
            // A gate that lets everything through is none.
            if let Some(gate) = gate {
                builder = builder.gate(Some(gate).filter(|g| *g != 1.0));
            }
            if let Some(name) = quota {
                builder = builder.quota(options::quota(name)?);
            }
            let default_transform = if mode == Mode::Eval { "eval" } else { "train" };
            builder = builder.transform(options::transform(
                transform.unwrap_or(default_transform),
                crop_scale,
                crop_ratio,
                flip,
            )?);
            macro_rules! set_where_given {
                ($($name:ident),*) => { $(if let Some(value) = $name { builder = builder.$name(value); })* };
            }
            set_where_given!(
                rank,
                world_size,
                lanes,
                threads,
                source,
                lengths,
                endpoint,
                retries,
                caption_key,
                max_image_pixels
            );
            if let Some(seconds) = read_timeout {
                builder = builder.read_timeout(options::seconds("read_timeout", seconds)?);
            }
            if let Some(ledger) = ledger {
                builder = builder.ledger(ledger.get().0.clone());
            }
            Ok(builder)
        };
        let builder = options().or_raise(py)?;
        let build = move |_: &mut dyn FnMut(()) -> Result<()>| {
            let mut builder = builder;
            if let Some(path) = tokenizer {
                builder = builder.tokenizer(Tokenizer::from_file(path)?);
            }
            if let Some(source) = captioner {
                let model = source.load(device)?;
                let clusters = model.clusters().cloned().ok_or_else(|| {
                    let accepted = "it has no clusters yet: run `Captioner.fit` or `tldr-loader fit` first";
                    Error::option("captioner", "a directory without clusters.safetensors", accepted)
                })?;
                builder = builder.captioner(model, clusters);
            }
            builder.build()
        };
        let loader = interruptible(py, "build", build, |()| Ok(()))?;
        Ok(Self { loader, device })
    }

    fn __iter__(this: Bound<'_, Self>) -> PyResult<Batches> {
        let py = this.py();
        let loader = this.get();
        let batches = py.detach(|| loader.loader.iter()).or_raise(py)?;
        Ok(Batches { batches: Mutex::new(Some(batches)), loader: this.unbind() })
    }

    fn __len__(&self) -> usize {
        self.loader.num_batches() as usize
    }

    #[getter]
    fn num_batches(&self) -> u64 {
        self.loader.num_batches()
    }

    #[getter]
    fn num_samples(&self) -> u64 {
        self.loader.num_samples()
    }

    #[getter]
    fn vocab_size(&self) -> Option<usize> {
        self.loader.vocab_size()
    }

    #[getter]
    fn batch_size(&self) -> usize {
        self.loader.batch_size()
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.loader.epoch()
    }

    #[getter]
    fn ledger(&self) -> Ledger {
        Ledger(self.loader.ledger().clone())
    }

    fn set_epoch(&self, epoch: u64) {
        self.loader.set_epoch(epoch);
    }

    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.loader.state())?)
    }

    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyDict>) -> PyResult<()> {
        let invalid = |detail: String| {
            let message = format!("not a state of a loader, as `state_dict` makes one: {detail}");
            errors::to_python(py, &ErrorKind::State(message).into())
        };
        let fields = plain::numbers_from_python(state_dict).map_err(|e| invalid(e.to_string()))?;
        let state: LoaderState = serde_json::from_value(fields).map_err(|e| invalid(e.to_string()))?;
        self.loader.load_state(&state).or_raise(py)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain::to_python(py, &plain::of(&self.loader.stats())?)
    }

    fn __repr__(&self) -> String {
        format!(
            "Loader(num_batches={}, batch_size={}, epoch={})",
            self.loader.num_batches(),
            self.loader.batch_size(),
            self.loader.epoch()
        )
    }
}

/// The batches of one epoch.
#[pyclass(frozen, module = "tldr_loader")]
pub(crate) struct Batches {
    /// `None` once the epoch is over.
    batches: Mutex<Option<tldr_loader::loader::Batches>>,
    loader: Py<Loader>,
}

#[pymethods]
impl Batches {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let loader = self.loader.get();
        loop {
            let (found, just_ended) = py
                .detach(|| {
                    let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(running) = batches.as_mut() else { return Ok((Next::End, false)) };
                    let found = running.next_within(LOOK)?;
                    let ended = matches!(found, Next::End);
                    if ended {
                        *batches = None;
                    }
                    Ok((found, ended))
                })
                .or_raise(py)?;
            if just_ended {
                for warning in loader.loader.stats().warnings(loader.loader.batch_size()) {
                    let text = CString::new(warning).unwrap_or_default();
                    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
                }
            }
            match found {
                Next::Batch(batch) => return Batch::new(py, *batch, loader.device).map(Some),
                Next::End => return Ok(None),
                Next::Waiting => py.check_signals()?,
            }
        }
    }
}

impl Drop for Batches {
    /// Stops the epoch's threads and gives them [`FAREWELL`] to end. One that hangs in a read of a
    /// dead disk ends on its own, or with the process: Ctrl-C does not wait for it.
    fn drop(&mut self) {
        let batches = self.batches.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if batches.is_none() {
            return;
        }
        let (said, heard) = channel();
        let joining = std::thread::Builder::new().name("tldr-stop".into()).spawn(move || {
            drop(batches);
            let _ = said.send(()); // after the farewell nobody listens
        });
        if joining.is_ok() {
            Python::attach(|py| py.detach(move || heard.recv_timeout(FAREWELL).ok()));
        }
    }
}
