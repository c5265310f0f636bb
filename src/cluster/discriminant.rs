//! What tells images apart: a linear discriminant.
//!
//! Descriptors of two images differ for two reasons: the images show something else, or they are near-duplicates, cut,
//! scaled or brightened a little otherwise. A cosine between descriptors as they are mixes the two. Divided by the
//! covariance of the differences between near-duplicates, these differences are equally small in all directions, and
//! those directions are kept in which images differ much more than their copies do: Fisher's discriminant with each
//! image and its copies as a class (Mikolajczyk and Matas 2007; Radenovic, Tolias and Chum 2018, section 3.3,
//! where pairs are matched by geometry; here copies are made).

use ndarray::Array2;

use crate::error::{Error, Result};

/// A linear map from descriptors of images to embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Discriminant {
    /// Mean descriptor of the corpus, `[features]`.
    pub mean: Vec<f32>,
    /// What a centred descriptor is multiplied with, `[features, dim]`, the most telling direction first.
    pub weights: Array2<f32>,
}

impl Discriminant {
    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.weights.ncols()
    }

    /// Fails where the parts do not fit each other, or hold what is no number.
    pub(super) fn validate(&self) -> Result<()> {
        let (features, dim) = self.weights.dim();
        if features == 0 || dim == 0 {
            let found = format!("[{features}, {dim}]");
            return Err(Error::format("tensor `discriminant.weights`", "features and directions", found));
        }
        if self.mean.len() != features {
            let expected = format!("{features} values");
            return Err(Error::format("tensor `discriminant.mean`", expected, self.mean.len()));
        }
        match self.mean.iter().chain(&self.weights).find(|v| !v.is_finite()) {
            Some(bad) => Err(Error::format("tensors `discriminant.*`", "finite numbers", bad)),
            None => Ok(()),
        }
    }
}
