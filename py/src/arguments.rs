//! What CPython hands to a function, read without PyO3's wrappers, and what a function hands back.

use crate::call::Request;
use crate::scope::Scope;
use pyo3::Borrowed;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The arguments of a function that is being called.
pub(crate) struct Arguments<'a, 'py> {
    pub(crate) py: Python<'py>,
    pub(crate) given: &'a [*mut PyObject],
}

impl<'a, 'py> Arguments<'a, 'py> {
    pub(crate) fn expect(&self, count: usize) -> PyResult<()> {
        if self.given.len() == count {
            return Ok(());
        }
        Err(PyTypeError::new_err(format!("{count} arguments are needed, {} were given", self.given.len())))
    }

    pub(crate) fn text(&self, place: usize) -> PyResult<&'a str> {
        let mut size = 0;
        // SAFETY: the object is there while the function runs, and with it its bytes, which are UTF-8. What is not
        // a `str` gives null and an exception.
        #[allow(unsafe_code)]
        unsafe {
            let bytes = ffi::PyUnicode_AsUTF8AndSize(self.given[place], &mut size);
            if bytes.is_null() {
                return Err(PyErr::fetch(self.py));
            }
            Ok(std::str::from_utf8_unchecked(std::slice::from_raw_parts(bytes.cast(), size.unsigned_abs())))
        }
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, place: usize) -> PyResult<T> {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        let number = unsafe { ffi::PyLong_AsLongLong(self.given[place]) };
        match T::try_from(number) {
            // Also said where it is no number, or too large.
            Ok(_) if number == -1 && PyErr::occurred(self.py) => Err(PyErr::fetch(self.py)),
            Ok(number) => Ok(number),
            Err(_) => Err(PyErr::take(self.py)
                .unwrap_or_else(|| PyOverflowError::new_err(format!("{number} is out of bounds")))),
        }
    }

    pub(crate) fn object(&self, place: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        unsafe {
            Borrowed::from_ptr(self.py, self.given[place])
        }
    }

    /// The bytes of a `bytes` object; `None` for any other.
    pub(crate) fn bytes(&self, place: usize) -> Option<&'a [u8]> {
        // SAFETY: the object is there while the function runs, and with it its bytes, which never change.
        #[allow(unsafe_code)]
        unsafe {
            let object = self.given[place];
            if ffi::PyBytes_Check(object) == 0 {
                return None;
            }
            let data = ffi::PyBytes_AsString(object).cast();
            Some(std::slice::from_raw_parts(data, ffi::PyBytes_Size(object).unsigned_abs()))
        }
    }

    pub(crate) fn request(&self, scope: Option<&'a Scope>) -> PyResult<Request<'a>> {
        Ok(Request {
            adapter: self.number(0)?,
            method: self.text(1)?,
            scheme: self.text(2)?,
            host: self.text(3)?,
            port: if self.is_none(4) { None } else { Some(self.number(4)?) },
            path: self.text(5)?,
            scope,
        })
    }

    /// All of them.
    pub(crate) fn tuple(&self) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(self.py, (0..self.given.len()).map(|place| self.object(place)))
    }

    pub(crate) fn is_number(&self, place: usize) -> bool {
        // SAFETY: the object is there while the function runs.
        #[allow(unsafe_code)]
        unsafe {
            ffi::PyLong_Check(self.given[place]) != 0
        }
    }

    pub(crate) fn is_none(&self, place: usize) -> bool {
        // SAFETY: it asks for an address.
        #[allow(unsafe_code)]
        unsafe {
            self.given[place] == ffi::Py_None()
        }
    }
}

/// Runs what a function does, which gives a new reference; an error and a panic of ours become exceptions.
///
/// # Safety
/// The thread is attached to the interpreter, and `args` leads to `count` objects that live as long as the call.
#[allow(unsafe_code)]
pub(crate) unsafe fn answer(
    args: *mut *mut PyObject,
    count: Py_ssize_t,
    function: impl FnOnce(&Arguments<'_, '_>) -> PyResult<*mut PyObject>,
) -> *mut PyObject {
    // SAFETY: the caller's promise.
    let py = unsafe { Python::assume_attached() };
    let given = match count {
        // There need not be an array.
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(args, count.unsigned_abs()) },
    };
    let arguments = Arguments { py, given };
    let error = match catch_unwind(AssertUnwindSafe(|| function(&arguments))) {
        Ok(Ok(object)) => return object,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("farcall panicked"),
    };
    error.restore(py);
    std::ptr::null_mut()
}

/// A new reference to None.
pub(crate) fn none() -> *mut PyObject {
    // SAFETY: it lives for ever.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_NewRef(ffi::Py_None())
    }
}

/// A new reference to True or False.
pub(crate) fn truth(value: bool) -> *mut PyObject {
    // SAFETY: they live for ever.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_NewRef(if value { ffi::Py_True() } else { ffi::Py_False() })
    }
}
