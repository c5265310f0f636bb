//! What became of samples, for `_report.py` and `_jobs.py`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::json;
use tldr_loader::cluster::Clusters;
use tldr_loader::config::{Config, Source};
use tldr_loader::jobs::{self, DecisionsJob, ExplainJob, ExportJob};
use tldr_loader::model::Scorer;
use tldr_loader::{Error, Result};
use tldr_python::errors::OrRaise;
use tldr_python::given::{Any, Callback, Given};
use tldr_python::interrupt::interruptible;
use tldr_python::plain;
use tldr_python::values::source;
use tldr_report::{ReportJob, report};

use crate::jobs::{fitted, recorded, told};
use crate::options::Options;

/// The captioner directory that was given: its path, fingerprint and clusters.
fn captioner(given: &Given<'_>) -> PyResult<Option<(u64, Arc<Clusters>)>> {
    let directory: Option<PathBuf> = given.take("captioner")?;
    directory.as_deref().map(fitted).transpose().or_raise(given.py())
}

/// Whose decisions are asked for.
fn decisions(given: &Given<'_>) -> PyResult<DecisionsJob> {
    let py = given.py();
    let plan: Option<PathBuf> = given.take("plan")?;
    let fitted = captioner(given)?;
    let (selection, seed, wanted) = recorded(given, fitted.as_ref().map(|(scorer, _)| *scorer))?;
    let ledger: PathBuf = given.take("ledger")?.unwrap_or_default();
    let job = DecisionsJob::of(ledger, plan.as_deref(), fitted, &selection, seed).or_raise(py)?;
    let generation: Option<String> = given.take("generation")?;
    let generation = generation.as_deref().map(DecisionsJob::generation_of).transpose().or_raise(py)?;
    let rescue = given.take("rescue")?.unwrap_or(false);
    Ok(DecisionsJob { wanted, generation, score_field: given.take("score")?, rescue, ..job })
}

#[pyfunction]
#[pyo3(signature = (keys, **options))]
pub(crate) fn _explain<'py>(
    py: Python<'py>,
    keys: Vec<String>,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "explain", options.clone());
    let of: Option<Bound<'_, PyAny>> = match &options {
        Some(options) => options.get_item("source")?.filter(|of| !of.is_none()),
        None => None,
    };
    let of: Option<Source> = of.map(|of| source(&of)).transpose()?;
    let epochs: Option<u64> = given.take_whole("epochs")?;
    let mut job = ExplainJob::new(decisions(&given)?, keys);
    job.epochs = epochs.unwrap_or(job.epochs);
    job.source = of.unwrap_or_default();
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        jobs::explain(&job, &mut |done, total| report(("explain", done, total)))
    };
    let found = interruptible(py, "explain", work, told(py, &progress))?;
    plain::to_python(py, &plain::of(&found)?)
}

#[pyfunction]
#[pyo3(signature = (out, **options))]
pub(crate) fn _export<'py>(
    py: Python<'py>,
    out: PathBuf,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "export", options);
    let all = given.take("all")?.unwrap_or(false);
    if !all && given.has("plan")? && given.has("captioner")? {
        let accepted = "with captioner: either says what is kept; with all=True the captioner says why";
        return Err(Error::unused("plan", "given", accepted)).or_raise(py);
    }
    let exclude: Option<PathBuf> = given.take("exclude")?;
    let job = ExportJob { all, exclude, ..ExportJob::new(decisions(&given)?, out) };
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        jobs::export(&job, &mut |done, total| report(("export", done, total)))
    };
    let found = interruptible(py, "export", work, told(py, &progress))?;
    let outcomes = all.then(|| {
        json!({
            "kept": found.kept, "dropped": found.dropped, "excluded": found.excluded, "failed": found.failed,
        })
    });
    plain::to_python(
        py,
        &json!({ "samples": found.samples, "captions": found.captions, "outcomes": outcomes }),
    )
}

#[pyfunction]
#[pyo3(signature = (source, **options))]
pub(crate) fn _report<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "report", options);
    let mut config = Config { sources: tldr_python::values::sources(source)?, ..Config::default() };
    config.selection = given.take_group("selection")?;
    config.images = given.take_group("images")?;
    config.captions = given.take_group("captions")?;
    config.seed = given.take_whole("seed")?.unwrap_or(0);
    config.plan = given.take("plan")?;
    config.tokenizer = given.take("tokenizer")?;
    let ledger: Option<PathBuf> = given.take("ledger")?;
    config.ledger = ledger.map(|ledger| ledger.to_string_lossy().into_owned());
    let out: PathBuf = given.take("out")?.unwrap_or_default();
    let mut job = ReportJob::of(&config, captioner(&given)?, out).or_raise(py)?;
    job.decisions.score_field = given.take("score")?;
    let generation: Option<String> = given.take("generation")?;
    job.decisions.generation =
        generation.as_deref().map(DecisionsJob::generation_of).transpose().or_raise(py)?;
    job.command = given.take("command")?.unwrap_or_default();
    job.max_mb = given.take("max_mb")?.unwrap_or(job.max_mb);
    job.seed = given.take_whole("draw_seed")?.unwrap_or(job.seed);
    let mut scorer: Option<Box<dyn Scorer>> = None;
    if let Some(Any(model)) = given.take("scorer")? {
        let options = PyDict::new(py);
        options.set_item("captioner", model)?;
        let fitted = Options::read(Config::default(), Some(&options))?.captioner(py)?.1;
        scorer = fitted.map(|(scorer, _)| scorer);
    }
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let work = move |say: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        let scorer = scorer.as_mut().map(|scorer| scorer as &mut dyn Scorer);
        report(&job, scorer, &mut |stage, done, total| say((stage.name(), done, total)))
    };
    let found = interruptible(py, "report", work, told(py, &progress))?;
    plain::to_python(
        py,
        &json!({
            "samples": found.samples, "kept": found.kept, "shown": found.shown, "pictures": found.pictures,
            "bytes": found.bytes, "json": found.json, "pairs": found.pairs,
        }),
    )
}
