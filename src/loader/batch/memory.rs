//! Where the memory of a batch lives: in plain vectors, or in memory that a training framework allocated
//! for it, which then takes the batch without a copy.
//!
//! A framework puts memory for later batches into the loader's [`Stock`] whenever it takes one, so that no
//! thread of the loader calls into it. Where the stock has nothing that fits, an array has memory of its own.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Number types of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// Brain floats of 16 bits.
    Bf16,
    /// Bytes.
    U8,
    /// 64-bit integers.
    I64,
    /// Truth values, a byte each.
    Bool,
}

mod sealed {
    pub trait Sealed {}
}

/// Rust's types of [`Dtype`].
pub trait Element: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// The same type as a value.
    const DTYPE: Dtype;
}

macro_rules! element {
    ($type:ty, $dtype:ident) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    };
}
element!(f32, F32);
element!(half::bf16, Bf16);
element!(u8, U8);
element!(i64, I64);
element!(bool, Bool);

/// Memory that somebody else allocated, for one array.
pub struct Lent {
    address: NonNull<u8>,
    dtype: Dtype,
    elements: usize,
    owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: `address` points into memory that `owner`, which is `Send` and `Sync`, keeps, and that by the contract
// of `new` nobody else reads or writes.
unsafe impl Send for Lent {}
// SAFETY: as above; a shared `Lent` only reads.
unsafe impl Sync for Lent {}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({:?} x {})", self.dtype, self.elements)
    }
}

impl Lent {
    /// Memory at `address` for `elements` of `dtype`, which lasts as long as `owner`.
    ///
    /// # Safety
    /// The memory is aligned for `dtype`, holds valid values of it (any bytes but for `Bool`) in `elements` batch_rows,
    /// and until `owner` is handed back nobody reads or writes it but through what is made here.
    pub unsafe fn new(
        address: NonNull<u8>,
        dtype: Dtype,
        elements: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { address, dtype, elements, owner }
    }
}

/// Memory for the arrays of later batches, shared by a loader and whoever takes its batches.
#[derive(Debug, Clone, Default)]
pub struct Stock(Arc<Mutex<Shelves>>);

/// Memory by its type and number of elements.
type Shelves = HashMap<(Dtype, usize), Vec<Lent>>;

impl Stock {
    /// Puts memory in for an array of as many elements of its type.
    pub fn put(&self, lent: Lent) {
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.entry((lent.dtype, lent.elements)).or_default().push(lent);
    }

    /// How often there is memory for exactly `elements` of `dtype`.
    pub fn count(&self, dtype: Dtype, elements: usize) -> usize {
        let stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.get(&(dtype, elements)).map_or(0, Vec::len)
    }

    /// Memory for exactly `elements` of `dtype`, where there is some.
    fn take(&self, dtype: Dtype, elements: usize) -> Option<Lent> {
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stock.get_mut(&(dtype, elements))?.pop()
    }
}

/// A contiguous array in host memory with a shape, first dimension first (C order).
#[derive(Debug)]
pub struct HostArray<T> {
    shape: Vec<usize>,
    memory: Memory<T>,
}

#[derive(Debug)]
enum Memory<T> {
    Own(Vec<T>),
    Lent(Lent),
}

impl<T: Element> HostArray<T> {
    /// An array of zeros, in memory of its own.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory).
    pub fn zeros(shape: &[usize]) -> Result<Self> {
        let length = elements(shape)?;
        // Asked for first, since `vec!` ends the process where memory runs out; filled by `vec!`, which gets
        // pages of zeros instead of writing them.
        Vec::<T>::new().try_reserve_exact(length).map_err(|error| refused(shape, error))?;
        Ok(Self { shape: shape.to_vec(), memory: Memory::Own(vec![T::default(); length]) })
    }

    /// An array whose every element the caller is going to write before anyone reads it: what it
    /// holds until then means nothing. In memory from `stock`, where that has some that fits.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub(crate) fn to_be_written(shape: &[usize], stock: &Stock) -> Result<Self> {
        match stock.take(T::DTYPE, elements(shape)?) {
            Some(lent) => Ok(Self { shape: shape.to_vec(), memory: Memory::Lent(lent) }),
            None => Self::zeros(shape),
        }
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in C order.
    pub fn as_slice(&self) -> &[T] {
        match &self.memory {
            Memory::Own(data) => data,
            // SAFETY: the stock gave memory for `T::DTYPE` and for as many elements as the shape had, of which it
            // has no more now; by the contract of `Lent::new` it is aligned, valid, and `self` is its only user.
            Memory::Lent(lent) => unsafe {
                std::slice::from_raw_parts(lent.address.as_ptr().cast::<T>(), self.len())
            },
        }
    }

