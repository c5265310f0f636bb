//! Bags of codes: what makes two images comparable.
//!
//! The signature of an image is phi = normalise(sqrt(histogram of its patch codes) * idf). The
//! square root makes the dot product of two signatures a Bhattacharyya coefficient (one code that
//! fills the background does not drown the rest), idf makes codes that every image has count
//! less. Two codes that merely have close indices have nothing in common, which is why k-means on
//! the indices themselves finds nothing.

use ndarray::{Array2, ArrayView2, Axis};

use crate::error::{Error, Result};

/// Writes the signature of one image into `out`.
///
/// `codes` `[patches]` in any order, each below `idf.len()`; `idf` and `out` `[codes]`. The result
/// has unit length, or is all zero where `codes` is empty or of zero idf. O(patches + codes).
///
/// # Errors
/// A code outside the codebook, or `out` of another length than `idf`.
pub fn signature(codes: &[u32], idf: &[f32], out: &mut [f32]) -> Result<()> {
    if out.len() != idf.len() {
        return Err(Error::format("signature", format!("{} codes", idf.len()), out.len()));
    }
    out.fill(0.0);
    for &code in codes {
        *out.get_mut(code as usize).ok_or_else(|| outside(code, idf.len()))? += 1.0;
    }
    for (value, weight) in out.iter_mut().zip(idf) {
        *value = value.sqrt() * weight;
    }
    normalise(out);
    Ok(())
}

/// Number of images in which each code occurs, `[codebook]`; `codes` is `[points, patches]`.
///
/// # Errors
/// A code outside the codebook.
pub fn document_frequency(codes: ArrayView2<'_, u32>, codebook: usize) -> Result<Vec<u64>> {
    let mut frequency = vec![0; codebook];
    let mut seen_in = vec![usize::MAX; codebook];
    for (point, row) in codes.axis_iter(Axis(0)).enumerate() {
        for &code in row {
            let seen = seen_in.get_mut(code as usize).ok_or_else(|| outside(code, codebook))?;
            if *seen != point {
                *seen = point;
                frequency[code as usize] += 1;
            }
        }
    }
    Ok(frequency)
}

/// Inverse document frequency, ln((1 + points) / (1 + frequency)) + 1, `[codes]`.
///
/// The smooth form: a code that every image has keeps the weight 1, so that a small codebook,
/// most of which is in every image, does not lose its histograms.
pub fn idf(document_frequency: &[u64], points: u64) -> Vec<f32> {
    let points = 1.0 + points as f64;
    document_frequency.iter().map(|&f| (1.0 + (points / (1.0 + f as f64)).ln().max(0.0)) as f32).collect()
}

/// Signatures of many images, sparse: an image has at most `patches` of the codes, so that this is
/// a tenth of the dense matrix or less and k-means costs as much less.
#[derive(Debug, Clone, PartialEq)]
pub struct Signatures {
    /// Row `i` is `offsets[i]..offsets[i + 1]` of the two arrays below.
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    width: usize,
}

impl Signatures {
    /// Signatures of `codes` `[points, patches]` by [`signature`]'s formula. O(points * patches).
    ///
    /// # Errors
    /// A code outside the codebook (`idf.len()`).
    pub fn from_codes(codes: ArrayView2<'_, u32>, idf: &[f32]) -> Result<Self> {
        let mut rows = Self::empty(idf.len(), codes.nrows());
        let mut sorted = Vec::with_capacity(codes.ncols());
        for row in codes.axis_iter(Axis(0)) {
            sorted.clear();
            sorted.extend(row.iter().copied());
            sorted.sort_unstable();
            if let Some(&code) = sorted.last().filter(|&&code| code as usize >= idf.len()) {
                return Err(outside(code, idf.len()));
            }
            let start = rows.values.len();
            for equal in sorted.chunk_by(|a, b| a == b) {
                rows.columns.push(equal[0]);
                rows.values.push((equal.len() as f32).sqrt() * idf[equal[0] as usize]);
            }
            normalise(&mut rows.values[start..]);
            rows.offsets.push(rows.values.len());
        }
        Ok(rows)
    }

