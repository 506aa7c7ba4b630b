//! Reads Python values.

use omr_verify::Mode;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

/// A text, or a number as text, because labels in data sets are often numbers. A surrogate without its other half, which
/// is not text, becomes U+FFFD.
pub struct Text(pub String);

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Text> {
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Text(text.to_string_lossy().into_owned()));
        }
        let is_number = value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
        if is_number && !value.is_instance_of::<PyBool>() {
            return Ok(Text(value.str()?.to_string_lossy().into_owned()));
        }
        Err(PyTypeError::new_err(format!("found {}, expected a text or a number", value.get_type().name()?)))
    }
}

/// A text, or the text of the last of several messages. Parts that are not text are left out.
pub struct Spoken(pub Text);

impl<'py> FromPyObject<'_, 'py> for Spoken {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Spoken> {
        let Ok(messages) = value.cast::<PyList>() else { return Ok(Spoken(value.extract()?)) };
        let Some(last) = messages.iter().last() else { return Ok(Spoken(Text(String::new()))) };
        let content = last.get_item("content")?;
        let Ok(parts) = content.cast::<PyList>() else { return Ok(Spoken(content.extract()?)) };
        let mut all = String::new();
        for part in parts.iter() {
            let text = part.cast::<PyDict>()?.get_item("text")?.filter(|text| !text.is_none());
            all += &text.map_or_else(|| Ok(Text(String::new())), |text| text.extract())?.0;
        }
        Ok(Spoken(Text(all)))
    }
}

/// The argument `mode`.
#[derive(Clone, Copy)]
pub struct Rules(pub Mode);

/// Default of the argument `mode`.
pub const STRICT: Rules = Rules(Mode::Strict);

impl<'py> FromPyObject<'_, 'py> for Rules {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Rules> {
        choose(&value, "mode", [Mode::Strict, Mode::Compat], Mode::name).map(Rules)
    }
}

/// Returns the one of `all` that a setting names.
pub fn choose<T: Copy, const N: usize>(
    value: &Bound<PyAny>,
    key: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> PyResult<T> {
    let found = value.extract::<Text>()?.0;
    let names = || all.map(name).join(", ");
    let one = all.into_iter().find(|one| name(*one) == found);
    one.ok_or_else(|| PyValueError::new_err(format!("found the {key} {found:?}, expected one of {}", names())))
}

/// Checks that lists, given by names and lengths, have the same length.
pub fn same_length(lists: &[(&str, usize)]) -> PyResult<()> {
    match lists.iter().find(|list| list.1 != lists[0].1) {
        None => Ok(()),
        Some((name, length)) => {
            let (first, expected) = lists[0];
            Err(PyValueError::new_err(format!("found {length} {name}, expected {expected}, as many as {first}")))
        }
    }
}
