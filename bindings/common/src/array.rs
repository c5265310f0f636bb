//! Arrays between Rust and whatever Python computes with, without a copy: objects with `__dlpack__`.
//!
//! DLPack is a documented exchange format that torch, JAX and NumPy speak: four C structs, an owner that stays
//! alive, and a function that frees it (<https://dmlc.github.io/dlpack/latest/c_api.html>, version 0.8).

use std::any::Any;
use std::ffi::{CStr, c_void};

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyCapsule, PyDict, PyTuple};
use pyo3::{Py, ffi};
use tldr_loader::loader::{Dtype, Element, HostArray};

#[repr(C)]
#[derive(Clone, Copy)]
struct DLDevice {
    device_type: i32,
    device_id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct DLDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DLTensor {
    data: *mut c_void,
    device: DLDevice,
    ndim: i32,
    dtype: DLDataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct DLManagedTensor {
    dl_tensor: DLTensor,
    manager_ctx: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DLManagedTensor)>,
}

/// Name of a capsule whose tensor nobody has taken yet, and of one that somebody has.
const UNTAKEN: &CStr = c"dltensor";
const TAKEN: &CStr = c"used_dltensor";

/// Code of the CPU among DLDeviceType.
const CPU: i32 = 1;

/// A number type, with its code among DLDataTypeCode and its name in NumPy and torch.
#[derive(Debug, Clone, Copy)]
struct Kind {
    code: u8,
    bits: u8,
    name: &'static str,
}

fn kind(dtype: Dtype) -> Kind {
    let (code, bits, name) = match dtype {
        Dtype::U8 => (1, 8, "uint8"),
        Dtype::Bool => (6, 8, "bool"),
        Dtype::I64 => (0, 64, "int64"),
        Dtype::F32 => (2, 32, "float32"),
        Dtype::Bf16 => (4, 16, "bfloat16"),
    };
    Kind { code, bits, name }
}

/// The name of a number type in NumPy and torch.
pub fn name(dtype: Dtype) -> &'static str {
    kind(dtype).name
}

/// A contiguous array in host memory.
///
/// `torch.from_dlpack`, `jax.dlpack.from_dlpack` and `numpy.from_dlpack` take it without a copy.
#[pyclass(frozen, module = "tldr_loader")]
pub struct Array {
    /// Number type, as NumPy and torch name it.
    #[pyo3(get)]
    dtype: &'static str,
    kind: Kind,
    address: usize,
    shape: Vec<i64>,
    owner: Owner,
}

/// Keeps the memory, for the array and for everything that shares it.
type Owner = std::sync::Arc<dyn Any + Send + Sync>;

impl Array {
    /// The array of a batch.
    pub fn of<T: Element>(array: HostArray<T>) -> Self {
        let shape = array.shape().iter().map(|&n| n as i64).collect();
        let address = array.as_slice().as_ptr().expose_provenance();
        Self::over(address, kind(T::DTYPE), shape, std::sync::Arc::new(array))
    }

    /// Numbers with their shape, whose product is their count.
    pub fn from_vec<T: Number>(numbers: Vec<T>, shape: &[usize]) -> Self {
        let address = numbers.as_ptr().expose_provenance();
        let shape = shape.iter().map(|&n| n as i64).collect();
        Self::over(address, T::KIND, shape, std::sync::Arc::new(numbers))
    }

    fn over(address: usize, kind: Kind, shape: Vec<i64>, owner: Owner) -> Self {
        Self { dtype: kind.name, kind, address, shape, owner }
    }
}

#[pymethods]
impl Array {
    /// Length of each dimension.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// A DLPack capsule of the memory, which stays as long as anything uses it.
    #[pyo3(signature = (**options), text_signature = "($self, *, stream=None, **options)")]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // A stream means nothing to host memory, and a newer version of the format is the taker's wish only.
        let copy = options.map(|options| options.get_item("copy")).transpose()?.flatten();
        if copy.is_some_and(|copy| copy.is_truthy().unwrap_or(false)) {
            return Err(PyBufferError::new_err("this array is handed over without a copy"));
        }
        capsule(py, self)
    }

    /// Kind and number of the device: the CPU.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (CPU, 0)
    }

    fn __len__(&self) -> usize {
        self.shape.first().map_or(0, |&n| n as usize)
    }

    fn __repr__(&self) -> String {
        format!("Array(shape={:?}, dtype={})", self.shape, self.dtype)
    }
}

