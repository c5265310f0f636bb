//! Whole jobs, for `_jobs.py`, which gives them their signatures and the types of their results.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use tldr_loader::cluster::AlignmentNorm;
use tldr_loader::cluster::fit::LengthPass;
use tldr_loader::config::{Config, Images, Selection, Source};
use tldr_loader::jobs::{self, AuditJob, FitScorerJob, InspectJob, PlanJob, Wanted};
use tldr_loader::model::Identity;
use tldr_loader::select::Policy;
use tldr_loader::{Error, Result};
use tldr_python::array::Array;
use tldr_python::errors::OrRaise;
use tldr_python::given::{Any, Callback, Given};
use tldr_python::interrupt::interruptible;
use tldr_python::plain;
use tldr_python::values::source;

use crate::embedder::PythonEmbedder;
use crate::options::Options;
use crate::scorer::clusters;

/// Calls `progress(stage, done, total)`, where there is one.
pub(crate) fn told<'a>(
    py: Python<'a>,
    progress: &'a Option<Callback>,
) -> impl FnMut((&'static str, u64, u64)) -> PyResult<()> + 'a {
    move |at| progress.as_ref().map_or(Ok(()), |progress| progress.0.call1(py, at).map(drop))
}

#[pyfunction]
#[pyo3(signature = (source, **options))]
pub(crate) fn _inspect<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let source = tldr_python::values::source(source)?;
    let given = Given::new(py, "inspect", options);
    let images: Images = given.take_group("images")?;
    let decode = given.take("decode")?.unwrap_or(false);
    let checksums = given.take("checksums")?.unwrap_or(false);
    let strict = given.take("strict")?.unwrap_or(false);
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        let shards = source.list()?;
        let job = InspectJob { read: source.open()?, limits: images.decode(), decode, checksums };
        report(("inspect", 0, shards.len() as u64))?;
        let found = jobs::inspect(&shards, &job, &|_| ())?;
        report(("inspect", shards.len() as u64, shards.len() as u64))?;
        if strict && !found.faults.is_empty() {
            return Err(found.refused());
        }
        Ok(found)
    };
    let found = interruptible(py, "inspect", work, told(py, &progress))?;
    plain::to_python(py, &plain::of(&found)?)
}

/// A plan, or with `part` the recording of what it needs.
#[pyfunction]
#[pyo3(signature = (source, **options))]
pub(crate) fn _plan<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "plan", options);
    let out: Option<PathBuf> = given.take("out")?;
    let (embeddings, fill) = (given.take("embeddings")?, given.take("fill_with_copies")?);
    let part = (given.take_whole("part")?, given.take_whole("parts")?);
    let progress: Option<Callback> = given.take("progress")?;
    let config = Config { sources: tldr_python::values::sources(source)?, ..Config::default() };
    let options = Options::read(config, given.rest())?;
    let (config, fitted) = options.captioner(py)?;
    let job = PlanJob {
        config,
        embeddings: embeddings.unwrap_or(false),
        fill_with_copies: fill.unwrap_or(false),
        part: part.0.zip(part.1),
    };
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        let mut progress = |stage: jobs::PlanStage, done, total| report((stage.name(), done, total));
        let summary = match fitted {
            Some((scorer, clusters)) => jobs::plan(&job, scorer, clusters, &mut progress)?,
            None => jobs::plan_by_scores(&job, &mut progress)?,
        };
        let mut found = json!({
            "shards": summary.shards,
            "recorded": summary.recorded,
            "encoded": summary.encoded,
            "seconds_recording": summary.seconds[0],
            "seconds_deciding": summary.seconds[1],
        });
        if let (Some(plan), Value::Object(found)) = (&summary.plan, &mut found) {
            let counts = serde_json::to_value(plan.plan.counts());
            let counts = counts.map_err(|error| Error::io("write JSON", std::io::Error::other(error)))?;
            found.insert("readable".into(), plan.plan.counts().readable().into());
            found.insert("fingerprint".into(), format!("{:016x}", plan.fingerprint()).into());
            found.insert("near_duplicates".into(), summary.near.and_then(|near| near.dropped).into());
            let warning = summary.near.and_then(|near| near.warning());
            found.insert("warnings".into(), warning.into_iter().collect::<Vec<_>>().into());
            found.extend(counts.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
            if let Some(out) = &out {
                plan.save(out)?;
            }
        }
        Ok(found)
    };
    let found = interruptible(py, "plan", work, told(py, &progress))?;
    plain::to_python(py, &found)
}

/// What a captioner directory says without its model: fingerprint and clusters.
pub(crate) fn fitted(
    directory: &std::path::Path,
) -> Result<(u64, std::sync::Arc<tldr_loader::cluster::Clusters>)> {
    let clusters = clusters("captioner", directory)?;
    match Identity::load(directory)? {
        Some(identity) => Ok((identity.fingerprint(), clusters)),
        None => {
            let accepted = "a captioner directory that was fitted by this version: fit it again";
            Err(Error::option("captioner", format!("{:?}", directory.display()), accepted))
        }
    }
}

