//! Arguments as a caller gave them, read by name.
//!
//! Functions with options take them as `**options`, so that a value of a wrong type is a `ConfigError` that
//! names the option and says what is accepted, and so that what was given can be told from a default. `None`
//! counts as not given.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};
use tldr_loader::options::{Group, Setting};
use tldr_loader::{Error, Result};

use crate::errors::{self, OrRaise};
use crate::values::{shown, value_of};

/// A type that options have.
pub trait FromPython<'py>: Sized {
    /// What is accepted, for messages.
    const ACCEPTED: &'static str;

    /// The value; `None` where it is of another type.
    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self>;
}

/// Types that pyo3 can extract, and what is accepted for them.
#[macro_export]
macro_rules! from_python {
    ($($type:ty: $accepted:literal $(, $guard:ident)?;)*) => {
        $(impl<'py> $crate::given::FromPython<'py> for $type {
            const ACCEPTED: &'static str = $accepted;

            fn from_python(value: &pyo3::Bound<'py, pyo3::PyAny>) -> Option<Self> {
                use pyo3::prelude::PyAnyMethods as _;
                $(if !$guard(value) {
                    return None;
                })?
                value.extract().ok()
            }
        })*
    };
}
/// To Python `True` is a number.
pub fn is_no_bool(value: &Bound<'_, PyAny>) -> bool {
    !value.is_instance_of::<PyBool>()
}

from_python! {
    bool: "True or False";
    f64: "a number", is_no_bool;
    f32: "a number", is_no_bool;
    Whole: "a whole number below 2^64", is_no_bool;
    String: "a text (str)";
    PathBuf: "a path (str or os.PathLike)";
    [f64; 2]: "two numbers";
    [f32; 3]: "three numbers: of red, green and blue";
    Vec<Whole>: "a list of whole numbers";
}

/// Something to call.
pub struct Callback(pub Py<PyAny>);

impl<'py> FromPython<'py> for Callback {
    const ACCEPTED: &'static str = "a function";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        value.is_callable().then(|| Self(value.clone().unbind()))
    }
}

/// An object of any type.
pub struct Any(pub Py<PyAny>);

impl<'py> FromPython<'py> for Any {
    const ACCEPTED: &'static str = "anything";

    fn from_python(value: &Bound<'py, PyAny>) -> Option<Self> {
        Some(Self(value.clone().unbind()))
    }
}

/// Whole numbers as Python gives them: wide enough for what cannot be used to arrive here, where
/// the error can name the option.
pub type Whole = i128;

/// `given` as the unsigned number that an option takes.
fn whole<T: TryFrom<Whole>>(option: &'static str, given: Whole) -> Result<T> {
    T::try_from(given).map_err(|_| {
        let accepted = if given < 0 { "a whole number, 0 or more" } else { "a smaller number" };
        Error::option(option, given, accepted)
    })
}

/// The value of the argument `option`.
///
/// # Errors
/// `ConfigError` where it is of another type.
pub fn read<'py, T: FromPython<'py>>(option: &'static str, value: &Bound<'py, PyAny>) -> PyResult<T> {
    read_as(option, T::ACCEPTED, value)
}

/// As [`read`]; `accepted` says what is, in place of the type.
pub fn read_as<'py, T: FromPython<'py>>(
    option: &'static str,
    accepted: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<T> {
    T::from_python(value).ok_or_else(|| {
        let given = shown(value);
        errors::to_python(value.py(), &Error::option(option, given, accepted))
    })
}

/// The value of the whole number `option`.
///
/// # Errors
/// `ConfigError` where it is none, or does not fit.
pub fn read_whole<T: TryFrom<Whole>>(option: &'static str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    whole(option, read(option, value)?).or_raise(value.py())
}

/// The options of one call.
pub struct Given<'py> {
    py: Python<'py>,
    function: &'static str,
    options: Option<Bound<'py, PyDict>>,
}

impl<'py> Given<'py> {
    /// The `**options` of a call of `function`.
    pub fn new(py: Python<'py>, function: &'static str, options: Option<Bound<'py, PyDict>>) -> Self {
        Self { py, function, options }
    }

    /// Python.
    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// The value of `option`, where it was given.
    ///
    /// # Errors
    /// `ConfigError` where it is of another type.
    pub fn take<T: FromPython<'py>>(&self, option: &'static str) -> PyResult<Option<T>> {
        self.take_as(option, T::ACCEPTED)
    }

    /// Whether `option` was given, and not taken yet.
    ///
    /// # Errors
    /// What looking it up raises.
    pub fn has(&self, option: &'static str) -> PyResult<bool> {
        let value = self.options.as_ref().map(|options| options.get_item(option)).transpose()?.flatten();
        Ok(value.is_some_and(|value| !value.is_none()))
    }

    /// As [`take`](Self::take); `accepted` says what is, in place of the type.
    pub fn take_as<T: FromPython<'py>>(&self, option: &'static str, accepted: &str) -> PyResult<Option<T>> {
        let Some(options) = &self.options else { return Ok(None) };
        let Some(value) = options.get_item(option)? else { return Ok(None) };
        options.del_item(option)?;
        if value.is_none() { Ok(None) } else { read_as(option, accepted, &value).map(Some) }
    }

    /// As [`take`](Self::take), of a whole number that fits.
    pub fn take_whole<T: TryFrom<Whole>>(&self, option: &'static str) -> PyResult<Option<T>> {
        let number = self.take(option)?;
        number.map(|number| whole(option, number)).transpose().or_raise(self.py)
    }

    /// As [`take`](Self::take), of a text that `parse` understands.
    pub fn take_name<T, E: Into<Error>>(
        &self,
        option: &'static str,
        parse: impl FnOnce(&str) -> std::result::Result<T, E>,
    ) -> PyResult<Option<T>> {
        let name: Option<String> = self.take(option)?;
        name.map(|name| parse(&name)).transpose().or_raise(self.py)
    }

    /// The group of options that was given as `option`; its defaults where none was.
    ///
    /// # Errors
    /// `ConfigError` where it is none, or has a field that is not accepted.
    pub fn take_group<G: Group + Setting>(&self, option: &'static str) -> PyResult<G> {
        let Some(Any(value)) = self.take::<Any>(option)? else { return Ok(G::default()) };
        let given = shown(value.bind(self.py));
        let read = <G as Setting>::read(&value_of(value.bind(self.py))?);
        read.map_err(|refused| refused.error(option, &given, G::ACCEPTED)).or_raise(self.py)
    }

    /// The options that were not taken.
    pub fn rest(&self) -> Option<&Bound<'py, PyDict>> {
        self.options.as_ref()
    }

    /// Ends the reading: all options that there are have been taken.
    ///
    /// # Errors
    /// `TypeError` for another one, as Python has it.
    pub fn end(&self) -> PyResult<()> {
        let Some((name, _)) = self.options.iter().flatten().next() else { return Ok(()) };
        let function = self.function;
        Err(PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{name}'")))
    }
}
