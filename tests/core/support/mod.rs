//! A small corpus and a stub captioner for tests of the loader.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

pub mod wait;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3, ArrayView4, Axis};
use tldr_loader::cluster::alignment::{AlignmentNorm, AlignmentTable};
use tldr_loader::cluster::clusters::{Clusters, GATE_STEPS};
use tldr_loader::config::{Mode, PixelType, Selection};
use tldr_loader::hash::{self, Purpose, Rng};
use tldr_loader::jobs::PlanJob;
use tldr_loader::loader::{Batch, Loader, LoaderBuilder};
use tldr_loader::model::{Recaptioner, Scorer, Signals};
use tldr_loader::select::Policy;
use tldr_loader::shard::ShardWriter;
use tldr_loader::{Result, SampleId, text::Tokenizer};

/// Clusters of the stub.
pub const CLUSTERS: usize = 27;

/// Writes `shards` shards of `per_shard` samples, 12x12 PNGs of one colour each, and returns the
/// pattern that lists them. Keys are unique over the corpus.
pub fn corpus(folder: &Path, shards: usize, per_shard: usize) -> String {
    let mut rng = Rng::new(7, Purpose::Synth, 0);
    for shard in 0..shards {
        let mut writer = ShardWriter::create(folder.join(format!("{shard:05}.tar"))).unwrap();
        for i in 0..per_shard {
            let number = shard * per_shard + i;
            let colour = [0, 1, 2].map(|_| rng.below(256) as u8);
            let caption = format!("colour {} {} {} number {number}", colour[0], colour[1], colour[2]);
            let png = png(colour);
            writer.write(&format!("{number:07}"), &[("png", &png), ("txt", caption.as_bytes())]).unwrap();
        }
        writer.finish().unwrap();
    }
    pattern(folder, shards)
}

/// A shard of so many samples with images of different sizes, which cannot be decoded.
pub fn shard_of(samples: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.tar");
    let mut writer = tldr_loader::shard::ShardWriter::create(&path).unwrap();
    for i in 0..samples {
        let image: Vec<u8> = (0..1500 + 70 * i).map(|at| (at * (i + 7) / 3) as u8).collect();
        writer.write(&format!("{i:05}"), &[("jpg", &image), ("txt", b"a caption")]).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

/// The pattern of a corpus of `shards` shards.
pub fn pattern(folder: &Path, shards: usize) -> String {
    format!("{}/{{00000..{:05}}}.tar", folder.display(), shards - 1)
}

/// A 12x12 PNG of one colour.
pub fn png(colour: [u8; 3]) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(12, 12, image::Rgb(colour));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

/// Clusters of equal share and a gate that is calibrated by construction.
pub fn clusters() -> Arc<Clusters> {
    let share = 1.0 / CLUSTERS as f64;
    Arc::new(Clusters {
        idf: vec![1.0; 4],
        centroids: Array2::from_elem((CLUSTERS, 4), 0.5),
        runs: (0..CLUSTERS as u32).map(|c| c / 3).collect(),
        shares: vec![share; CLUSTERS],
        gated: Array2::from_shape_fn((CLUSTERS, GATE_STEPS), |(_, i)| {
            share * (1.0 - i as f64 / GATE_STEPS as f64)
        }),
        alignment: AlignmentTable {
            norm: AlignmentNorm::Sum,
            length_edges: vec![],
            run_groups: vec![0; CLUSTERS.div_ceil(3)],
            knots: Array3::from_shape_fn((1, 1, 2), |(_, _, k)| k as f32),
        },
        points: 100_000,
        raw_index: None,
        discriminant: None,
        worth: None,
        trained_on: vec![],
    })
}

/// A captioner whose signals follow from the colour and the caption of a row alone.
pub struct StubCaptioner {
    /// Rows it was asked for, to see when it did not run.
    pub encoded: Arc<AtomicUsize>,
    /// Captions it was asked for.
    pub captioned: Arc<AtomicUsize>,
}

impl StubCaptioner {
    pub fn new() -> Self {
        Self { encoded: Arc::default(), captioned: Arc::default() }
    }
}

fn colour_of(row: ndarray::ArrayView3<'_, u8>) -> [u8; 3] {
    [0, 1, 2].map(|c| row[[c, 0, 0]])
}

impl Scorer for StubCaptioner {
    fn dim(&self) -> usize {
        3
    }
    fn preview_size(&self) -> usize {
        4
    }
    fn batch_size(&self) -> usize {
        16
    }
    fn clusters(&self) -> usize {
        CLUSTERS
    }
    fn fingerprint(&self) -> u64 {
        1
    }
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        assert_eq!(previews.dim(), (16, 3, 4, 4), "batches are always of one shape");
        assert_eq!(captions.len(), 16);
        self.encoded.fetch_add(captions.iter().filter(|c| !c.is_empty()).count(), Ordering::SeqCst);
        let colours: Vec<[u8; 3]> = previews.axis_iter(Axis(0)).map(colour_of).collect();
        let mut embedding = Array2::zeros((16, 3));
        for (mut row, colour) in embedding.rows_mut().into_iter().zip(&colours) {
            let norm = colour.iter().map(|&c| f32::from(c).powi(2)).sum::<f32>().sqrt().max(1.0);
            row.iter_mut().zip(colour).for_each(|(e, &c)| *e = f32::from(c) / norm);
        }
        Ok(Signals {
            cluster: colours
                .iter()
                .map(|c| c.iter().fold(0, |k, &v| 3 * k + (u32::from(v) * 3 / 256)))
                .collect(),
            alignment: captions.iter().map(|c| hash::unit(hash::hash_str(c)) as f32).collect(),
            embedding,
            semantic_hash: colours.iter().map(|c| [u64::from(c[0]), 0, 0, 0]).collect(),
        })
    }
    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        Some(self)
    }
}

