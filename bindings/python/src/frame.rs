//! The memory of batches on Python's side: torch's tensors where torch is installed, else arrays of this package.
//!
//! The tensors are made in `tldr_loader/_frames.py`, which has the streams of a GPU, too.

use std::ptr::NonNull;

use pyo3::prelude::*;
use tldr_loader::loader::{Batch, Dtype, Element, HostArray, Images, Lent, Stock};
use tldr_python::array::{Array, Held, Number, name};
use tldr_python::errors::OrRaise;

/// Where the arrays of a loader's batches are.
pub(crate) struct Frame {
    /// `Frame` of `_frames.py`; `None` without torch.
    tensors: Option<Py<PyAny>>,
    /// Whether batches are copied to another device.
    copies: bool,
    /// Arrays of a full batch, by type and shape, and batches that are under way at the most.
    arrays: Vec<(Dtype, Vec<usize>)>,
    under_way: usize,
    stock: Stock,
}

/// The arrays of one batch, moved out of it: images, and tokens and weights where they are.
pub(crate) struct Moved(Py<PyAny>, [bool; 2]);

/// Arrays whose copies have begun, where they go to another device.
pub(crate) struct Sent(Py<PyAny>, [bool; 2]);

/// Images, tokens and weights as Python has them.
pub(crate) struct Arrays {
    pub(crate) images: Py<PyAny>,
    pub(crate) tokens: Option<Py<PyAny>>,
    pub(crate) weights: Option<Py<PyAny>>,
}

/// What makes tensors on `device`, where torch is.
///
/// # Errors
/// `ConfigError` where there is no such device.
pub(crate) fn tensors(py: Python<'_>, device: &str) -> PyResult<Option<Py<PyAny>>> {
    let made = py.import("tldr_loader._frames")?.call_method1("frame", (device,))?;
    Ok((!made.is_none()).then(|| made.unbind()))
}

impl Frame {
    pub(crate) fn new(
        py: Python<'_>,
        tensors: Option<Py<PyAny>>,
        loader: &tldr_loader::loader::Loader,
    ) -> PyResult<Self> {
        let copies = match &tensors {
            Some(tensors) => {
                tensors.getattr(py, "device")?.getattr(py, "type")?.extract::<String>(py)? != "cpu"
            }
            None => false,
        };
        let (arrays, under_way) = loader.arrays();
        Ok(Self { tensors, copies, arrays, under_way, stock: loader.stock().clone() })
    }

    /// Whether batches are copied to another device.
    pub(crate) fn copies(&self) -> bool {
        self.copies
    }

    /// Fills the loader's stock up to what can be under way.
    ///
    /// # Errors
    /// What torch raises; where it has no memory the loader's own has to do.
    pub(crate) fn restock(&self, py: Python<'_>) -> PyResult<()> {
        let Some(tensors) = &self.tensors else { return Ok(()) };
        for (dtype, shape) in &self.arrays {
            let elements = shape.iter().product();
            for _ in self.stock.count(*dtype, elements)..self.under_way {
                let made = tensors.call_method1(py, "empty", (name(*dtype), shape.clone()))?;
                let Some((tensor, address)) = made.extract::<Option<(Py<PyAny>, usize)>>(py)? else {
                    continue;
                };
                let Some(address) = NonNull::new(std::ptr::with_exposed_provenance_mut(address)) else {
                    continue;
                };
                // SAFETY: a new contiguous tensor of that type and shape, aligned by torch, which nobody else has
                // until it is handed back; any bytes are pixels or ids.
                self.stock.put(unsafe { Lent::new(address, *dtype, elements, Box::new(Held(tensor))) });
            }
        }
        Ok(())
    }

    /// Moves the arrays out of a batch.
    ///
    /// # Errors
    /// What torch raises.
    pub(crate) fn arrays(&self, py: Python<'_>, batch: &mut Batch) -> PyResult<Moved> {
        let nothing = Images::U8(HostArray::zeros(&[0]).or_raise(py)?);
        let images = match std::mem::replace(&mut batch.images, nothing) {
            Images::F32(array) => self.array(py, array),
            Images::Bf16(array) => self.array(py, array),
            Images::U8(array) => self.array(py, array),
        }?;
        let mut arrays = vec![images];
        let tokens = batch.tokens.take().map(|array| self.array(py, array)).transpose()?;
        let weights = batch.weights.take().map(|array| self.array(py, array)).transpose()?;
        let there = [tokens.is_some(), weights.is_some()];
        arrays.extend(tokens);
        arrays.extend(weights);
        Ok(Moved(arrays.into_pyobject(py)?.into_any().unbind(), there))
    }

