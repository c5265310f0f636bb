//! Where the memory of a batch lives: in a torch tensor (feature `tch`), so that a training loop
//! takes it without a copy, or in a plain vector.

#[cfg(feature = "tch")]
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Number types of batches.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The same type in torch.
    #[cfg(feature = "tch")]
    const KIND: Kind;
}

macro_rules! element {
    ($type:ty, $kind:ident) => {
        impl Element for $type {
            #[cfg(feature = "tch")]
            const KIND: Kind = Kind::$kind;
        }
    };
}
element!(f32, Float);
element!(half::bf16, BFloat16);
element!(u8, Uint8);
element!(i64, Int64);
element!(bool, Bool);

/// A contiguous array in host memory with a shape, first dimension first (C order).
#[derive(Debug)]
pub struct HostArray<T> {
    shape: Vec<usize>,
    #[cfg(feature = "tch")]
    tensor: Tensor,
    #[cfg(feature = "tch")]
    element: std::marker::PhantomData<T>,
    #[cfg(not(feature = "tch"))]
    data: Vec<T>,
}

impl<T: Element> HostArray<T> {
    /// An array of zeros. Memory is allocated by torch where the feature `tch` is on.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory).
    pub fn zeros(shape: &[usize]) -> Result<Self> {
        #[cfg(feature = "tch")]
        {
            let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            let tensor =
                Tensor::f_zeros(size, (T::KIND, Device::Cpu)).map_err(|error| refused(shape, error))?;
            Ok(Self { shape: shape.to_vec(), tensor, element: std::marker::PhantomData })
        }
        #[cfg(not(feature = "tch"))]
        {
            let length = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
            let length = length.ok_or_else(|| refused(shape, "more elements than memory has addresses"))?;
            // Asked for first, since `vec!` ends the process where memory runs out; filled by `vec!`, which gets
            // pages of zeros instead of writing them.
            Vec::<T>::new().try_reserve_exact(length).map_err(|error| refused(shape, error))?;
            Ok(Self { shape: shape.to_vec(), data: vec![T::default(); length] })
        }
    }

    /// An array whose every element the caller is going to write before anyone reads it: what it
    /// holds until then means nothing, and costs no time.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub(crate) fn to_be_written(shape: &[usize]) -> Result<Self> {
        #[cfg(feature = "tch")]
        {
            let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            let tensor =
                Tensor::f_empty(size, (T::KIND, Device::Cpu)).map_err(|error| refused(shape, error))?;
            Ok(Self { shape: shape.to_vec(), tensor, element: std::marker::PhantomData })
        }
        #[cfg(not(feature = "tch"))]
        Self::zeros(shape)
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in C order.
    pub fn as_slice(&self) -> &[T] {
        #[cfg(feature = "tch")]
        {
            // SAFETY: the tensor was made contiguous, on the CPU, of kind `T::KIND` and of this
            // many elements; it is owned by `self` and its memory does not move.
            unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<T>(), self.len()) }
        }
        #[cfg(not(feature = "tch"))]
        &self.data
    }

    /// The elements in C order, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        #[cfg(feature = "tch")]
        {
            // SAFETY: as in `as_slice`; `&mut self` makes it the only view of this array, and
            // `tensor()` hands out shared storage only from `&self`, after writing has ended.
            unsafe { std::slice::from_raw_parts_mut(self.tensor.data_ptr().cast::<T>(), self.len()) }
        }
        #[cfg(not(feature = "tch"))]
        &mut self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one row, the product of all dimensions but the first.
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Drops the rows that `kept`, `[rows]`, does not name; the others move up. O(elements).
    pub(crate) fn keep_rows(&mut self, kept: &[bool]) -> Result<()> {
        let row = self.row_len();
        let elements = self.as_mut_slice();
        let mut rows = 0;
        for (at, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            elements.copy_within(at * row..(at + 1) * row, rows * row);
            rows += 1;
        }
        if let Some(first) = self.shape.first_mut() {
            *first = rows;
        }
        #[cfg(feature = "tch")]
        {
            self.tensor = self.tensor.f_narrow(0, 0, rows as i64).map_err(crate::Error::captioner)?;
        }
        #[cfg(not(feature = "tch"))]
        self.data.truncate(rows * row);
        Ok(())
    }

    /// The array as a torch tensor on the CPU, without a copy.
    #[cfg(feature = "tch")]
    pub fn tensor(&self) -> Tensor {
        self.tensor.shallow_clone()
    }
}

/// The error of a batch's array that finds no memory.
fn refused(shape: &[usize], error: impl std::fmt::Display) -> Error {
    let error = error.to_string();
    // The first line says what is wrong; torch adds a stack trace.
    let error = error.lines().next().unwrap_or_default();
    Error::out_of_memory(format!("a batch's array of shape {shape:?}: {error}; use a smaller batch_size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut array = HostArray::<f32>::zeros(&[2, 3]).unwrap();
        array.as_mut_slice().copy_from_slice(&[1., 2., 3., 4., 5., 6.]);
        assert_eq!(array.as_slice()[4], 5.0);
        assert_eq!((array.len(), array.row_len(), array.shape()), (6, 3, &[2, 3][..]));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let error = HostArray::<f32>::zeros(&[1 << 40, 1 << 12]).err().unwrap();
        assert!(matches!(error.kind, crate::ErrorKind::OutOfMemory { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("shape [1099511627776, 4096]"), "{message}");
        assert!(message.contains("smaller batch_size"), "{message}");
        assert!(HostArray::<f32>::zeros(&[usize::MAX, 3]).is_err());
    }

    #[test]
    fn rows_that_are_kept_move_up() {
        let mut array = HostArray::<i64>::zeros(&[4, 2]).unwrap();
        array.as_mut_slice().copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        array.keep_rows(&[false, true, false, true]).unwrap();
        assert_eq!((array.shape(), array.as_slice()), (&[2, 2][..], &[3, 4, 7, 8][..]));
        array.keep_rows(&[false, false]).unwrap();
        assert!(array.is_empty());
        let mut flags = HostArray::<bool>::zeros(&[3]).unwrap();
        flags.as_mut_slice()[1] = true;
        flags.keep_rows(&[true, true, false]).unwrap();
        assert_eq!(flags.as_slice(), [false, true]);
    }

    #[cfg(feature = "tch")]
    #[test]
    fn the_tensor_shares_the_memory() {
        let mut array = HostArray::<i64>::zeros(&[2, 2]).unwrap();
        array.as_mut_slice()[3] = 7;
        let tensor = array.tensor();
        assert_eq!(tensor.size(), [2, 2]);
        assert_eq!(tensor.int64_value(&[1, 1]), 7);
        assert_eq!(tensor.data_ptr().cast::<i64>().cast_const(), array.as_slice().as_ptr());
    }
}
