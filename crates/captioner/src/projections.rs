//! Constants of encoding on the device: random directions, and what a fit learned.

use ndarray::{Array2, ArrayView4};
use tch::{Device, Kind, Tensor};
use tldr_loader::cluster::Clusters;
use tldr_loader::hash::{Purpose, Rng};
use tldr_loader::model::{SEMANTIC_HASH_BITS, SemanticHash};

use crate::error::{Error, Result};

/// Bits of the semantic hash that travel as one f32: a sum of 16 powers of two is exact in it.
pub(super) const PIECE: usize = 16;

/// Values that are kept of an averaged patch in a descriptor: longer ones are projected at random.
pub(super) const PATCH_DIM: usize = 32;

/// Fails unless previews are `[rows, 3, size, size]`.
pub(super) fn check_previews(previews: &ArrayView4<'_, u8>, rows: usize, size: usize) -> Result<()> {
    let expected = [rows, 3, size, size];
    if previews.shape() == expected {
        return Ok(());
    }
    let found = format!("shape {:?}", previews.shape());
    Err(Error::format("previews", format!("shape {expected:?}"), found))
}

/// Previews as a tensor on `device`, `[rows, 3, size, size]`, u8.
pub(super) fn to_device(
    previews: ArrayView4<'_, u8>,
    rows: usize,
    size: usize,
    device: Device,
) -> Result<Tensor> {
    check_previews(&previews, rows, size)?;
    let layout = previews.as_standard_layout();
    let bytes =
        layout.as_slice().ok_or_else(|| Error::format("previews", "a contiguous array", "strides"))?;
    Ok(Tensor::f_from_slice(bytes)?
        .f_view([rows as i64, 3, size as i64, size as i64])?
        .f_to_device(device)?)
}

/// Constants of encoding, on the device.
#[derive(Debug)]
pub(super) struct Projections {
    device: Device,
    /// Random directions of the semantic hash, `[dim, 256]`.
    directions: Tensor,
    /// 1, 2, 4, .., `[PIECE]`.
    powers: Tensor,
    /// `idf` `[codes]` and centroids `[codes, clusters]`.
    pub(super) clusters: Option<(Tensor, Tensor)>,
    /// Weights `[patches, clusters]` and bias `[clusters]` of clusters by raw indices.
    pub(super) raw_index: Option<(Tensor, Tensor)>,
    /// As [`patch_directions`].
    patch_directions: Option<Tensor>,
    /// Mean descriptor `[features]` and weights `[features, dim]` of embeddings.
    pub(super) discriminant: Option<(Tensor, Tensor)>,
}

impl Projections {
    /// For patches, and before a fit embeddings, of `dim` values.
    pub(super) fn new(dim: usize, device: Device) -> Result<Self> {
        let powers: Vec<f32> = (0..PIECE).map(|bit| (1u32 << bit) as f32).collect();
        Ok(Self {
            device,
            directions: hash_directions(dim, device)?,
            powers: Tensor::f_from_slice(&powers)?.f_to_device(device)?,
            clusters: None,
            raw_index: None,
            patch_directions: patch_directions(dim, device)?,
            discriminant: None,
        })
    }

    /// What patches are projected on before they become part of a descriptor.
    pub(super) fn patch_directions(&self) -> Option<&Tensor> {
        self.patch_directions.as_ref()
    }

    /// Signs of random projections, `[batch, 16]`: 16 bits in each f32.
    pub(super) fn semantic_hash(&self, embedding: &Tensor) -> Result<Tensor> {
        let (batch, _) = embedding.size2()?;
        let bits = embedding.f_mm(&self.directions)?.f_gt(0.0)?.f_to_kind(Kind::Float)?;
        let pieces = bits.f_view([batch, (SEMANTIC_HASH_BITS / PIECE) as i64, PIECE as i64])?;
        // A product of matrices might round on a GPU (TF32); this does not.
        Ok(pieces.f_mul(&self.powers)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?)
    }

    /// Takes over what a fit learned, or forgets it; `dim` is the length of an embedding from now on.
    pub(super) fn set_clusters(&mut self, clusters: Option<&Clusters>, dim: usize) -> Result<()> {
        self.directions = hash_directions(dim, self.device)?;
        let row = |values: &[f32]| Ok::<_, Error>(Tensor::f_from_slice(values)?.f_to_device(self.device)?);
        let columns = |rows: &Array2<f32>| Ok::<_, Error>(matrix(rows, self.device)?.f_tr()?.f_contiguous()?);
        let learned = clusters.and_then(|clusters| clusters.discriminant.as_ref());
        let learned = learned.map(|d| Ok::<_, Error>((row(&d.mean)?, matrix(&d.weights, self.device)?)));
        let raw = clusters.and_then(|clusters| clusters.raw_index.as_ref());
        let raw = raw.map(|raw| Ok::<_, Error>((columns(&raw.weights)?, row(&raw.bias)?)));
        let bags = clusters.map(|c| Ok::<_, Error>((row(&c.idf)?, columns(&c.centroids)?)));
        (self.discriminant, self.raw_index, self.clusters) =
            (learned.transpose()?, raw.transpose()?, bags.transpose()?);
        Ok(())
    }
}

/// A matrix on the device.
fn matrix(rows: &Array2<f32>, device: Device) -> Result<Tensor> {
    let (height, width) = rows.dim();
    let values: Vec<f32> = rows.iter().copied().collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([height as i64, width as i64])?.f_to_device(device)?)
}

/// Random directions of the semantic hash of embeddings of `dim` values, `[dim, 256]`. The same for every
/// captioner of this dimension: no seed, since a signal depends on the sample and the captioner only.
fn hash_directions(dim: usize, device: Device) -> Result<Tensor> {
    let mut rng = Rng::new(0, Purpose::SemanticHash, dim as u64);
    let values: Vec<f32> = (0..dim * SEMANTIC_HASH_BITS).map(|_| rng.normal() as f32).collect();
    let directions = Tensor::f_from_slice(&values)?.f_view([dim as i64, SEMANTIC_HASH_BITS as i64])?;
    Ok(directions.f_to_device(device)?)
}

/// The words of a semantic hash, from its pieces on the host.
pub(super) fn hash_words(pieces: &[f32]) -> SemanticHash {
    let mut words = SemanticHash::default();
    for (word, pieces) in words.iter_mut().zip(pieces.chunks(64 / PIECE)) {
        for (place, &piece) in pieces.iter().enumerate() {
            *word |= u64::from(piece as u32) << (PIECE * place);
        }
    }
    words
}

/// Random directions that patches of `dim` values are projected on, `[dim, PATCH_DIM]`; `None` where they are
/// short enough. The same for every captioner of this dimension.
fn patch_directions(dim: usize, device: Device) -> Result<Option<Tensor>> {
    if dim <= PATCH_DIM {
        return Ok(None);
    }
    let mut rng = Rng::new(0, Purpose::PatchDirections, dim as u64);
    let scale = 1.0 / (PATCH_DIM as f64).sqrt();
    let values: Vec<f32> = (0..dim * PATCH_DIM).map(|_| (scale * rng.normal()) as f32).collect();
    Ok(Some(Tensor::f_from_slice(&values)?.f_view([dim as i64, PATCH_DIM as i64])?.f_to_device(device)?))
}
