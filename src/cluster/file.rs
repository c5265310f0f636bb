//! `clusters.safetensors`: the fields of [`Clusters`] as tensors, checked on the way in and out.
//!
//! | tensor | type | shape |
//! | --- | --- | --- |
//! | `idf` | f32 | codes |
//! | `centroids` | f32 | clusters, codes |
//! | `runs` | u32 | clusters |
//! | `shares` | f64 | clusters |
//! | `gated` | f64 | clusters, 20 |
//! | `alignment.length_edges` | u32 | length bins - 1 |
//! | `alignment.run_groups` | u32 | runs |
//! | `alignment.knots` | f32 | length bins, run groups, knots |
//!
//! | `raw_index.weights`, if any | f32 | clusters, patches |
//! | `raw_index.bias`, if any | f32 | clusters |
//! | `discriminant.mean`, if any | f32 | features |
//! | `discriminant.weights`, if any | f32 | features, dim |
//! | `trained_on`, if known | u64 | marks of shards |
//!
//! The header's metadata hold `format`, `alignment.norm` and `points`, and `worth`, if measured: a [`GateWorth`] as JSON.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use ndarray::{Array2, Array3};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::aside;
use crate::cluster::alignment::{AlignmentNorm, AlignmentTable};
use crate::cluster::clusters::{Clusters, GATE_STEPS};
use crate::cluster::discriminant::Discriminant;
use crate::cluster::raw_index::RawIndex;
use crate::cluster::worth::GateWorth;
use crate::error::{Error, Result};
use crate::hash;

/// Value of `format`: another layout gets another number.
const FORMAT: &str = "tldr-loader clusters 1";

/// Metadata with what the gate is worth, and tensor with what the captioner was trained on.
const WORTH: &str = "worth";
const TRAINED_ON: &str = "trained_on";

/// What to do about a file that is not right.
const REMEDY: &str = "(run fit again to write a new one)";

/// Tolerance of lengths and sums that should be 1: well above f32 noise, well below any mistake.
const NEAR_ONE: f64 = 1e-3;

struct Field {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn fields(clusters: &Clusters) -> Vec<Field> {
    let f32s = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect();
    let f64s = |values: &mut dyn Iterator<Item = f64>| values.flat_map(f64::to_le_bytes).collect();
    let u32s = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (c, a) = (clusters, &clusters.alignment);
    let field = |name, dtype, shape: &[usize], bytes| Field { name, dtype, shape: shape.to_vec(), bytes };
    let mut fields = vec![
        field("idf", Dtype::F32, &[c.idf.len()], f32s(&mut c.idf.iter().copied())),
        field("centroids", Dtype::F32, c.centroids.shape(), f32s(&mut c.centroids.iter().copied())),
        field("runs", Dtype::U32, &[c.runs.len()], u32s(&c.runs)),
        field("shares", Dtype::F64, &[c.shares.len()], f64s(&mut c.shares.iter().copied())),
        field("gated", Dtype::F64, c.gated.shape(), f64s(&mut c.gated.iter().copied())),
        field("alignment.length_edges", Dtype::U32, &[a.length_edges.len()], u32s(&a.length_edges)),
        field("alignment.run_groups", Dtype::U32, &[a.run_groups.len()], u32s(&a.run_groups)),
        field("alignment.knots", Dtype::F32, a.knots.shape(), f32s(&mut a.knots.iter().copied())),
    ];
    if let Some(raw) = &c.raw_index {
        let weights = f32s(&mut raw.weights.iter().copied());
        fields.push(field("raw_index.weights", Dtype::F32, raw.weights.shape(), weights));
        fields.push(field(
            "raw_index.bias",
            Dtype::F32,
            &[raw.bias.len()],
            f32s(&mut raw.bias.iter().copied()),
        ));
    }
    if let Some(d) = &c.discriminant {
        fields.push(field(
            "discriminant.mean",
            Dtype::F32,
            &[d.mean.len()],
            f32s(&mut d.mean.iter().copied()),
        ));
        let weights = f32s(&mut d.weights.iter().copied());
        fields.push(field("discriminant.weights", Dtype::F32, d.weights.shape(), weights));
    }
    fields
}

/// What the captioner was trained on, where that is known.
fn trained_on(clusters: &Clusters) -> Option<Field> {
    let marks = &clusters.trained_on;
    let bytes = marks.iter().flat_map(|mark| mark.to_le_bytes()).collect();
    let field = Field { name: TRAINED_ON, dtype: Dtype::U64, shape: vec![marks.len()], bytes };
    (!marks.is_empty()).then_some(field)
}

impl Clusters {
    /// Reads and checks a `clusters.safetensors`. Never runs code, never panics on garbage.
    ///
    /// # Errors
    /// A file that cannot be read; a tensor that is missing, or of another type or shape than the
    /// others imply, or whose values cannot be (the error names tensor, expected and found).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        load(path.as_ref())
    }

