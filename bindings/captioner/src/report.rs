//! What `Captioner.train` and `Captioner.fit` say, and what the latter returns.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_captioner::jobs::{FitSummary, TrainProgress};
use tldr_loader::cluster::GateWorth;
use tldr_loader::loader::GateStats;

use tldr_python::{log, plain};

/// Logs what a gate is worth.
pub(crate) fn say_worth(py: Python<'_>, worth: Option<GateWorth>) -> PyResult<()> {
    log::say(py, "info", &format!("gate: {}", GateWorth::sentence(worth.as_ref())))?;
    worth.and_then(|worth| worth.warning()).map_or(Ok(()), |warning| log::say(py, "warning", &warning))
}

/// What `progress` of a training is called with.
pub(crate) fn of_step<'py>(py: Python<'py>, at: &TrainProgress) -> PyResult<Bound<'py, PyDict>> {
    let said = PyDict::new(py);
    said.set_item("step", at.report.step)?;
    said.set_item("steps", at.steps)?;
    said.set_item("loss", at.report.loss)?;
    said.set_item("lm_loss", at.report.lm_loss)?;
    said.set_item("vq_loss", at.report.vq_loss)?;
    said.set_item("perplexity", at.report.perplexity)?;
    said.set_item("used_codes", at.report.used_codes)?;
    said.set_item("learning_rate", at.report.learning_rate)?;
    said.set_item("images_per_s", at.images_per_s)?;
    said.set_item("seconds_left", at.seconds_left)?;
    said.set_item("fold", at.fold.0)?;
    if let Some(measured) = at.validation {
        said.set_item("validation_lm_loss", measured.lm_loss)?;
        said.set_item("validation_auc", measured.auc)?;
    }
    Ok(said)
}

/// The report of a fit as a dict; its warnings are logged too.
pub(crate) fn of(py: Python<'_>, fitted: FitSummary) -> PyResult<Bound<'_, PyDict>> {
    log::say(py, "info", &format!("gate: {}", GateWorth::sentence(fitted.worth.as_ref())))?;
    for warning in &fitted.report.warnings {
        log::say(py, "warning", warning)?;
    }
    let said = PyDict::new(py);
    said.set_item("points", fitted.points)?;
    said.set_item("clusters", fitted.clusters)?;
    said.set_item("runs", fitted.runs)?;
    let codebook = fitted.codebook.map(|found| -> PyResult<_> {
        let said = PyDict::new(py);
        said.set_item("codes", found.codes)?;
        said.set_item("patches", found.patches)?;
        said.set_item("error", found.error)?;
        Ok(said)
    });
    said.set_item("codebook", codebook.transpose()?)?;
    said.set_item("directions", fitted.directions)?;
    said.set_item("pass_rate", fitted.report.pass_rate)?;
    said.set_item("pass_by_run", fitted.report.pass_by_run)?;
    let by_source = PyDict::new(py);
    for pass in fitted.pass_by_source {
        by_source.set_item(pass.source, pass.rate)?;
    }
    said.set_item("pass_by_source", by_source)?;
    let by_length = fitted.report.pass_by_length.iter();
    let by_length: Vec<_> = by_length.map(|l| (l.shortest, l.longest, l.points, l.rate)).collect();
    said.set_item("pass_by_length", by_length)?;
    said.set_item("errors", fitted.report.errors)?;
    let worth = fitted.worth.map(|worth| plain::to_python(py, &plain::of(&GateStats::from(worth))?));
    said.set_item("validation", worth.transpose()?)?;
    said.set_item("captions", plain::to_python(py, &plain::of(&fitted.captions)?)?)?;
    said.set_item("failed", fitted.failed)?;
    said.set_item("warnings", fitted.report.warnings)?;
    said.set_item("seconds", fitted.seconds)?;
    Ok(said)
}