/// What a capsule points at, and what it points at in turn.
struct Managed {
    managed: DLManagedTensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
    /// Holds the memory.
    _owner: Owner,
}

fn capsule<'py>(py: Python<'py>, array: &Array) -> PyResult<Bound<'py, PyAny>> {
    let mut strides = vec![1; array.shape.len()];
    for at in (1..strides.len()).rev() {
        strides[at - 1] = strides[at] * array.shape[at].max(1);
    }
    let mut owner = Box::new(Managed {
        managed: DLManagedTensor {
            dl_tensor: DLTensor {
                data: std::ptr::with_exposed_provenance_mut(array.address),
                device: DLDevice { device_type: CPU, device_id: 0 },
                ndim: array.shape.len() as i32,
                dtype: DLDataType { code: array.kind.code, bits: array.kind.bits, lanes: 1 },
                shape: std::ptr::null_mut(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            },
            manager_ctx: std::ptr::null_mut(),
            deleter: Some(free),
        },
        shape: array.shape.clone(),
        strides,
        _owner: Owner::clone(&array.owner),
    });
    owner.managed.dl_tensor.shape = owner.shape.as_mut_ptr();
    owner.managed.dl_tensor.strides = owner.strides.as_mut_ptr();
    let owner = Box::into_raw(owner);
    // SAFETY: `owner` was just leaked from a box: it is valid, and nothing else refers to it. Its
    // vectors do not move any more, so that `shape` and `strides` stay valid. `free` gives it back
    // once: through the taker, or through `drop_untaken` while the name says that there was none.
    unsafe {
        (*owner).managed.manager_ctx = owner.cast();
        let managed = &raw mut (*owner).managed;
        let capsule = ffi::PyCapsule_New(managed.cast(), UNTAKEN.as_ptr(), Some(drop_untaken));
        if capsule.is_null() {
            free(managed);
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// Frees the owner. The taker calls it once, from any thread.
unsafe extern "C" fn free(managed: *mut DLManagedTensor) {
    // SAFETY: `capsule` leaked the owner from a box and stored it as the context.
    drop(unsafe { Box::from_raw((*managed).manager_ctx.cast::<Managed>()) });
}

/// Destructor of a capsule: frees the owner unless a taker has it.
unsafe extern "C" fn drop_untaken(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with the capsule, attached. Under its first name it still holds the
    // pointer that `capsule` put there.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, UNTAKEN.as_ptr()) == 1 {
            free(ffi::PyCapsule_GetPointer(capsule, UNTAKEN.as_ptr()).cast());
        }
    }
}

/// Number types that models exchange beside those of batches.
pub trait Number: Copy + Send + Sync + 'static {
    #[doc(hidden)]
    #[allow(private_interfaces, reason = "for this file only")]
    const KIND: Kind;
}

macro_rules! number {
    ($($type:ty: $code:literal, $bits:literal, $name:literal;)*) => {
        $(impl Number for $type {
            #[allow(private_interfaces, reason = "for this file only")]
            const KIND: Kind = Kind { code: $code, bits: $bits, name: $name };
        })*
    };
}
number! {
    bool: 6, 8, "bool";
    u8: 1, 8, "uint8";
    u32: 1, 32, "uint32";
    u64: 1, 64, "uint64";
    i64: 0, 64, "int64";
    f32: 2, 32, "float32";
    f64: 2, 64, "float64";
}

/// Number types of which any bytes are a value.
pub trait Read: Number {}
impl Read for u8 {}
impl Read for u32 {}
impl Read for u64 {}
impl Read for i64 {}
impl Read for f32 {}