    /// Writes a `clusters.safetensors`: aside first, then renamed into place.
    ///
    /// # Errors
    /// Fields that do not fit each other, or a file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(self, path.as_ref())
    }

    /// Checks that shapes fit each other and values are what the fields promise.
    ///
    /// # Errors
    /// The first field that does not, with what was expected and found.
    pub fn validate(&self) -> Result<()> {
        validate(self)
    }

    /// Identifies everything in here that signals depend on: those made with other clusters never mix.
    /// O(clusters * codes).
    pub fn fingerprint(&self) -> u64 {
        fingerprint(self)
    }
}

/// Hash of all fields that signals depend on, independent of how a file lays them out.
fn fingerprint(clusters: &Clusters) -> u64 {
    let mut parts = vec![hash::hash_str(clusters.alignment.norm.name()), clusters.points];
    for field in fields(clusters) {
        parts.extend(field.shape.iter().map(|&n| n as u64));
        parts.push(hash::hash_bytes(&field.bytes));
    }
    hash::combine(&parts)
}

fn save(clusters: &Clusters, path: &Path) -> Result<()> {
    validate(clusters)?;
    let fields: Vec<Field> = fields(clusters).into_iter().chain(trained_on(clusters)).collect();
    let file = path.display().to_string();
    let mut metadata = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("alignment.norm".to_owned(), clusters.alignment.norm.name().to_owned()),
        ("points".to_owned(), clusters.points.to_string()),
    ]);
    if let Some(worth) = &clusters.worth {
        let json = serde_json::to_string(worth)
            .map_err(|e| Error::format(&file, "a worth that can be written as JSON", e))?;
        metadata.insert(WORTH.to_owned(), json);
    }
    let views: Vec<(&str, TensorView<'_>)> = fields
        .iter()
        .map(|f| TensorView::new(f.dtype, f.shape.clone(), &f.bytes).map(|view| (f.name, view)))
        .collect::<Result<_, _>>()
        .map_err(|e| Error::format(&file, "tensors that can be written", e))?;
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::format(&file, "tensors that can be written", e))?;
    aside::write(path, bytes).map_err(|e| Error::io(format!("write {file}"), e))
}

fn load(path: &Path) -> Result<Clusters> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::io(format!("read {file}"), e))?;
    parse(&bytes).map_err(|mut error| {
        if let crate::ErrorKind::Format { what, .. } = &mut error.kind {
            *what = format!("{file}: {what}");
        }
        error
    })
}

