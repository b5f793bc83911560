//! Links the addon as Node expects it.

fn main() {
    napi_build::setup();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The agent's thread runs this library's code until the process ends. Node unloads an addon with the
        // last worker that loaded it: without this flag, that would pull the code from under the thread.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