    /// Rows of any dense matrix `[points, width]`, normalised to unit length.
    pub fn from_dense(points: ArrayView2<'_, f32>) -> Self {
        let mut rows = Self::empty(points.ncols(), points.nrows());
        for row in points.axis_iter(Axis(0)) {
            let start = rows.values.len();
            for (column, &value) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                rows.columns.push(column as u32);
                rows.values.push(value);
            }
            normalise(&mut rows.values[start..]);
            rows.offsets.push(rows.values.len());
        }
        rows
    }

    /// The points `rows`, in that order; each below [`len`](Self::len).
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        let mut chosen = Self::empty(self.width, rows.len());
        for range in rows.iter().map(|&row| self.offsets[row]..self.offsets[row + 1]) {
            chosen.columns.extend_from_slice(&self.columns[range.clone()]);
            chosen.values.extend_from_slice(&self.values[range]);
            chosen.offsets.push(chosen.values.len());
        }
        chosen
    }

    fn empty(width: usize, points: usize) -> Self {
        let mut offsets = Vec::with_capacity(points + 1);
        offsets.push(0);
        Self { offsets, columns: Vec::new(), values: Vec::new(), width }
    }

    /// All values, `[points, width]`.
    pub(crate) fn dense(&self) -> Array2<f32> {
        let mut rows = Array2::zeros((self.len(), self.width));
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            self.row(i).for_each(|(column, value)| row[column] = value);
        }
        rows
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of a signature: the number of codes.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Non-zero columns of point `i`, ascending, with their values.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + Clone + '_ {
        let range = self.offsets[i]..self.offsets[i + 1];
        self.columns[range.clone()].iter().map(|&c| c as usize).zip(self.values[range].iter().copied())
    }
}

/// Scales to unit length; leaves zero as it is.
pub(crate) fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

fn outside(code: u32, codebook: usize) -> Error {
    Error::format("patch code", format!("a number below the codebook's size, {codebook}"), code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ndarray::array;

    use super::*;

    #[test]
    fn signature_by_hand() {
        // sqrt counts 2, 1, 0; weights 1, 2, 5: (2, 2, 0), of length sqrt 8.
        let mut out = [9.0; 3];
        signature(&[0, 1, 0, 0, 0], &[1.0, 2.0, 5.0], &mut out).unwrap();
        let half = 0.5f32.sqrt();
        assert!((out[0] - half).abs() < 1e-6 && (out[1] - half).abs() < 1e-6 && out[2] == 0.0);
    }

    #[test]
    fn sparse_rows_equal_dense_signatures() {
        let codes = array![[3, 1, 1, 0], [2, 2, 2, 2], [4, 0, 4, 3]];
        let frequency = document_frequency(codes.view(), 6).unwrap();
        assert_eq!(frequency, [2, 1, 1, 2, 1, 0]);
        let weights = idf(&frequency, 3);
        let rows = Signatures::from_codes(codes.view(), &weights).unwrap();
        for i in 0..3 {
            let mut dense = vec![0.0; 6];
            signature(codes.row(i).as_slice().unwrap(), &weights, &mut dense).unwrap();
            let mut sparse = vec![0.0; 6];
            rows.row(i).for_each(|(c, v)| sparse[c] = v);
            assert_eq!(dense, sparse);
        }
    }

    #[test]
    fn chosen_rows_are_those_of_the_whole() {
        let rows = Signatures::from_dense(array![[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]].view());
        let chosen = rows.select(&[2, 0, 2]);
        let row = |rows: &Signatures, i| rows.row(i).collect::<Vec<_>>();
        assert_eq!((chosen.len(), chosen.width()), (3, 2));
        assert_eq!((row(&chosen, 0), row(&chosen, 1)), (row(&rows, 2), row(&rows, 0)));
        assert_eq!(row(&chosen, 2), row(&rows, 2));
    }

    #[test]
    fn codes_outside_the_codebook_are_refused() {
        let message = signature(&[3], &[1.0; 3], &mut [0.0; 3]).unwrap_err().to_string();
        assert!(message.contains("below the codebook's size, 3, found 3"), "{message}");
        assert!(document_frequency(array![[0, 7]].view(), 7).is_err());
        assert!(Signatures::from_codes(array![[0, 7]].view(), &[1.0; 7]).is_err());
    }

    #[test]
    fn no_codes_no_direction() {
        let mut out = [1.0; 2];
        signature(&[], &[1.0; 2], &mut out).unwrap();
        assert_eq!(out, [0.0; 2]);
    }
}