fn parse(bytes: &[u8]) -> Result<Clusters> {
    let not_safetensors = |e| Error::format("file", format!("safetensors {REMEDY}"), e);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
    let none = HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&none);
    let entry = |name: &str| metadata.get(name).map_or("nothing", String::as_str);
    if entry("format") != FORMAT {
        return Err(unexpected("metadata `format`", format!("{FORMAT:?}"), entry("format")));
    }
    let norm = AlignmentNorm::from_name(entry("alignment.norm")).map_err(|_| {
        unexpected("metadata `alignment.norm`", "sum, mean or matched", entry("alignment.norm"))
    })?;
    let points = entry("points")
        .parse()
        .map_err(|_| unexpected("metadata `points`", "a whole number", entry("points")))?;

    let worth = metadata.get(WORTH).map(|json| worth(json)).transpose()?;
    let trained_on = match tensors.names().contains(&TRAINED_ON) {
        false => vec![],
        true => {
            tensor::<1, 8>(&tensors, TRAINED_ON, Dtype::U64)?.1.into_iter().map(u64::from_le_bytes).collect()
        }
    };

    let (_, idf) = tensor::<1, 4>(&tensors, "idf", Dtype::F32)?;
    let centroids = matrix(&tensors, "centroids")?;
    let (_, runs) = tensor::<1, 4>(&tensors, "runs", Dtype::U32)?;
    let (_, shares) = tensor::<1, 8>(&tensors, "shares", Dtype::F64)?;
    let (shape, gated) = tensor::<2, 8>(&tensors, "gated", Dtype::F64)?;
    let gated = Array2::from_shape_vec(shape, f64s(gated)).map_err(|e| mismatch("gated", e))?;
    let (_, edges) = tensor::<1, 4>(&tensors, "alignment.length_edges", Dtype::U32)?;
    let (_, groups) = tensor::<1, 4>(&tensors, "alignment.run_groups", Dtype::U32)?;
    let (shape, knots) = tensor::<3, 4>(&tensors, "alignment.knots", Dtype::F32)?;
    let knots = Array3::from_shape_vec(shape, f32s(knots)).map_err(|e| mismatch("alignment.knots", e))?;
    let raw_index = match tensors.names().iter().any(|name| name.starts_with("raw_index.")) {
        false => None,
        true => {
            let weights = matrix(&tensors, "raw_index.weights")?;
            let (_, bias) = tensor::<1, 4>(&tensors, "raw_index.bias", Dtype::F32)?;
            Some(RawIndex { weights, bias: f32s(bias) })
        }
    };
    let discriminant = match tensors.names().iter().any(|name| name.starts_with("discriminant.")) {
        false => None,
        true => {
            let weights = matrix(&tensors, "discriminant.weights")?;
            let (_, mean) = tensor::<1, 4>(&tensors, "discriminant.mean", Dtype::F32)?;
            Some(Discriminant { mean: f32s(mean), weights })
        }
    };
    let clusters = Clusters {
        raw_index,
        discriminant,
        worth,
        trained_on,
        idf: f32s(idf),
        centroids,
        runs: u32s(runs),
        shares: f64s(shares),
        gated,
        alignment: AlignmentTable { norm, length_edges: u32s(edges), run_groups: u32s(groups), knots },
        points,
    };
    validate(&clusters)?;
    Ok(clusters)
}

/// What the gate is worth, as it stands in the metadata.
fn worth(json: &str) -> Result<GateWorth> {
    let worth: Option<GateWorth> = serde_json::from_str(json).ok();
    let sound = |w: &GateWorth| {
        (0.0..=1.0).contains(&w.validation.auc)
            && (0.0..=1.0).contains(&w.validation.auc_error)
            && w.validation.lm_loss.is_none_or(f64::is_finite)
    };
    worth.filter(sound).ok_or_else(|| {
        let expected =
            "JSON of an AUC and its standard error in [0, 1], a loss, and what they were measured on";
        unexpected("metadata `worth`", expected, json)
    })
}

fn matrix(tensors: &SafeTensors<'_>, name: &str) -> Result<Array2<f32>> {
    let (shape, values) = tensor::<2, 4>(tensors, name, Dtype::F32)?;
    Array2::from_shape_vec(shape, f32s(values)).map_err(|e| mismatch(name, e))
}

/// Shape and items of a tensor of `DIMS` dimensions and `BYTES` bytes per item.
fn tensor<const DIMS: usize, const BYTES: usize>(
    tensors: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
) -> Result<([usize; DIMS], Vec<[u8; BYTES]>)> {
    let expected = || format!("{dtype:?} of {DIMS} dimensions");
    let view = tensors.tensor(name).map_err(|_| unexpected(&quoted(name), expected(), "no such tensor"))?;
    let shape = <[usize; DIMS]>::try_from(view.shape()).ok().filter(|_| view.dtype() == dtype);
    let found = || format!("{:?} {:?}", view.dtype(), view.shape());
    let shape = shape.ok_or_else(|| unexpected(&quoted(name), expected(), found()))?;
    Ok((shape, view.data().as_chunks::<BYTES>().0.to_vec()))
}

