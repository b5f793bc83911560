//! [`Call`] as a Python object: the function and the methods that every call goes through.
//!
//! Written against the C API itself. Between two calls a program waits for the network, and finds the caches cold:
//! then a function costs by the number of places that it touches, not by its instructions. PyO3's wrappers ask the
//! interpreter a dozen things for each argument and object, and made two thirds of what a call cost. These ask two:
//! for a text's bytes, and for an integer's value.

use crate::arguments::{Arguments, answer, none, truth};
use crate::body;
use crate::call::{Call, Details, Opened, patience};
use crate::handle::{Handle, handle};
use crate::headers::{self, Shown};
use crate::parking;
use crate::scope::Scope;
use crate::step;
use crate::types::{Definitions, Type, definition, kind, slot};
use farcall::resilience::Ending;
use farcall::{ErrorType, Headers};
use farcall_agent::outbox::Detour;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How CPython lays out an instance.
#[repr(C)]
struct Object {
    base: PyObject,
    call: Call,
}

/// The type `Call`.
static TYPE: Type = Type::new();

static FUNCTIONS: Definitions<4> = Definitions([
    definition(
        c"begin",
        begin,
        c"begin(adapter, method, scheme, host, port, path, scope, /)\n--\n\n\
          Begins a call; None between `uninstall()` and `install()`, and where rules decide (`decides`).\n\n\
          `adapter` is the number of the adapter that saw it, for `calls()`; `path` is what the request line says: a \
          path, perhaps with a query, or (to a proxy) an absolute URL.",
    ),
    definition(
        c"begin_deciding",
        begin_deciding,
        c"begin_deciding(adapter, method, scheme, host, port, path, scope, headers, length, content, replayable, channel, patience, hedges, /)\n\
          --\n\n\
          Begins a call for which rules decide; None between `uninstall()` and `install()`.\n\n\
          `headers` are pairs (first and last of each count); `length` is the body's, None where nobody knows; \
          `content` is the body where it is in memory, else None; `replayable` says whether the request can be sent \
          again; `channel` are bytes that keep its answers apart from those of calls over another kind of connection, or \
          None; `patience` is how many seconds the client would wait for an answer, None where it does not say; `hedges` says \
          whether a second attempt can be made beside a slow one.",
    ),
    definition(c"decides", decides, c"decides()\n--\n\nWhether rules decide about the calls that begin now, or did about one that is held (`Call.hold`)."),
    definition(
        c"caches",
        caches,
        c"caches()\n--\n\nWhether a rule may keep an answer to the calls that begin now.",
    ),
]);

