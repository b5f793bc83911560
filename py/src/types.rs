//! Types and functions made with the C API: their definitions, and what the collector asks of their instances.

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};

/// Definitions that CPython reads and never writes.
pub(crate) struct Definitions<const N: usize>(pub(crate) [ffi::PyMethodDef; N]);

// SAFETY: the pointers in it lead to constants and functions.
#[allow(unsafe_code)]
unsafe impl<const N: usize> Sync for Definitions<N> {}

/// A new type, of which an instance takes so many bytes.
pub(crate) fn kind<'py>(
    module: &Bound<'py, PyModule>,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: &mut [ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: c_int::try_from(size)?,
        itemsize: 0,
        flags: u32::try_from(flags)?,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is complete and ends with an empty slot, CPython copies it, and what its slots point
    // at is static. A new reference or null with an exception comes of it.
    #[allow(unsafe_code)]
    unsafe {
        Bound::from_owned_ptr_or_err(module.py(), ffi::PyType_FromSpec(&mut spec))
    }
}

pub(crate) const fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

pub(crate) const fn definition(
    name: &'static CStr,
    function: ffi::PyCFunctionFast,
    doc: &'static CStr,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: doc.as_ptr(),
    }
}

/// Lets go of what these fields hold.
///
/// # Safety
/// The thread is attached; each field holds a reference of its own, or null, and is there until this returns.
#[allow(unsafe_code)]
pub(crate) unsafe fn clear_all(fields: &[*mut *mut PyObject]) {
    for field in fields {
        // SAFETY: the caller's promise. The field is empty before other code can run.
        unsafe {
            let held = std::mem::replace(&mut **field, std::ptr::null_mut());
            ffi::Py_XDECREF(held);
        }
    }
}

/// Shows objects to the collector.
///
/// # Safety
/// Each of them is there or null; `visit` and `arg` are the collector's.
#[allow(unsafe_code)]
pub(crate) unsafe fn visit_all(objects: &[*mut PyObject], visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    for object in objects {
        // SAFETY: the caller's promise.
        let stop = if object.is_null() { 0 } else { unsafe { visit(*object, arg) } };
        if stop != 0 {
            return stop;
        }
    }
    0
}