fn f32s(items: Vec<[u8; 4]>) -> Vec<f32> {
    items.into_iter().map(f32::from_le_bytes).collect()
}

fn f64s(items: Vec<[u8; 8]>) -> Vec<f64> {
    items.into_iter().map(f64::from_le_bytes).collect()
}

fn u32s(items: Vec<[u8; 4]>) -> Vec<u32> {
    items.into_iter().map(u32::from_le_bytes).collect()
}

/// Checks that shapes fit each other and values are what [`Clusters`] promises.
fn validate(c: &Clusters) -> Result<()> {
    let (clusters, codes) = c.centroids.dim();
    if clusters == 0 || codes == 0 {
        return Err(shape("centroids", "at least one cluster and one code", [clusters, codes]));
    }
    require(c.idf.len() == codes, || shape("idf", codes, c.idf.len()))?;
    require(c.runs.len() == clusters, || shape("runs", clusters, c.runs.len()))?;
    require(c.shares.len() == clusters, || shape("shares", clusters, c.shares.len()))?;
    require(c.gated.dim() == (clusters, GATE_STEPS), || {
        shape("gated", format!("[{clusters}, {GATE_STEPS}]"), c.gated.dim())
    })?;

    let bad = c.idf.iter().find(|w| !(w.is_finite() && **w >= 0.0));
    require(bad.is_none(), || value("idf", "finite weights of at least 0", bad))?;
    for (cluster, row) in c.centroids.outer_iter().enumerate() {
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        require((norm - 1.0).abs() < NEAR_ONE, || {
            unexpected(&format!("tensor `centroids`, row {cluster}"), "length 1", norm)
        })?;
    }
    require(counts_up(&c.runs), || value("runs", "numbers from 0 that rise by 0 or 1", Some(&c.runs)))?;
    let sum: f64 = c.shares.iter().sum();
    require(c.shares.iter().all(|s| *s >= 0.0) && (sum - 1.0).abs() < NEAR_ONE, || {
        value("shares", "shares of at least 0 that sum to 1", Some(sum))
    })?;
    for (cluster, (row, share)) in c.gated.outer_iter().zip(&c.shares).enumerate() {
        let falls = row.iter().zip(row.iter().skip(1)).all(|(a, b)| a >= b) && row.iter().all(|v| *v >= 0.0);
        require(falls && (row[0] - share).abs() < NEAR_ONE, || {
            unexpected(
                &format!("tensor `gated`, row {cluster}"),
                "shares that fall from the cluster's own towards 0",
                row,
            )
        })?;
    }
    if let Some(raw) = &c.raw_index {
        require(raw.weights.nrows() == clusters && raw.weights.ncols() > 0, || {
            shape("raw_index.weights", format!("[{clusters}, patches]"), raw.weights.dim())
        })?;
        require(raw.bias.len() == clusters, || shape("raw_index.bias", clusters, raw.bias.len()))?;
        let bad = raw.weights.iter().chain(&raw.bias).find(|v| !v.is_finite());
        require(bad.is_none(), || value("raw_index", "finite numbers", bad))?;
    }
    c.discriminant.as_ref().map_or(Ok(()), Discriminant::validate)?;
    validate_alignment(&c.alignment, c.run_count())
}

fn validate_alignment(table: &AlignmentTable, runs: usize) -> Result<()> {
    let (bins, groups, knots) = table.knots.dim();
    require(bins == table.length_edges.len() + 1 && knots >= 2, || {
        let bins = table.length_edges.len() + 1;
        shape("alignment.knots", format!("[{bins}, run groups, 2 or more]"), table.knots.dim())
    })?;
    require(table.length_edges.is_sorted_by(|a, b| a < b), || {
        value("alignment.length_edges", "rising edges", Some(&table.length_edges))
    })?;
    require(table.run_groups.len() == runs, || shape("alignment.run_groups", runs, table.run_groups.len()))?;
    let last = table.run_groups.last().map_or(0, |&g| g as usize + 1);
    require(counts_up(&table.run_groups) && last == groups, || {
        let expected = format!("numbers from 0 that rise by 0 or 1 to {groups} - 1");
        value("alignment.run_groups", expected, Some(&table.run_groups))
    })?;
    for row in table.knots.rows() {
        let rises = row.iter().zip(row.iter().skip(1)).all(|(a, b)| a <= b);
        require(rises && row.iter().all(|v| v.is_finite()), || {
            value("alignment.knots", "finite scores that do not fall", Some(row))
        })?;
    }
    Ok(())
}