static METHODS: Definitions<22> = Definitions([
    definition(
        c"connected",
        connected,
        c"connected($self, dns, connect, tls, /)\n--\n\n\
          Making a connection took so many seconds.\n\nParts may be told one by one; None is a part that is told at \
          another time, did not happen or could not be seen.",
    ),
    definition(
        c"head",
        head,
        c"head($self, status, sent, /)\n--\n\n\
          The head of the response arrived, and before it `sent` bytes of the request's body went out.\n\n\
          Returns True where a body may follow, False where none can and the call has settled, and None where the \
          headers are wanted: then `answer` and `opened` are to follow.",
    ),
    definition(
        c"respond",
        respond,
        c"respond($self, status, sent, stream, headers, kind, /)\n--\n\n\
          The head of the response arrived, and before it `sent` bytes of the request's body went out; its headers are \
          looked at where they are wanted.\n\nReturns what is to be in the place of its stream: an instance of `kind`, \
          a class that derives from `Body` or `AsyncBody`, where a body may follow, and else the stream itself; then the \
          call has settled.",
    ),
    definition(
        c"stream",
        stream,
        c"stream($self, stream, headers, kind, /)\n--\n\n\
          A stream that ends the call with what it is in the place of: an instance of `kind`, as `respond` gives.",
    ),
    definition(
        c"answer",
        answered,
        c"answer($self, status, headers, /)\n--\n\n\
          The head of the response arrived, with pairs of headers; `opened` or `step` follows.",
    ),
    definition(
        c"opened",
        opened,
        c"opened($self, status, /)\n--\n\n\
          The application gets the response.\n\n\
          Returns whether a body may follow; where none can, the call has settled.",
    ),
    definition(
        c"hold",
        hold,
        c"hold($self, on, /)\n--\n\n\
          It waits for the hook that is to carry it, or no longer does: meanwhile `begin` returns None, as where rules \
          decide.",
    ),
    definition(
        c"step",
        next_step,
        c"step($self, /)\n--\n\nWhat to do next: a tuple that begins with the number of its kind.",
    ),
    definition(
        c"hedge",
        hedge,
        c"hedge($self, /)\n--\n\n\
          A second attempt beside the one under way, as `step` tells of one; None where nothing has room for it.",
    ),
    definition(
        c"lost",
        lost,
        c"lost($self, number, status, error, /)\n--\n\n\
          Of two attempts that of this number ended with a status, or else with the error of this number; both are 0 \
          where it was given up, since the other one answered.",
    ),
    definition(
        c"shadow",
        shadow,
        c"shadow($self, /)\n--\n\n\
          A copy to send beside this call, and its attempt as `step` tells of one; None where there is no room for it.",
    ),
    definition(
        c"park",
        park,
        c"park($self, method, url, headers, body, /)\n--\n\n\
          Hands the request over to the outbox, as `step` asked; returns once it is on the disk or cannot be. `step` \
          follows.\n\n\
          `headers` are pairs; `body` is bytes.",
    ),
    definition(
        c"handshake_failed",
        handshake_failed,
        c"handshake_failed($self, /)\n--\n\nThe TLS handshake failed; where rules decide, `failed` follows.",
    ),
    definition(
        c"take_insecure",
        take_insecure,
        c"take_insecure($self, /)\n--\n\nWhether the TLS handshake of this attempt failed; once.",
    ),
    definition(
        c"not_parked",
        not_parked,
        c"not_parked($self, detour, /)\n--\n\n\
          The request cannot be handed over to the outbox, as `step` asked: it goes by the detour of this number. `step` \
          follows.",
    ),
    definition(
        c"sent",
        sent,
        c"sent($self, count, /)\n--\n\nSo many more bytes of the request's body went out.",
    ),
    definition(
        c"failed",
        failed,
        c"failed($self, error, /)\n--\n\n\
          The attempt failed with the error of this number; `step` or `end` follows.",
    ),
    definition(
        c"body",
        body,
        c"body($self, data, /)\n--\n\nMore of the response's body arrived: the bytes, or how many.",
    ),
    definition(
        c"end",
        end,
        c"end($self, data, /)\n--\n\n\
          More of the response's body arrived (the bytes, or how many), and it was the last. Does nothing once settled.",
    ),
    definition(
        c"fail",
        fail,
        c"fail($self, error, sent, count, /)\n--\n\n\
          The call failed with the error of this number, after `sent` bytes of the request's body went out and \
          `count` more of the response's arrived. Does nothing once settled.",
    ),
    definition(
        c"abandon",
        abandon,
        c"abandon($self, /)\n--\n\nThe application let go of the response. Does nothing once settled.",
    ),
    ffi::PyMethodDef::zeroed(),
]);

/// Adds the type and the function to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let kind = kind(
        module,
        c"farcall._farcall.Call",
        size_of::<Object>(),
        ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        &mut [
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_methods, METHODS.0.as_ptr().cast_mut().cast()),
            slot(
                ffi::Py_tp_doc,
                c"A call under way; an object that is let go of unsettled counts as abandoned."
                    .as_ptr()
                    .cast_mut()
                    .cast(),
            ),
            slot(0, std::ptr::null_mut()),
        ],
    )?;
    TYPE.set(kind.clone());
    module.add("Call", kind)?;
    let name = module.name()?;
    for definition in &FUNCTIONS.0 {
        // SAFETY: the definition is static. The functions return a new reference or null with an exception, and what is
        // borrowed is static.
        #[allow(unsafe_code)]
        unsafe {
            let function = ffi::PyCFunction_NewEx(
                std::ptr::from_ref(definition).cast_mut(),
                std::ptr::null_mut(),
                name.as_ptr(),
            );
            let function = Bound::from_owned_ptr_or_err(py, function)?;
            module
                .add(function.getattr(pyo3::intern!(py, "__name__"))?.cast_into::<PyString>()?, function)?;
        }
    }
    Ok(())
}

/// The head of a response arrived. Returns whether a body may follow.
pub(crate) fn is_open(call: &Call, status: u16, sent: u64, headers: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(match call.head(status, sent) {
        Opened::Settled => false,
        Opened::Body => true,
        Opened::ShowHeaders => {
            headers::lend(headers, |headers| call.answer(status, headers))?;
            call.opened(status)
        }
    })
}