    /// Begins the copies of arrays, where they go to another device; they can be sent again where that fails.
    ///
    /// # Errors
    /// What torch raises.
    pub(crate) fn send(&self, py: Python<'_>, Moved(arrays, there): &Moved) -> PyResult<Sent> {
        let sent = match &self.tensors {
            Some(tensors) => tensors.call_method1(py, "send", (arrays,))?,
            None => arrays.clone_ref(py),
        };
        Ok(Sent(sent, *there))
    }

    /// The arrays, for the caller to work on.
    ///
    /// # Errors
    /// What torch raises.
    pub(crate) fn receive(&self, py: Python<'_>, sent: Sent) -> PyResult<Arrays> {
        let Sent(sent, [tokens, weights]) = sent;
        let arrays = match &self.tensors {
            Some(tensors) => tensors.call_method1(py, "receive", (sent,))?,
            None => sent,
        };
        let mut arrays = arrays.extract::<Vec<Py<PyAny>>>(py)?.into_iter();
        let missing = || pyo3::exceptions::PyRuntimeError::new_err("an array of a batch is missing");
        let mut next = |is_there: bool| {
            if is_there { arrays.next().ok_or_else(missing).map(Some) } else { Ok(None) }
        };
        let images = next(true)?.ok_or_else(missing)?;
        Ok(Arrays { images, tokens: next(tokens)?, weights: next(weights)? })
    }

    /// Values by row, on the device.
    ///
    /// # Errors
    /// What torch raises.
    pub(crate) fn column<T: Number>(&self, py: Python<'_>, rows: Vec<T>) -> PyResult<Py<PyAny>> {
        let count = rows.len();
        let array = Py::new(py, Array::from_vec(rows, &[count]))?;
        match &self.tensors {
            Some(tensors) => {
                let tensor = tensors.call_method1(py, "wrap", (array,))?;
                tensors.call_method1(py, "place", (tensor,))
            }
            None => Ok(array.into_any()),
        }
    }

    /// The tensor that an array was made in; of an array with memory of its own, one that shares it.
    fn array<T: Element>(&self, py: Python<'_>, array: HostArray<T>) -> PyResult<Py<PyAny>> {
        let Some(tensors) = &self.tensors else { return Ok(Py::new(py, Array::of(array))?.into_any()) };
        let rows = array.shape().first().copied().unwrap_or(0);
        match array.into_owner::<Held>() {
            Ok(Held(tensor)) if tensor.bind(py).len()? == rows => Ok(tensor),
            Ok(Held(tensor)) => tensor.call_method1(py, "narrow", (0, 0, rows)),
            Err(array) => tensors.call_method1(py, "wrap", (Py::new(py, Array::of(array))?,)),
        }
    }
}

/// For the tests of the hand-over: a new array of ones, and the address of its memory as Rust sees it.
#[pyfunction]
pub(crate) fn _hand_over(py: Python<'_>, dtype: &str, shape: Vec<usize>) -> PyResult<(usize, Py<PyAny>)> {
    fn ones<T: Element>(shape: &[usize], one: T) -> tldr_loader::Result<(usize, Array)> {
        let mut array = HostArray::zeros(shape)?;
        array.as_mut_slice().fill(one);
        Ok((array.as_slice().as_ptr().addr(), Array::of(array)))
    }
    let (address, array) = match dtype {
        "uint8" => ones(&shape, 1_u8),
        "bool" => ones(&shape, true),
        "int64" => ones(&shape, 1_i64),
        "bfloat16" => ones(&shape, half::bf16::ONE),
        _ => ones(&shape, 1_f32),
    }
    .or_raise(py)?;
    Ok((address, Py::new(py, array)?.into_any()))
}