#[pyfunction]
#[pyo3(signature = (source, scorer, out, **options))]
pub(crate) fn _fit<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    scorer: &Bound<'py, PyAny>,
    out: PathBuf,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "fit", options);
    let default = FitScorerJob::new(tldr_python::values::source(source)?, out);
    let job = FitScorerJob {
        decode: given.take_group::<Images>("images")?.decode(),
        clusters: given.take_whole("clusters")?,
        samples: given.take_whole("samples")?,
        alignment_norm: given
            .take_name("alignment_norm", AlignmentNorm::from_name)?
            .unwrap_or(default.alignment_norm),
        seed: given.take_whole("seed")?.unwrap_or(default.seed),
        ..default
    };
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let model = PythonEmbedder::new(scorer)?;
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        jobs::fit_scorer(&job, model, &mut |done, total| report(("fit", done, total)))
    };
    let found = interruptible(py, "fit", work, told(py, &progress))?;
    let report = &found.report;
    let length = |pass: &LengthPass| json!([pass.shortest, pass.longest, pass.points, pass.rate]);
    plain::to_python(
        py,
        &json!({
            "points": found.points, "dim": found.dim, "clusters": found.clusters, "runs": found.runs,
            "failed": found.failed, "fingerprint": format!("{:016x}", found.fingerprint),
            "mean_similarity": report.mean_similarity, "pass_rate": report.pass_rate,
            "pass_by_length": report.pass_by_length.iter().map(length).collect::<Vec<_>>(),
            "pass_by_run": report.pass_by_run, "warnings": report.warnings,
            "auc": found.worth.map(|worth| worth.validation.auc),
            "auc_error": found.worth.map(|worth| worth.validation.auc_error),
            "pairs": found.worth.map_or(0, |worth| worth.validation.pairs),
        }),
    )
}

/// The centroids of a fitted folder, `[clusters, dim]`, for a scorer that finds the nearest on its own device; with the
/// fingerprint of the scorer that was fitted.
#[pyfunction]
pub(crate) fn _fitted(py: Python<'_>, path: PathBuf) -> PyResult<(Array, u64)> {
    let clusters = clusters("captioner", &path).or_raise(py)?;
    let identity = Identity::load(&path).or_raise(py)?.ok_or_else(|| {
        let accepted = "a folder that tldr.fit wrote";
        Error::option("path", format!("{:?}", path.display()), accepted)
    });
    let values: Vec<f32> = clusters.centroids.iter().copied().collect();
    Ok((Array::from_vec(values, clusters.centroids.shape()), identity.or_raise(py)?.weights()))
}

/// A selection, the seed, and which recording of a ledger is meant.
pub(crate) fn recorded(given: &Given<'_>, scorer: Option<u64>) -> PyResult<(Selection, u64, Wanted)> {
    let selection: Selection = given.take_group("selection")?;
    let seed = given.take_whole("seed")?.unwrap_or(0);
    let is_windowed = selection.window != Selection::default().window;
    let of = given.take::<Any>("source")?;
    let of: Option<Source> = of.map(|Any(value)| source(value.bind(given.py()))).transpose()?;
    let read = of.as_ref().map(Source::open).transpose().or_raise(given.py())?.unwrap_or_default();
    let images: Images = given.take_group("images")?;
    let window = is_windowed.then_some(selection.window);
    let wanted = Wanted { window, ..Wanted::read_as(scorer, &read, &images.decode()) };
    Ok((selection, seed, wanted))
}

#[pyfunction]
#[pyo3(signature = (ledger, **options))]
pub(crate) fn _audit<'py>(
    py: Python<'py>,
    ledger: PathBuf,
    options: Option<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = Given::new(py, "audit", options);
    let captioner: Option<PathBuf> = given.take("captioner")?;
    let (scorer, clusters) = captioner.as_deref().map(fitted).transpose().or_raise(py)?.unzip();
    let (selection, seed, wanted) = recorded(&given, scorer)?;
    let policy = Policy::new(selection.resolved(scorer.is_some()).or_raise(py)?, seed);
    let default = AuditJob::new(ledger, policy);
    let job = AuditJob {
        wanted,
        seeds: given.take_whole("seeds")?.unwrap_or(default.seeds),
        windows: given.take_whole("windows")?.unwrap_or(default.windows),
        ..default
    };
    let progress: Option<Callback> = given.take("progress")?;
    given.end()?;
    let work = move |report: &mut dyn FnMut((&'static str, u64, u64)) -> Result<()>| {
        jobs::audit(&job, clusters.as_ref(), &mut |done, total| report(("audit", done, total)))
    };
    let found = interruptible(py, "audit", work, told(py, &progress))?;
    let check = |check: &jobs::Check| {
        json!({
            "promise": check.promise, "found": check.found, "accepted": check.accepted, "holds": check.holds,
        })
    };
    let checks: Vec<Value> = found.checks.iter().map(check).collect();
    plain::to_python(py, &json!({ "scope": found.scope, "checks": checks }))
}
