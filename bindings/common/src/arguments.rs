//! Arguments that functions of both packages take.

use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::PyString;
use tldr_loader::{Error, Result};

use crate::given::FromPython;

/// Refuses a path that leads nowhere, naming the option it was given for.
pub fn must_exist(option: &'static str, path: &Path, accepted: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::refused(option, path.display(), format!("it does not exist; expected {accepted}")))
}

/// `cpu`, `cuda` or `cuda:N`, from text or a `torch.device`.
pub struct DeviceName(pub String);

impl<'py> FromPython<'py> for DeviceName {
    const ACCEPTED: &'static str = "cpu, cuda or cuda:N, as a text or a torch.device";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        let kind = value.get_type().fully_qualified_name().ok()?;
        let is_device = value.is_instance_of::<PyString>() || kind.to_string_lossy() == "torch.device";
        is_device.then(|| value.str().ok()?.extract().ok()).flatten().map(Self)
    }
}
