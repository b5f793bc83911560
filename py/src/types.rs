//! Types and functions made with the C API: their definitions, and what the collector asks of their instances.

use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

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

/// Where a type is kept that is never freed.
pub(crate) struct Type(AtomicPtr<PyTypeObject>);

impl Type {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The type; null until the module is loaded.
    pub(crate) fn get(&self) -> *mut PyTypeObject {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, kind: Bound<'_, PyAny>) {
        self.0.store(kind.into_ptr().cast(), Ordering::Release);
    }
}

/// How CPython lays out an instance of a type of ours that the collector looks into.
///
/// # Safety
/// It is `repr(C)`, begins with a `PyObject`, and holds nothing that Rust would have to drop.
#[allow(unsafe_code)]
pub(crate) unsafe trait Instance: Sized {
    /// The references that it holds, each once, in the order in which it lets go of them; null where there is none.
    fn references(&mut self) -> impl Iterator<Item = *mut *mut PyObject>;

    /// Nobody refers to it any more.
    ///
    /// # Safety
    /// CPython calls, attached, with one that is there. An exception may be under way, and stays.
    unsafe fn end(_this: *mut Self) {}

    /// Its references are about to go: the collector broke a cycle, or nobody refers to it any more.
    ///
    /// # Safety
    /// As of [`Instance::end`].
    unsafe fn leave(_this: *mut Self) {}
}

/// A new type of such instances, which only we make; `flags` are those that it has besides.
pub(crate) fn collected<'py, T: Instance>(
    module: &Bound<'py, PyModule>,
    name: &'static CStr,
    flags: std::ffi::c_ulong,
    doc: &'static CStr,
    methods: &'static [ffi::PyMethodDef],
    slots: &[ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let mut all = vec![
        slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<T> as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
    ];
    all.extend_from_slice(slots);
    all.push(slot(0, std::ptr::null_mut()));
    let common = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_HAVE_GC;
    kind(module, name, size_of::<T>(), common | flags, &mut all)
}

#[allow(unsafe_code)]
unsafe extern "C" fn traverse<T: Instance>(
    this: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls it with an instance; each reference is there or null.
    unsafe {
        let kind = ffi::Py_TYPE(this).cast();
        let held = (*this.cast::<T>()).references().map(|field| *field);
        for object in held.chain([kind]).filter(|object| !object.is_null()) {
            let stop = visit(object, arg);
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn clear<T: Instance>(this: *mut PyObject) -> c_int {
    // SAFETY: CPython calls it with an instance.
    unsafe {
        let this = this.cast::<T>();
        T::leave(this);
        (*this).references().for_each(|field| drop_ref(field));
    }
    0
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc<T: Instance>(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more; an exception may be under way.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        ffi::PyObject_GC_UnTrack(this.cast());
        T::end(this.cast());
        clear::<T>(this);
        ffi::PyObject_GC_Del(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// Lets go of what a field holds.
///
/// # Safety
/// The thread is attached; the field holds a reference of its own, or null, and is there until this returns.
#[allow(unsafe_code)]
pub(crate) unsafe fn drop_ref(field: *mut *mut PyObject) {
    // SAFETY: the caller's promise. The field is empty before other code can run.
    unsafe {
        let held = std::mem::replace(&mut *field, std::ptr::null_mut());
        ffi::Py_XDECREF(held);
    }
}
