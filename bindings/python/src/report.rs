//! What `Captioner.fit` returns.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tldr_loader::jobs::FitSummary;

/// The report of a fit as a dict.
pub(crate) fn of(py: Python<'_>, fitted: FitSummary) -> PyResult<Bound<'_, PyDict>> {
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
    said.set_item("failed", fitted.failed)?;
    said.set_item("warnings", fitted.report.warnings)?;
    said.set_item("seconds", fitted.seconds)?;
    Ok(said)
}
