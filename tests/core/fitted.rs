//! Promise: a model that embeds and aligns becomes a scorer by a fit: clusters of its embeddings, alignment as quantiles,
//! the same for a sample wherever it stands; what the model returns is checked.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ndarray::{Array2, Array4, ArrayView4, Axis};
use tldr_loader::cluster::{Clusters, EmbeddedPoints, FitOptions, Fitted, fit_embeddings};
use tldr_loader::config::Source;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::jobs::{FitScorerJob, fit_scorer};
use tldr_loader::model::{Embedder, Identity, PreviewFilter, RawScores, Scorer};
use tldr_loader::{ErrorKind, Result};
use tldr_synth::{SynthOptions, write_corpus};

/// Three directions with noise, `[points, 5]`, and which of them each point has.
fn blobs(points: usize) -> (Array2<f32>, Vec<u32>) {
    let mut rng = Rng::new(1, Purpose::Synth, 0);
    let own: Vec<u32> = (0..points).map(|i| (i % 3) as u32).collect();
    let rows = Array2::from_shape_fn((points, 5), |(i, d)| {
        let peak = if d == own[i] as usize { 3.0 } else { 0.0 };
        (peak + 0.3 * rng.normal()) as f32
    });
    (rows, own)
}

fn points(own_clusters: bool) -> EmbeddedPoints {
    let (embeddings, own) = blobs(600);
    let alignment = (0..600).map(|i| (i * 7 % 600) as f32).collect();
    EmbeddedPoints { embeddings, alignment, words: vec![4; 600], clusters: own_clusters.then_some(own) }
}

fn options(clusters: usize) -> FitOptions {
    FitOptions { clusters, runs: 3, ..FitOptions::default() }
}

#[test]
fn clusters_are_found_or_taken_as_they_are() {
    let (_, own) = blobs(600);
    let (clusters, report) = fit_embeddings(&points(false), &options(3)).unwrap();
    assert_eq!((clusters.len(), clusters.centroids.dim()), (3, (3, 5)));
    // The same partition under other numbers.
    let mut pairs: Vec<(u32, u32)> = own.iter().copied().zip(report.assignment.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 3, "{pairs:?}");
    let mut quantiles = report.quantiles;
    quantiles.sort_by(f32::total_cmp);
    assert!(quantiles[0] < 0.02 && (quantiles[300] - 0.5).abs() < 0.05 && quantiles[599] > 0.98);

    let (given, report) = fit_embeddings(&points(true), &options(99)).unwrap();
    assert_eq!((given.len(), report.assignment), (3, own));
    for (cluster, centroid) in given.centroids.outer_iter().enumerate() {
        assert!(centroid[cluster] > 0.9, "{centroid}");
    }
}

#[test]
fn points_that_do_not_fit_together_are_refused() {
    let wrong = |change: fn(&mut EmbeddedPoints)| {
        let mut points = points(true);
        change(&mut points);
        fit_embeddings(&points, &options(3)).unwrap_err().to_string()
    };
    assert!(wrong(|p| p.alignment.truncate(3)).contains("alignment"));
    assert!(wrong(|p| p.words.truncate(3)).contains("words of the sampled points"));
    assert!(wrong(|p| p.embeddings[[7, 1]] = f32::NAN).contains("embedding of sampled point 7"));
    assert!(wrong(|p| p.clusters = Some(vec![0])).contains("cluster"));
    assert!(wrong(|p| p.alignment[3] = f32::INFINITY).contains("alignment of sampled point 3"));
}

/// Embeds the mean of each channel; captions fit the better, the longer they are.
#[derive(Clone, Copy, Default)]
struct Means {
    fault: Option<&'static str>,
}