/// Part of a response's body: bytes, a number of bytes, or another buffer.
pub(crate) fn take(call: &Call, given: &Arguments<'_, '_>) -> PyResult<()> {
    if let Some(chunk) = given.bytes(0) {
        call.read(chunk);
    } else if given.is_number(0) {
        // Not by trying: an exception, even one that nobody sees, costs more than all the rest of a call's end.
        call.body(given.number(0)?);
    } else {
        // SAFETY: the object is there while the function runs; a new reference, or null with an exception, comes of it.
        #[allow(unsafe_code)]
        let copy =
            unsafe { Bound::from_owned_ptr_or_err(given.py, ffi::PyBytes_FromObject(given.given[0]))? };
        call.read(copy.cast::<PyBytes>()?.as_bytes());
    }
    Ok(())
}

/// The call that an object holds.
///
/// # Safety
/// It is an instance of `Call`, and there for as long as the result is used.
#[allow(unsafe_code)]
pub(crate) unsafe fn held<'a>(object: *mut PyObject) -> &'a Call {
    // SAFETY: the caller's promise.
    unsafe { &(*object.cast::<Object>()).call }
}

/// Whether an object is an instance of `Call`.
pub(crate) fn is_call(object: *mut PyObject) -> bool {
    // SAFETY: it asks for an address.
    #[allow(unsafe_code)]
    unsafe {
        ffi::Py_TYPE(object) == TYPE.get()
    }
}

/// A new object that holds the call; null with an exception where there is no memory.
pub(crate) fn object_of(call: Call) -> *mut PyObject {
    // SAFETY: the type was made when the module was loaded; its instances have the layout of `Object`, whose `call` is
    // written before anybody else sees it.
    #[allow(unsafe_code)]
    unsafe {
        let object: *mut Object = ffi::PyObject_New(TYPE.get());
        if !object.is_null() {
            (&raw mut (*object).call).write(call);
        }
        object.cast()
    }
}

/// The same, in PyO3's hands.
#[allow(unsafe_code)]
fn bound(py: Python<'_>, call: Call) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, object_of(call)) }
}

/// A function as CPython calls it (`METH_FASTCALL`), with as many arguments as it must have.
macro_rules! functions {
    ($($name:ident($count:literal) = |$this:ident, $call:ident, $arguments:ident| $body:expr;)*) => {$(
        #[allow(unsafe_code)]
        unsafe extern "C" fn $name(
            $this: *mut PyObject,
            args: *mut *mut PyObject,
            count: Py_ssize_t,
        ) -> *mut PyObject {
            // SAFETY: CPython calls it, attached, with objects that live as long as it runs. A method's `this` is
            // an instance of the type that the method belongs to, for the descriptor checks that.
            unsafe {
                answer(args, count, |$arguments| {
                    $arguments.expect($count)?;
                    let $call = || held($this);
                    $body
                })
            }
        }
    )*};
}

