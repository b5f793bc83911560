//! Where our own code fails: the application does not feel it.

use pyo3::Borrowed;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does what the application must not feel: an exception and a panic of ours are counted as a fault at `place`. An
/// exception that is under way stays.
///
/// # Errors
/// What a signal's handler raised in any Python that is run from here, for that is the application's: what is no
/// `Exception` (`KeyboardInterrupt`), and one that a handler is seen to have raised.
pub(crate) fn guarded(place: &str, work: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("farcall panicked"),
    };
    // SAFETY: those who call this are called by CPython, attached.
    #[allow(unsafe_code)]
    let py = unsafe { Python::assume_attached() };
    if !failure.is_instance_of::<PyException>(py) {
        return Err(failure);
    }
    let under_way = PyErr::take(py);
    let value = failure.value(py);
    let told = py.import("farcall._faults").and_then(|faults| {
        // Kept apart before Python 3.12; by it a handler is seen.
        value.setattr("__traceback__", failure.traceback(py))?;
        faults.call_method1("fault", (place, value))
    });
    if let Some(error) = under_way {
        error.restore(py);
    }
    match told {
        Err(error) if !error.is_instance_of::<PyException>(py) || error.value(py).is(value) => Err(error),
        // Any other comes of an interpreter that is ending.
        _ => Ok(()),
    }
}

/// The same for what runs as an object goes away, where no exception can be raised.
pub(crate) fn guarded_at_end(place: &str, work: impl FnOnce() -> PyResult<()>) {
    if let Err(error) = guarded(place, work) {
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let py = unsafe { Python::assume_attached() };
        error.write_unraisable(py, None);
    }
}

/// Tells a call of the exception that is set, by a function of `farcall._hook`. It stays set, unless one takes its place
/// that is no `Exception`.
///
/// # Safety
/// The thread is attached, the call is there, and an exception is set.
#[allow(unsafe_code)]
pub(crate) unsafe fn tell(function: &str, place: &str, call: *mut PyObject, sent: Option<u64>) {
    // SAFETY: the caller's promise.
    let (py, call) = unsafe {
        let py = Python::assume_attached();
        (py, Borrowed::from_ptr(py, call))
    };
    let error = PyErr::fetch(py);
    let told = py.import(pyo3::intern!(py, "farcall._hook")).and_then(|hook| {
        let (function, value) = (hook.getattr(function)?, error.value(py));
        match sent {
            Some(sent) => function.call1((place, call, value, sent)),
            None => function.call1((place, call, value)),
        }
    });
    match told {
        Err(other) if !other.is_instance_of::<PyException>(py) => {
            other.set_context(py, Some(error));
            other.restore(py);
        }
        // It counts its own failures. What remains is an interpreter that is ending.
        _ => error.restore(py),
    }
}

/// Does what runs Python, and may not come back: before Python 3.14 a daemon thread that wants to go on once the
/// interpreter has ended is ended by `pthread_exit`, which unwinds what it is in. No frame of ours can be left that way; the
/// thread stays here for good, as from 3.14 on. What `work` calls of C's must be called as "C-unwind".
#[inline]
pub(crate) fn or_stay<T>(work: impl FnOnce() -> T) -> T {
    let stay = Stay;
    let done = work();
    std::mem::forget(stay);
    done
}

struct Stay;

impl Drop for Stay {
    #[cold]
    fn drop(&mut self) {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
        }
    }
}

/// A function of CPython's, by its name; null where this one has none. Found so and not linked, the compiler knows nothing
/// of it, and not that it never unwinds, as pyo3 says of all.
pub(crate) fn function_of_python(name: &CStr) -> *mut c_void {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    // SAFETY: the name ends with zero, and null stands for all that the process has loaded.
    #[allow(unsafe_code)]
    unsafe {
        dlsym(std::ptr::null_mut(), name.as_ptr())
    }
}