    /// The elements in C order, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let length = self.len();
        match &mut self.memory {
            Memory::Own(data) => data,
            // SAFETY: as in `as_slice`, and `&mut self` makes this the only view.
            Memory::Lent(lent) => unsafe {
                std::slice::from_raw_parts_mut(lent.address.as_ptr().cast::<T>(), length)
            },
        }
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
    pub(crate) fn keep_rows(&mut self, kept: &[bool]) {
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
        if let Memory::Own(data) = &mut self.memory {
            data.truncate(rows * row);
        }
    }

    /// What keeps the memory, where that was lent by an `Owner`; its first elements are the array. The array itself
    /// where it was not.
    ///
    /// # Errors
    /// The array, unchanged.
    pub fn into_owner<Owner: 'static>(self) -> std::result::Result<Owner, Self> {
        let Self { shape, memory } = self;
        match memory {
            Memory::Lent(Lent { address, dtype, elements, owner }) => match owner.downcast::<Owner>() {
                Ok(owner) => Ok(*owner),
                Err(owner) => {
                    Err(Self { shape, memory: Memory::Lent(Lent { address, dtype, elements, owner }) })
                }
            },
            memory @ Memory::Own(_) => Err(Self { shape, memory }),
        }
    }
}

/// Elements of an array of this shape.
fn elements(shape: &[usize]) -> Result<usize> {
    let length = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    length.ok_or_else(|| refused(shape, "more elements than memory has addresses"))
}

/// The error of a batch's array that finds no memory.
fn refused(shape: &[usize], error: impl fmt::Display) -> Error {
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
        array.keep_rows(&[false, true, false, true]);
        assert_eq!((array.shape(), array.as_slice()), (&[2, 2][..], &[3, 4, 7, 8][..]));
        array.keep_rows(&[false, false]);
        assert!(array.is_empty());
        let mut flags = HostArray::<bool>::zeros(&[3]).unwrap();
        flags.as_mut_slice()[1] = true;
        flags.keep_rows(&[true, true, false]);
        assert_eq!(flags.as_slice(), [false, true]);
    }

    /// Memory for `elements` numbers, owned by their vector.
    fn lent(elements: usize) -> (Lent, usize) {
        let mut owner = vec![0_i64; elements];
        let address = NonNull::new(owner.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: the vector's own memory, which moving the vector does not move.
        (unsafe { Lent::new(address, Dtype::I64, elements, Box::new(owner)) }, address.as_ptr().addr())
    }

    #[test]
    fn lent_memory_is_written_to_and_handed_back() {
        let stock = Stock::default();
        let (memory, address) = lent(6);
        stock.put(memory);
        assert_eq!((stock.count(Dtype::I64, 6), stock.count(Dtype::I64, 7)), (1, 0));
        // Another size or type has memory of its own.
        let larger = HostArray::<i64>::to_be_written(&[7], &stock).unwrap();
        assert_ne!(larger.as_slice().as_ptr().addr(), address);
        assert_eq!(HostArray::<f32>::to_be_written(&[6], &stock).unwrap().as_slice(), [0.0; 6]);
        let mut array = HostArray::<i64>::to_be_written(&[3, 2], &stock).unwrap();
        assert_eq!(array.as_slice().as_ptr().addr(), address);
        array.as_mut_slice().copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        array.keep_rows(&[false, true, true]);
        assert_eq!((array.shape(), array.as_slice()), (&[2, 2][..], &[3, 4, 5, 6][..]));
        let array = array.into_owner::<String>().unwrap_err();
        let owner: Vec<i64> = array.into_owner().unwrap();
        assert_eq!((owner.as_ptr().addr(), &owner[..4]), (address, &[3, 4, 5, 6][..]));
        // It is out of stock.
        let other = HostArray::<i64>::to_be_written(&[6], &stock).unwrap();
        assert!(other.into_owner::<Vec<i64>>().is_err());
    }
}
