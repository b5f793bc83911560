//! Scriptable vendors.
