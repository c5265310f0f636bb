//! Tensors from Rust to Python without a copy, as DLPack capsules.
//!
//! The extension and Python's torch share one libtorch, so libtorch's own `THPVariable_Wrap` would
//! do as well; but torch-sys has it behind a feature, and everything above torch-sys would be
//! compiled a second time with that feature on. DLPack is a documented exchange format instead:
//! four C structs, an owner that stays alive, and a function that frees it
//! (<https://dmlc.github.io/dlpack/latest/c_api.html>, version 0.8).

use std::ffi::{CStr, c_void};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{Py, PyAny, ffi};
use tch::{Device, Kind, Tensor};

#[repr(C)]
struct DLDevice {
    device_type: i32,
    device_id: i32,
}

#[repr(C)]
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

/// What a capsule points at, and what it points at in turn.
struct Owner {
    managed: DLManagedTensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
    /// Holds the memory.
    _tensor: Tensor,
}

/// Name of a capsule whose tensor nobody has taken yet (the taker renames it).
const UNTAKEN: &CStr = c"dltensor";

/// Wraps `tensor` as a `torch.Tensor` that shares its memory. The memory is freed when the last of
/// all tensors that share it is gone, in Rust or in Python.
///
/// # Errors
/// `TypeError` for a number type or device that batches do not have.
pub(crate) fn to_python(py: Python<'_>, tensor: Tensor) -> PyResult<Py<PyAny>> {
    static FROM_DLPACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_dlpack = FROM_DLPACK.import(py, "torch.utils.dlpack", "from_dlpack")?;
    Ok(from_dlpack.call1((capsule(py, tensor)?,))?.unbind())
}

fn capsule(py: Python<'_>, tensor: Tensor) -> PyResult<Bound<'_, PyAny>> {
    // Codes of DLDataTypeCode and DLDeviceType.
    let (code, bits) = match tensor.kind() {
        Kind::Uint8 => (1, 8),
        Kind::Bool => (6, 8),
        Kind::Int64 => (0, 64),
        Kind::Float => (2, 32),
        Kind::BFloat16 => (4, 16),
        other => return Err(PyTypeError::new_err(format!("cannot hand over a tensor of {other:?}"))),
    };
    let device = match tensor.device() {
        Device::Cpu => DLDevice { device_type: 1, device_id: 0 },
        Device::Cuda(index) => DLDevice { device_type: 2, device_id: index as i32 },
        other => return Err(PyTypeError::new_err(format!("cannot hand over a tensor on {other:?}"))),
    };
    let (shape, strides) = (tensor.size(), tensor.stride());
    let mut owner = Box::new(Owner {
        managed: DLManagedTensor {
            dl_tensor: DLTensor {
                data: tensor.data_ptr(),
                device,
                ndim: shape.len() as i32,
                dtype: DLDataType { code, bits, lanes: 1 },
                shape: std::ptr::null_mut(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            },
            manager_ctx: std::ptr::null_mut(),
            deleter: Some(free),
        },
        shape,
        strides,
        _tensor: tensor,
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
    drop(unsafe { Box::from_raw((*managed).manager_ctx.cast::<Owner>()) });
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

/// For the tests of the hand-over: a new tensor of ones, and the address of its memory as Rust
/// sees it.
#[pyfunction]
pub(crate) fn _hand_over(py: Python<'_>, dtype: &str, shape: Vec<i64>) -> PyResult<(usize, Py<PyAny>)> {
    let kind = match dtype {
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        "int64" => Kind::Int64,
        "float32" => Kind::Float,
        _ => Kind::Double,
    };
    let tensor =
        Tensor::f_ones(shape, (kind, Device::Cpu)).map_err(|e| PyTypeError::new_err(e.to_string()))?;
    let address = tensor.data_ptr().addr();
    Ok((address, to_python(py, tensor)?))
}