impl Embedder for Means {
    fn preview_size(&self) -> usize {
        6
    }
    fn preview_filter(&self) -> PreviewFilter {
        PreviewFilter::BicubicCrop
    }
    fn batch_size(&self) -> usize {
        16
    }
    fn fingerprint(&self) -> u64 {
        77
    }
    fn score(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<RawScores> {
        let rows = previews.len_of(Axis(0));
        let mut embedding = Array2::zeros((rows, 3));
        for (mut row, preview) in embedding.outer_iter_mut().zip(previews.outer_iter()) {
            for (value, plane) in row.iter_mut().zip(preview.outer_iter()) {
                *value = 1.0 + plane.iter().map(|&p| f32::from(p)).sum::<f32>();
            }
        }
        let mut alignment: Vec<f32> = captions.iter().map(|text| text.len() as f32).collect();
        match self.fault {
            Some("rows") => drop(alignment.pop()),
            Some("nan") => embedding[[0, 0]] = f32::NAN,
            Some("blank") => {
                embedding.row_mut(rows - 1).fill(f32::NAN);
                alignment[rows - 1] = f32::NAN;
            }
            Some("dim") => embedding = Array2::zeros((rows, 4)),
            _ => {}
        }
        let cluster = (self.fault == Some("cluster")).then(|| vec![9; rows]);
        Ok(RawScores { embedding, alignment, cluster })
    }
}

fn fitted(fault: Option<&'static str>) -> Fitted<Means> {
    let (clusters, _) = {
        let (full, _) = blobs(600);
        let embeddings = full.select(Axis(1), &[0, 1, 2]);
        fit_embeddings(&EmbeddedPoints { embeddings, ..points(true) }, &options(3)).unwrap()
    };
    Fitted::new(Means { fault }, Arc::new(clusters))
}

#[test]
fn signals_of_a_sample_do_not_depend_on_its_neighbours() {
    let mut scorer = fitted(None);
    let mut rng = Rng::new(2, Purpose::Synth, 0);
    let previews = Array4::from_shape_simple_fn((16, 3, 6, 6), || rng.below(256) as u8);
    let captions: Vec<String> = (1..17).map(|words| "word ".repeat(words)).collect();
    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
    let found = scorer.signals(previews.view(), &captions).unwrap();
    let order: Vec<usize> = (0..16).map(|i| (i * 7 + 3) % 16).collect();
    let turned: Vec<&str> = order.iter().map(|&row| captions[row]).collect();
    let again = scorer.signals(previews.select(Axis(0), &order).view(), &turned).unwrap();
    for (at, &row) in order.iter().enumerate() {
        assert_eq!(again.cluster[at], found.cluster[row]);
        assert_eq!(again.alignment[at], found.alignment[row]);
        assert_eq!(again.semantic_hash[at], found.semantic_hash[row]);
        assert_eq!(again.embedding.row(at), found.embedding.row(row));
        assert!((found.embedding.row(row).dot(&found.embedding.row(row)) - 1.0).abs() < 1e-5);
    }
    assert!(found.alignment.is_sorted(), "longer captions fit better here: {:?}", found.alignment);
}

#[test]
fn what_a_model_returns_is_checked() {
    for (fault, part) in [
        ("rows", "alignment that the scorer returned"),
        ("nan", "NaN or infinity in row 0"),
        ("dim", "embedding that the scorer returned"),
        ("cluster", "numbers below 3"),
    ] {
        let error = fitted(Some(fault)).signals(Array4::zeros((16, 3, 6, 6)).view(), &["a"; 16]).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Format { .. }), "{error}");
        assert!(error.to_string().contains(part), "{fault}: {error}");
    }
}

#[test]
fn rows_that_are_not_used_may_be_anything() {
    let mut captions = ["a"; 16];
    captions[15] = "";
    let found = fitted(Some("blank")).signals(Array4::zeros((16, 3, 6, 6)).view(), &captions).unwrap();
    let all = found.embedding.iter().chain(&found.alignment);
    assert!(all.copied().all(f32::is_finite));
    assert!(fitted(Some("blank")).signals(Array4::zeros((16, 3, 6, 6)).view(), &["a"; 16]).is_err());
}

#[test]
fn a_fit_writes_a_folder_that_tells_which_model_it_is_of() {
    let folder = tempfile::tempdir().unwrap();
    let options = SynthOptions { samples: 300, shards: 2, test_samples: 0, size: 16, ..Default::default() };
    write_corpus(folder.path(), &options, &mut |_, _| {}).unwrap();
    let urls = folder.path().join("train/{00000..00001}.tar").to_string_lossy().into_owned();
    let out = folder.path().join("a/fit");
    let job = FitScorerJob { clusters: Some(4), ..FitScorerJob::new(Source::new(vec![urls]), &out) };
    let found = fit_scorer(&job, Means::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!((found.points, found.dim, found.clusters, found.failed), (300, 3, 4, 0));
    // Whose caption it is makes no difference to this one.
    assert!((found.worth.unwrap().validation.auc - 0.5).abs() < 0.1);
    let identity = Identity::load(&out).unwrap().unwrap();
    assert_eq!((identity.weights(), identity.fingerprint()), (77, found.fingerprint));
    let clusters = Arc::new(Clusters::load(out.join(Clusters::FILE)).unwrap());
    assert_eq!(Fitted::new(Means::default(), clusters).fingerprint(), found.fingerprint);
    let error = fit_scorer(&job, Means::default(), &mut |_, _| Err(tldr_loader::Error::captioner("stop")));
    assert!(error.unwrap_err().to_string().contains("stop"));
    for fault in ["rows", "dim", "nan"] {
        let found = fit_scorer(&job, Means { fault: Some(fault) }, &mut |_, _| Ok(()));
        assert_eq!(found.is_err(), fault != "dim", "{fault}");
    }
}
