//! The loss curve: a row per step in `train.csv`.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{StepReport, write};
use tldr_loader::cluster::Validation;
use tldr_loader::error::{Error, Result};

const CSV: &str = "train.csv";
const HEADER: &str = "step,loss,lm_loss,vq_loss,perplexity,used_codes,learning_rate,images_per_s,\
                      validation_lm_loss,validation_auc";

/// The loss curve of a run.
pub(super) struct Curve {
    csv: PathBuf,
    file: std::io::BufWriter<std::fs::File>,
}

impl Curve {
    /// In the folder `out`, after `steps` steps: rows of those are kept, later ones are written anew.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn open(out: &Path, steps: u64) -> Result<Self> {
        let csv = out.join(CSV);
        let cannot = |e| Error::io(format!("write {}", csv.display()), e);
        let before = match std::fs::read_to_string(&csv) {
            Ok(text) if steps > 0 => text,
            Err(e) if steps > 0 && e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => String::new(),
        };
        let kept = before.lines().filter(|line| step_of(line).is_some_and(|step| step <= steps));
        let lines = [HEADER].into_iter().chain(kept).fold(String::new(), |text, line| text + line + "\n");
        // What was written so far is in this file only: it is there whenever the run is stopped.
        write(&csv, lines)?;
        let file = std::fs::OpenOptions::new().append(true).open(&csv).map_err(cannot)?;
        Ok(Self { csv, file: std::io::BufWriter::new(file) })
    }

    /// Adds a step, and what was measured after it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn push(&mut self, r: &StepReport, validation: Option<Validation>) -> Result<()> {
        let measured =
            validation.map_or(",".into(), |v| format!("{:.5},{:.5}", v.lm_loss.unwrap_or(f64::NAN), v.auc));
        let line = format!(
            "{},{:.5},{:.5},{:.5},{:.2},{},{:.3e},{:.1},{measured}",
            r.step, r.loss, r.lm_loss, r.vq_loss, r.perplexity, r.used_codes, r.learning_rate, r.images_per_s
        );
        writeln!(self.file, "{line}").map_err(|e| self.cannot_write(e))
    }

    /// Brings the file up to date.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| self.cannot_write(e))
    }

    fn cannot_write(&self, error: std::io::Error) -> Error {
        Error::io(format!("write {}", self.csv.display()), error)
    }
}

/// The step of a line of the file; `None` of its header and of what a full disk cut off.
fn step_of(line: &str) -> Option<u64> {
    let fields: Vec<&str> = line.split(',').collect();
    if fields.len() == HEADER.split(',').count() { fields[0].parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report(step: u64) -> StepReport {
        StepReport {
            step,
            loss: 3.5 - step as f64 * 0.01,
            lm_loss: 3.0 - step as f64 * 0.01,
            vq_loss: 0.5,
            gradient_norm: 1.0,
            learning_rate: 1e-3,
            perplexity: 10.0 + step as f64,
            used_codes: 16,
            images_per_s: 100.0,
        }
    }

    #[test]
    fn a_resumed_curve_is_that_of_a_run_without_a_stop() {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let validation = Some(Validation { pairs: 3, lm_loss: Some(2.5), auc: 0.9, auc_error: 0.1 });
        let push = |curve: &mut Curve, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                curve.push(&report(step), validation.filter(|_| step % 4 == 0)).unwrap();
            }
            curve.flush().unwrap();
        };
        push(&mut Curve::open(whole.path(), 0).unwrap(), 1..=20);
        // Steps after the checkpoint are done again.
        push(&mut Curve::open(cut.path(), 0).unwrap(), 1..=11);
        push(&mut Curve::open(cut.path(), 8).unwrap(), 9..=20);
        let read = |dir: &Path| std::fs::read(dir.join(CSV)).unwrap();
        assert_eq!(read(whole.path()), read(cut.path()));
        let text = std::fs::read_to_string(whole.path().join(CSV)).unwrap();
        assert_eq!(text.lines().count(), 21);
        assert!(
            text.contains("\n4,3.46000,2.96000,0.50000,14.00,16,1.000e-3,100.0,2.50000,0.90000\n"),
            "{text}"
        );
        // Killed before anything new was flushed: a destructor that flushes does not run.
        std::mem::forget(Curve::open(cut.path(), 8).unwrap());
        assert_eq!(std::fs::read_to_string(cut.path().join(CSV)).unwrap().lines().count(), 9);
        // A new run forgets what was there.
        push(&mut Curve::open(cut.path(), 0).unwrap(), 1..=2);
        assert_eq!(std::fs::read_to_string(cut.path().join(CSV)).unwrap().lines().count(), 3);
    }
}
