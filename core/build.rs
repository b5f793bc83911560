//! Gathers `catalogue/*.toml` and `catalogue/prices/*.toml` into one table each, so that a new vendor is a new
//! file and nothing else.
use std::fmt::Write as _;
use std::path::Path;

#[allow(clippy::disallowed_methods, clippy::unwrap_used)] // The build script runs on the builder's machine, outside the engine.
fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let out = std::env::var("OUT_DIR").unwrap();
    let (root, out) = (Path::new(&root), Path::new(&out));
    gather(&root.join("catalogue"), "BUILTIN_FILES", &out.join("builtin_files.rs"));
    gather(&root.join("catalogue/prices"), "BUILTIN_PRICES", &out.join("builtin_prices.rs"));
}

#[allow(clippy::disallowed_methods, clippy::unwrap_used)] // As above.
fn gather(folder: &Path, name: &str, out: &Path) {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut table = format!(
        "/// Name and text of every such file of the catalogue.\nstatic {name}: &[(&str, &str)] = &[\n"
    );
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        writeln!(table, "    ({name:?}, include_str!({:?})),", file.display().to_string()).unwrap();
    }
    table.push_str("];\n");
    std::fs::write(out, table).unwrap();
}