/// 0, then each the same as the one before or one more.
fn counts_up(values: &[u32]) -> bool {
    values.first().is_none_or(|&v| v == 0)
        && values.iter().zip(values.iter().skip(1)).all(|(a, b)| *b == *a || Some(*b) == a.checked_add(1))
}

fn require(holds: bool, error: impl FnOnce() -> Error) -> Result<()> {
    if holds { Ok(()) } else { Err(error()) }
}

fn quoted(tensor: &str) -> String {
    format!("tensor `{tensor}`")
}

fn unexpected(what: &str, expected: impl Display, found: impl Display) -> Error {
    Error::format(what, format!("{expected} {REMEDY}"), found)
}

fn mismatch(tensor: &str, error: ndarray::ShapeError) -> Error {
    unexpected(&quoted(tensor), "as many items as its shape says", error)
}

fn shape(tensor: &str, expected: impl Display, found: impl std::fmt::Debug) -> Error {
    unexpected(&quoted(tensor), format!("shape {expected}"), format!("{found:?}"))
}

fn value(tensor: &str, expected: impl Display, found: Option<impl std::fmt::Debug>) -> Error {
    unexpected(&quoted(tensor), expected, found.map_or_else(String::new, |found| format!("{found:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::{arr2, array};
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::worth::{MeasuredOn, Validation};

    fn example() -> Clusters {
        let gated = |share: f64| (0..GATE_STEPS).map(move |i| share * (1.0 - i as f64 / GATE_STEPS as f64));
        let rows: Vec<f64> = gated(0.5).chain(gated(0.3)).chain(gated(0.2)).collect();
        Clusters {
            idf: vec![1.0, 2.5],
            centroids: arr2(&[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]),
            runs: vec![0, 1, 1],
            shares: vec![0.5, 0.3, 0.2],
            gated: Array2::from_shape_vec((3, GATE_STEPS), rows).unwrap(),
            alignment: AlignmentTable {
                norm: AlignmentNorm::Matched,
                length_edges: vec![7],
                run_groups: vec![0, 0],
                knots: array![[[-1.0, 0.0, 2.0]], [[0.0, 0.5, 1.5]]],
            },
            points: 1234,
            raw_index: None,
            discriminant: None,
            worth: None,
            trained_on: vec![],
        }
    }

    fn bytes_of(clusters: &Clusters) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusters.safetensors");
        clusters.save(&path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_saved_file_loads_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusters.safetensors");
        let clusters = example();
        clusters.save(&path).unwrap();
        let loaded = Clusters::load(&path).unwrap();
        assert_eq!(loaded, clusters);
        assert_eq!(loaded.fingerprint(), clusters.fingerprint());
    }

    #[test]
    fn what_a_gate_is_worth_and_was_trained_on_comes_back_and_is_in_no_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusters.safetensors");
        let validation = Validation { pairs: 500, lm_loss: Some(2.75), auc: 0.5321, auc_error: 0.0183 };
        let known = Clusters {
            worth: Some(GateWorth { validation, on: MeasuredOn::HeldOut }),
            trained_on: vec![3, 1 << 40, u64::MAX],
            ..example()
        };
        known.save(&path).unwrap();
        assert_eq!(Clusters::load(&path).unwrap(), known);
        assert_eq!(known.fingerprint(), example().fingerprint());
        // Damage is named, and what would mend it.
        for damage in ["{}", "{\"validation\"", "[1]"] {
            let message = worth(damage).unwrap_err().to_string();
            assert!(message.contains("metadata `worth`") && message.contains("run fit again"), "{message}");
        }
        let wild = serde_json::to_string(&known.worth).unwrap().replace("0.5321", "5.321");
        assert!(worth(&wild).unwrap_err().to_string().contains("5.321"));
    }

    #[test]
    fn every_field_is_in_the_fingerprint() {
        let changes: [fn(&mut Clusters); 9] = [
            |c| c.idf[1] = 2.0,
            |c| c.centroids.row_mut(1).assign(&array![0.8, 0.6]),
            |c| c.runs = vec![0, 0, 1],
            |c| c.shares[0] += 1e-9,
            |c| c.gated[[2, 7]] += 1e-9,
            |c| c.alignment.norm = AlignmentNorm::Sum,
            |c| c.alignment.length_edges[0] = 8,
            |c| c.alignment.knots[[0, 0, 1]] = 0.1,
            |c| c.points += 1,
        ];
        let mut seen = vec![example().fingerprint()];
        for change in changes {
            let mut changed = example();
            change(&mut changed);
            seen.push(changed.fingerprint());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn errors_name_tensor_expected_and_found() {
        type Change = fn(&mut Clusters);
        let cases: [(Change, &str); 9] = [
            (|c| c.idf.push(1.0), "tensor `idf`: expected shape 2"),
            (|c| c.idf[0] = f32::NAN, "tensor `idf`: expected finite weights"),
            (|c| c.centroids[[2, 1]] = 0.5, "tensor `centroids`, row 2: expected length 1"),
            (|c| c.runs[0] = 1, "tensor `runs`: expected numbers from 0"),
            (|c| c.shares[0] = 0.9, "tensor `shares`: expected shares of at least 0 that sum to 1"),
            (|c| c.gated[[1, 3]] = 0.9, "tensor `gated`, row 1: expected shares that fall"),
            (|c| c.alignment.length_edges = vec![7, 7], "tensor `alignment.knots`: expected shape [3,"),
            (|c| c.alignment.run_groups = vec![0, 1], "tensor `alignment.run_groups`: expected numbers"),
            (|c| c.alignment.knots[[0, 0, 1]] = 9.0, "tensor `alignment.knots`: expected finite scores"),
        ];
        for (change, message) in cases {
            let mut clusters = example();
            change(&mut clusters);
            let error = clusters.save("/nonexistent/file").unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let error = Clusters::load("/nonexistent/clusters.safetensors").unwrap_err().to_string();
        assert!(error.contains("cannot read /nonexistent/clusters.safetensors"), "{error}");
    }

    #[test]
    fn other_safetensors_are_refused_by_name() {
        let one = 1f32.to_le_bytes();
        let view = || TensorView::new(Dtype::F32, vec![1], &one).unwrap();
        let metadata = |format: &str| {
            let pairs = [("format", format), ("alignment.norm", "sum"), ("points", "1")];
            Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
        };
        let bytes = safetensors::serialize([("weight", view())], None).unwrap();
        assert!(parse(&bytes).unwrap_err().to_string().contains("metadata `format`"));
        let bytes = safetensors::serialize([("idf", view())], metadata(FORMAT)).unwrap();
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(
            error.contains("tensor `centroids`: expected F32 of 2 dimensions")
                && error.contains("no such tensor"),
            "{error}"
        );
        let bytes =
            safetensors::serialize([("idf", view()), ("centroids", view())], metadata(FORMAT)).unwrap();
        let error = parse(&bytes).unwrap_err().to_string();
        assert!(error.contains("found F32 [1]"), "{error}");
        for cut in [0, 7, 9, 300] {
            assert!(parse(&bytes_of(&example())[..cut]).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_files_never_panic(place in 0.0..1.0f64, byte: u8, cut in 0.5..1.0f64, shorten: bool) {
            let mut bytes = bytes_of(&example());
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = byte;
            if shorten {
                bytes.truncate((cut * bytes.len() as f64) as usize);
            }
            if let Ok(clusters) = parse(&bytes) {
                prop_assert!(clusters.validate().is_ok());
                clusters.pass_rate(0.5);
                clusters.nearest(Array2::ones((1, 2)).view()).unwrap();
            }
        }
    }
}