/// The numbers and the shape of a Python array on the CPU: anything with `__dlpack__`. They are copied.
///
/// # Errors
/// `TypeError` for anything else, and for another number type; `what` names it.
pub fn read<T: Read>(what: &str, value: &Bound<'_, PyAny>) -> PyResult<(Vec<T>, Vec<usize>)> {
    let wrong = |found: String| {
        PyTypeError::new_err(format!(
            "{what}: an array of {} on the CPU is expected, and this is {found}",
            T::KIND.name
        ))
    };
    if !value.hasattr("__dlpack__")? {
        return Err(wrong(format!("{}, which has no __dlpack__", value.get_type())));
    }
    let taken = value.call_method0("__dlpack__")?;
    let capsule = taken.cast::<PyCapsule>().map_err(|_| wrong("no DLPack capsule".into()))?;
    // SAFETY: the capsule has the name of one that holds a DLManagedTensor nobody has taken; it is taken by the new name,
    // and given back by its deleter once, after the copy.
    unsafe {
        let pointer = ffi::PyCapsule_GetPointer(capsule.as_ptr(), UNTAKEN.as_ptr());
        if pointer.is_null() {
            return Err(PyErr::fetch(value.py()));
        }
        if ffi::PyCapsule_SetName(capsule.as_ptr(), TAKEN.as_ptr()) != 0 {
            return Err(PyErr::fetch(value.py()));
        }
        let managed = pointer.cast::<DLManagedTensor>();
        let found = copied::<T>(&(*managed).dl_tensor);
        if let Some(deleter) = (*managed).deleter {
            deleter(managed);
        }
        found.map_err(wrong)
    }
}

/// The numbers of a tensor in C order, and its shape.
///
/// # Safety
/// The tensor is what the format says.
unsafe fn copied<T: Read>(tensor: &DLTensor) -> Result<(Vec<T>, Vec<usize>), String> {
    let expected = DLDataType { code: T::KIND.code, bits: T::KIND.bits, lanes: 1 };
    if tensor.dtype != expected {
        return Err(format!("one of {} bits and DLPack's type {}", tensor.dtype.bits, tensor.dtype.code));
    }
    if tensor.device.device_type != CPU {
        return Err(format!("one on DLPack's device {}", tensor.device.device_type));
    }
    let dims = usize::try_from(tensor.ndim).unwrap_or(0);
    // SAFETY: by the format `shape` has `ndim` entries, and `strides` as many, or is null for C order.
    let (shape, strides) = unsafe {
        let shape = if dims == 0 { &[] } else { std::slice::from_raw_parts(tensor.shape, dims) };
        let strides = (dims > 0 && !tensor.strides.is_null())
            .then(|| std::slice::from_raw_parts(tensor.strides, dims).to_vec());
        (shape.to_vec(), strides)
    };
    let mut in_order = vec![1_i64; dims];
    for at in (1..dims).rev() {
        in_order[at - 1] = in_order[at] * shape[at].max(1);
    }
    let is_plain = strides.is_none_or(|strides| {
        strides.iter().zip(&in_order).zip(&shape).all(|((own, plain), &n)| own == plain || n <= 1)
    });
    if !is_plain {
        return Err("one that is not contiguous".into());
    }
    let shape: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
    let count: usize = shape.iter().product();
    if count == 0 {
        return Ok((vec![], shape));
    }
    // SAFETY: the memory has `count` numbers of this type in C order, from `byte_offset` on; it may not be aligned.
    let numbers = unsafe {
        let first = tensor.data.cast::<u8>().add(tensor.byte_offset as usize).cast::<T>();
        (0..count).map(|at| first.add(at).read_unaligned()).collect()
    };
    Ok((numbers, shape))
}

/// A Python array of that shape, as [`read`] does; a `ValueError` names another one.
///
/// # Errors
/// As [`read`].
pub fn read_shaped<T: Read>(what: &str, value: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<Vec<T>> {
    let (numbers, found) = read(what, value)?;
    if found == shape {
        return Ok(numbers);
    }
    Err(PyValueError::new_err(format!("{what}: shape {shape:?} is expected, and this is {found:?}")))
}

/// Memory that a Python object holds, for an array of a batch that is to be made in it.
pub struct Held(pub Py<PyAny>);