functions! {
    begin(7) = |_this, _call, given| {
        let scope = given.object(6);
        let scope = if given.is_none(6) { None } else { Some(scope.cast::<Scope>()?) };
        let request = given.request(scope.as_ref().map(|scope| scope.get()))?;
        Ok(Call::begin(&request).map_or_else(none, object_of))
    };
    begin_deciding(14) = |_this, _call, given| {
        let scope = given.object(6);
        let scope = if given.is_none(6) { None } else { Some(scope.cast::<Scope>()?) };
        let request = given.request(scope.as_ref().map(|scope| scope.get()))?;
        let headers = Shown::read(&given.object(7), given.bytes(11))?;
        let details = Details {
            headers: &headers,
            length: if given.is_none(8) { None } else { Some(given.number(8)?) },
            content: given.bytes(9).unwrap_or_default(),
            replayable: given.object(10).is_truthy()?,
            patience: if given.is_none(12) { None } else { patience(given.object(12).extract()?) },
            hedges: given.object(13).is_truthy()?,
        };
        Ok(Call::begin_deciding(&request, &details).map_or_else(none, object_of))
    };
    decides(0) = |_this, _call, _given| Ok(truth(handle().is_some_and(Handle::decides)));
    caches(0) = |_this, _call, _given| Ok(truth(handle().is_some_and(Handle::caches)));
    connected(3) = |_this, call, given| {
        let seconds = |place| match given.is_none(place) {
            true => Ok(None),
            false => given.object(place).extract::<f64>().map(Some),
        };
        call().connected(seconds(0)?, seconds(1)?, seconds(2)?);
        Ok(none())
    };
    head(2) = |_this, call, given| Ok(match call().head(given.number(0)?, given.number(1)?) {
        Opened::Settled => truth(false),
        Opened::Body => truth(true),
        Opened::ShowHeaders => none(),
    });
    respond(5) = |this, call, given| {
        let Arguments { py, given: objects } = given;
        match is_open(call(), given.number(0)?, given.number(1)?, &given.object(3))? {
            true => body::stream(*py, this, objects[2], objects[3], objects[4]),
            false => Ok(ffi::Py_NewRef(objects[2])),
        }
    };
    stream(3) = |this, _call, given| {
        let Arguments { py, given: objects } = given;
        body::stream(*py, this, objects[0], objects[1], objects[2])
    };
    answered(2) = |_this, call, given| {
        call().answer(given.number(0)?, &Shown::read(&given.object(1), None)?);
        Ok(none())
    };
    opened(1) = |_this, call, given| Ok(truth(call().opened(given.number(0)?)));
    hold(1) = |_this, call, given| {
        call().hold(given.object(0).is_truthy()?);
        Ok(none())
    };
    next_step(0) = |_this, call, given| {
        let (step, now, octets) = call().step();
        Ok(step::to_python(given.py, step, now, octets)?.into_ptr())
    };
    hedge(0) = |_this, call, given| match call().hedge() {
        Some((attempt, now)) => Ok(step::send(given.py, &attempt, now)?.into_ptr()),
        None => Ok(none()),
    };
    lost(3) = |_this, call, given| {
        let ending = match (given.number(1)?, given.number(2)?) {
            (0_u16, 0_u8) => None,
            (0, error) => Some(Ending::Error(ErrorType::from_number(error))),
            (status, _) => Some(Ending::Status(status)),
        };
        call().lost(given.number(0)?, ending);
        Ok(none())
    };
    shadow(0) = |_this, call, given| {
        let Some((copy, attempt, now)) = call().shadow() else { return Ok(none()) };
        let attempt = step::send(given.py, &attempt, now)?;
        Ok((bound(given.py, copy)?, attempt).into_pyobject(given.py)?.into_ptr())
    };
    park(4) = |_this, call, given| {
        if let Some(terms) = call().take_terms() {
            let mut headers = Vec::new();
            Shown::read(&given.object(2), None)?.each(&mut |name, value| headers.push((name.to_vec(), value.to_vec())));
            let request = (given.text(0)?, given.text(1)?);
            let body = given.bytes(3).unwrap_or_default();
            parking::park(given.py, call(), &terms, request, &headers, body);
        }
        Ok(none())
    };
    handshake_failed(0) = |_this, call, _given| {
        call().handshake_failed();
        Ok(none())
    };
    take_insecure(0) = |_this, call, _given| Ok(truth(call().take_insecure()));
    not_parked(1) = |_this, call, given| {
        if call().take_terms().is_some() {
            call().not_parked(Detour::from_number(given.number(0)?).unwrap_or(Detour::Own));
        }
        Ok(none())
    };
    sent(1) = |_this, call, given| {
        call().sent(given.number(0)?);
        Ok(none())
    };
    failed(1) = |_this, call, given| {
        call().failed(ErrorType::from_number(given.number(0)?));
        Ok(none())
    };
    body(1) = |_this, call, given| {
        take(call(), given)?;
        Ok(none())
    };
    end(1) = |_this, call, given| {
        // Nothing is left to tell of a call that has settled.
        if !call().is_settled() {
            take(call(), given)?;
            call().end();
        }
        Ok(none())
    };
    fail(3) = |_this, call, given| {
        call().fail(ErrorType::from_number(given.number(0)?), given.number(1)?, given.number(2)?);
        Ok(none())
    };
    abandon(0) = |_this, call, _given| {
        call().abandon();
        Ok(none())
    };
}

#[allow(unsafe_code)]
unsafe extern "C" fn dealloc(this: *mut PyObject) {
    // SAFETY: CPython calls it once, when nobody refers to the object any more. The memory is from `PyObject_New`, to
    // which `PyObject_Free` belongs, and which took a reference to the type.
    unsafe {
        let kind = ffi::Py_TYPE(this);
        let call = &raw mut (*this.cast::<Object>()).call;
        // Counting a call touches nothing of Python, so that an exception under way stays.
        let _ = catch_unwind(AssertUnwindSafe(|| call.drop_in_place()));
        ffi::PyObject_Free(this.cast());
        ffi::Py_DECREF(kind.cast());
    }
}
