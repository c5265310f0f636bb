//! Alignments of sampled pictures with their own captions and with others': what a gate by them can tell apart.

use ndarray::{Array4, s};
use tldr_loader::cluster::agreement::paired_auc;
use tldr_loader::model::Scorer;
use tldr_loader::{Error, Result};

use crate::model::Swapped;

/// Bins of [0, 1].
const BINS: usize = 40;

/// Scores `pairs`, previews `[3, size, size]` and captions, as they are, and with each caption given to the picture half
/// the list further on. `None` of fewer than ten pairs with different captions.
///
/// # Errors
/// Those of the scorer.
pub(crate) fn swapped(scorer: &mut dyn Scorer, pairs: &[(Vec<u8>, String)]) -> Result<Option<Swapped>> {
    let n = pairs.len();
    let other = |at: usize| &pairs[(at + n / 2) % n].1;
    let differ: Vec<usize> = (0..n).filter(|&at| *other(at) != pairs[at].1).collect();
    if differ.len() < 10 {
        return Ok(None);
    }
    let own = alignments(scorer, differ.iter().map(|&at| (&pairs[at].0, pairs[at].1.as_str())))?;
    let swapped = alignments(scorer, differ.iter().map(|&at| (&pairs[at].0, other(at).as_str())))?;
    let (auc, auc_error) = paired_auc(&own, &swapped);
    let bins = |values: &[f32]| {
        let mut bins = vec![0; BINS];
        values
            .iter()
            .for_each(|&value| bins[((value.clamp(0.0, 1.0) * BINS as f32) as usize).min(BINS - 1)] += 1);
        bins
    };
    Ok(Some(Swapped { own: bins(&own), swapped: bins(&swapped), pairs: differ.len() as u64, auc, auc_error }))
}

fn alignments<'a>(
    scorer: &mut dyn Scorer,
    pairs: impl Iterator<Item = (&'a Vec<u8>, &'a str)>,
) -> Result<Vec<f32>> {
    let (batch, size) = (scorer.batch_size(), scorer.preview_size());
    let pairs: Vec<(&Vec<u8>, &str)> = pairs.collect();
    let mut found = vec![];
    for rows in pairs.chunks(batch) {
        let mut previews = Array4::zeros((batch, 3, size, size));
        for (at, (pixels, _)) in rows.iter().enumerate() {
            let shape = (3, size, size);
            let given = ndarray::ArrayView3::from_shape(shape, &pixels[..])
                .map_err(|error| Error::format("preview", format!("{shape:?}"), error))?;
            previews.slice_mut(s![at, .., .., ..]).assign(&given);
        }
        let mut captions: Vec<&str> = rows.iter().map(|(_, caption)| *caption).collect();
        captions.resize(batch, "");
        let signals = scorer.signals(previews.view(), &captions)?;
        found.extend(signals.alignment.into_iter().take(rows.len()));
    }
    Ok(found)
}