impl Recaptioner for StubCaptioner {
    fn caption_batch_size(&self) -> usize {
        8
    }
    fn caption_fingerprint(&self) -> u64 {
        2
    }
    fn caption(&mut self, previews: ArrayView4<'_, u8>, ids: &[SampleId]) -> Result<Vec<String>> {
        self.captioned.fetch_add(ids.len(), Ordering::SeqCst);
        let rows = previews.axis_iter(Axis(0)).take(ids.len());
        Ok(rows.map(|r| format!("a picture of {:?}", colour_of(r))).collect())
    }
}

/// A judge whose scores follow from the caption alone: another number than the alignment of
/// [`StubCaptioner`].
pub struct StubJudge {
    /// Captions it was asked of.
    pub asked: Arc<AtomicUsize>,
}

/// What [`StubJudge`] says of a caption.
pub fn judged(caption: &str) -> f32 {
    hash::unit(hash::hash(5, Purpose::Synth, hash::hash_str(caption))) as f32
}

impl Scorer for StubJudge {
    fn dim(&self) -> usize {
        1
    }
    fn preview_size(&self) -> usize {
        2
    }
    fn batch_size(&self) -> usize {
        8
    }
    fn clusters(&self) -> usize {
        1
    }
    fn fingerprint(&self) -> u64 {
        4
    }
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        assert_eq!((previews.dim(), captions.len()), ((8, 3, 2, 2), 8), "batches are always of one shape");
        self.asked.fetch_add(captions.iter().filter(|c| !c.is_empty()).count(), Ordering::SeqCst);
        Ok(Signals {
            cluster: vec![0; 8],
            alignment: captions.iter().map(|c| judged(c)).collect(),
            embedding: Array2::ones((8, 1)),
            semantic_hash: vec![[0; 4]; 8],
        })
    }
}

