//! A value that is in force while one future is polled.
//!
//! A thread-local alone would leak into whatever the executor polls next on the thread. Here it holds the
//! value only during one poll: it is swapped in before and swapped out after, also when the poll panics. So it
//! follows the task from thread to thread, on any executor.

use std::cell::RefCell;
use std::mem;
use std::thread::LocalKey;

/// The place for a value of which one at a time is in force.
pub(crate) type Slot<T> = RefCell<Option<T>>;

/// Puts a value in force until dropped, then takes it back, as it is by then, and restores what was there.
pub(crate) struct InForce<'a, T: 'static> {
    key: &'static LocalKey<Slot<T>>,
    value: &'a mut Option<T>,
}

impl<'a, T> InForce<'a, T> {
    pub(crate) fn new(key: &'static LocalKey<Slot<T>>, value: &'a mut Option<T>) -> Self {
        swap(key, value);
        Self { key, value }
    }
}

impl<T> Drop for InForce<'_, T> {
    fn drop(&mut self) {
        swap(self.key, self.value);
    }
}

/// Does nothing where the thread is ending, or somebody is looking at the value right now.
fn swap<T>(key: &'static LocalKey<Slot<T>>, value: &mut Option<T>) {
    let _ = key.try_with(|slot| {
        if let Ok(mut current) = slot.try_borrow_mut() {
            mem::swap(&mut *current, value);
        }
    });
}

/// Shows the value in force, if there is one.
pub(crate) fn look<T, R>(key: &'static LocalKey<Slot<T>>, f: impl FnOnce(Option<&mut T>) -> R) -> R {
    let mut f = Some(f);
    let seen = key.try_with(|slot| match slot.try_borrow_mut() {
        Ok(mut current) => f.take().map(|f| f(current.as_mut())),
        Err(_) => None,
    });
    match (seen, f) {
        (Ok(Some(result)), _) => result,
        (_, Some(f)) => f(None),
        (_, None) => unreachable!("f is either taken and called, or still here"),
    }
}
