//! Gathers `catalogue/*.toml` into one table, so that a new vendor is a new file and nothing else.
use std::fmt::Write as _;
use std::path::Path;

#[allow(clippy::disallowed_methods, clippy::unwrap_used)] // The build script runs on the builder's machine, outside the engine.
fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let folder = Path::new(&root).join("catalogue");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut table = String::from(
        "/// Name and text of every file in `catalogue/`.\nstatic BUILTIN_FILES: &[(&str, &str)] = &[\n",
    );
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        writeln!(table, "    ({name:?}, include_str!({:?})),", file.display().to_string()).unwrap();
    }
    table.push_str("];\n");
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(Path::new(&out).join("builtin_files.rs"), table).unwrap();
}