/// What [`Altered`] does in place of encoding.
type Encode<E> = Box<dyn FnMut(&mut E, ArrayView4<'_, u8>, &[&str]) -> Result<Signals> + Send>;

/// A model that does as another one does, but for what a test says.
pub struct Altered<E> {
    inner: E,
    fingerprint: u64,
    compute: String,
    encode: Encode<E>,
}

impl<E: Scorer + 'static> Altered<E> {
    pub fn new(inner: E) -> Self {
        let (fingerprint, compute) = (inner.fingerprint(), inner.compute());
        Self { inner, fingerprint, compute, encode: Box::new(E::signals) }
    }

    pub fn fingerprint(self, fingerprint: u64) -> Self {
        Self { fingerprint, ..self }
    }

    pub fn compute(self, compute: &str) -> Self {
        Self { compute: compute.to_owned(), ..self }
    }

    pub fn encode(
        self,
        encode: impl FnMut(&mut E, ArrayView4<'_, u8>, &[&str]) -> Result<Signals> + Send + 'static,
    ) -> Self {
        Self { encode: Box::new(encode), ..self }
    }
}

impl<E: Scorer> Scorer for Altered<E> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn preview_size(&self) -> usize {
        self.inner.preview_size()
    }
    fn batch_size(&self) -> usize {
        self.inner.batch_size()
    }
    fn clusters(&self) -> usize {
        self.inner.clusters()
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn compute(&self) -> String {
        self.compute.clone()
    }
    fn signals(&mut self, previews: ArrayView4<'_, u8>, captions: &[&str]) -> Result<Signals> {
        (self.encode)(&mut self.inner, previews, captions)
    }
    fn recaptioner(&mut self) -> Option<&mut dyn Recaptioner> {
        self.inner.recaptioner()
    }
}

/// As [`with_stub`], with a judge and rescue: each caption must pass.
pub fn with_judge(urls: &str) -> LoaderBuilder {
    with_stub(urls)
        .judge(StubJudge { asked: Arc::default() })
        .rescue(true)
        .keep_ratio(0.4)
        .fuse("gated".parse().unwrap())
}

/// A loader over a test corpus that keeps a quarter: windows of 64, small u8 images, one rank.
pub fn builder(urls: &str) -> LoaderBuilder {
    plain(urls).keep_ratio(0.25)
}

/// As [`builder`], without the options of a selection.
fn plain(urls: &str) -> LoaderBuilder {
    Loader::builder(urls)
        .name("test")
        .batch_size(16)
        .image_size(8)
        .dtype(PixelType::U8)
        .window(64)
        .threads(2)
        // A hang is an error that names its stage.
        .stall_timeout(wait::DEADLINE)
        .rank(0)
        .world_size(1)
}

/// As [`builder`], with the stub captioner and concatenated captions.
pub fn with_stub(urls: &str) -> LoaderBuilder {
    builder(urls).captioner(StubCaptioner::new(), clusters()).fuse("concat".parse().unwrap())
}

/// A semantic hash of the scene `red`, of which the first `green` bits, drawn for the scene, are flipped.
pub fn scene_hash([red, green]: [u8; 2]) -> [u64; 4] {
    let mut rng = Rng::new(9, Purpose::Synth, u64::from(red));
    let mut hash: [u64; 4] = std::array::from_fn(|_| rng.next_u64());
    for _ in 0..green {
        let bit = rng.below(256);
        hash[bit / 64] ^= 1 << (bit % 64);
    }
    hash
}

/// What a training loop can see of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: u64,
    pub key: String,
    pub caption: String,
    pub pixels: u64,
}

/// The rows of a batch.
pub fn rows(batch: &Batch) -> Vec<Row> {
    let pixels = batch.images.as_u8().expect("tests use u8");
    let row = pixels.len() / batch.len();
    (0..batch.len())
        .map(|i| Row {
            id: batch.ids[i].0,
            key: batch.keys[i].to_string(),
            caption: batch.captions[i].clone(),
            pixels: hash::hash_bytes(&pixels[i * row..(i + 1) * row]),
        })
        .collect()
}

/// One whole epoch as rows, batch by batch.
pub fn epoch(loader: &Loader) -> Vec<Vec<Row>> {
    loader.iter().unwrap().map(|b| rows(&b.unwrap())).collect()
}

/// Samples of the epoch that just ended which a second one may have to caption and judge again: the lanes
/// are stopped with the last batch, whether or not they have written what they kept beyond it.
pub fn cut_off(loader: &Loader) -> usize {
    let surplus = loader.stats().surplus;
    assert!(surplus < 40, "{surplus} of some hundreds");
    surplus as usize
}

/// The folder of real shards, if it is there; says so when it is not.
pub fn real_data(set: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TLDR_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from)
        .join(set);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there (set TLDR_DATA to the folder of real shards)", folder.display());
    None
}

/// As [`builder`], of every sample.
pub fn full(urls: &str) -> LoaderBuilder {
    plain(urls).mode(Mode::Full)
}

/// As [`builder`], of every sample in order.
pub fn eval(urls: &str) -> LoaderBuilder {
    plain(urls).mode(Mode::Eval)
}

/// A tokenizer trained on the spot.
pub fn tokenizer() -> Tokenizer {
    let captions: Vec<String> = (0..200).map(|i| format!("a colour picture number {i}")).collect();
    Tokenizer::train(captions.iter().map(String::as_str), 200).unwrap()
}

/// A job that plans a test corpus: windows of 64, two threads.
pub fn plan_job(urls: &str, ledger: impl AsRef<Path>, policy: Policy) -> PlanJob {
    let mut job = with_policy(PlanJob::new(vec![urls.to_owned()], ledger), policy);
    job.config.sources[0].name = Some("test".into());
    job.config.runtime.threads = 2;
    job
}

/// The same job by another policy, with windows of 64. A gate that is not given is open.
pub fn with_policy(mut job: PlanJob, policy: Policy) -> PlanJob {
    let gate = Some(policy.gate().clone());
    job.config.selection = Selection { window: 64, gate, ..policy.selection };
    job.config.seed = policy.seed;
    job
}
