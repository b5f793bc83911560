//! Which TLS implementation a process uses: from the libraries that it maps and the executable itself.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use object::{Object, ObjectSection};

/// A TLS implementation found in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// OpenSSL or a fork, as a shared library: the only one that is tapped so far.
    OpenSsl,
    /// The same in a 32-bit program, whose arguments are elsewhere.
    OpenSsl32,
    /// OpenSSL inside the Node executable.
    Node,
    /// OpenSSL or BoringSSL linked into the executable.
    StaticOpenSsl,
    /// Go's own `crypto/tls`.
    Go,
    /// rustls.
    Rustls,
    /// GnuTLS.
    GnuTls,
    /// Mozilla's NSS.
    Nss,
    /// Nothing that we recognise.
    Unknown,
}

impl Tls {
    /// Its word in the ledger; empty where it is unknown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            Self::OpenSsl32 => "openssl, 32-bit",
            Self::Node => "openssl in node",
            Self::StaticOpenSsl => "openssl or boringssl, static",
            Self::Go => "go",
            Self::Rustls => "rustls",
            Self::GnuTls => "gnutls",
            Self::Nss => "nss",
            Self::Unknown => "",
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenSsl => "OpenSSL",
            Self::OpenSsl32 => "OpenSSL in a 32-bit program",
            Self::Node => "OpenSSL inside node (static)",
            Self::StaticOpenSsl => "OpenSSL or BoringSSL linked into the executable",
            Self::Go => "Go crypto/tls",
            Self::Rustls => "rustls",
            Self::GnuTls => "GnuTLS",
            Self::Nss => "NSS",
            Self::Unknown => "unknown TLS implementation",
        }
    }
}

/// Bytes of an executable that are searched at most.
const SEARCH_LIMIT: u64 = 256 * 1024 * 1024;

/// Processes whose answer is kept.
const MAX_PROCESSES: usize = 4096;

/// What was found in executables, by device, inode and change time: each is read once.
#[derive(Debug, Default)]
pub struct Executables {
    known: HashMap<(u64, u64, i64), Tls>,
    /// What was found in processes, by identifier and start.
    processes: HashMap<(u32, u64), Tls>,
}

impl Executables {
    /// The TLS implementation of a living process that started at `started`. Shared libraries are asked first: they are
    /// certain. The answer is kept, because reading the mappings of a large process takes long; what is unknown may be known
    /// later, when it has loaded more.
    pub fn tls_of(&mut self, tgid: u32, started: u64) -> Tls {
        if let Some(known) = self.processes.get(&(tgid, started)) {
            return *known;
        }
        let Ok(maps) = fs::read_to_string(format!("/proc/{tgid}/maps")) else { return Tls::Unknown };
        let found =
            from_libraries(&maps).unwrap_or_else(|| self.inside(Path::new(&format!("/proc/{tgid}/exe"))));
        if found != Tls::Unknown {
            if self.processes.len() >= MAX_PROCESSES {
                self.processes.clear();
            }
            self.processes.insert((tgid, started), found);
        }
        found
    }

    /// The process has executed another program.
    pub fn forget(&mut self, tgid: u32, started: u64) {
        self.processes.remove(&(tgid, started));
    }

    fn inside(&mut self, path: &Path) -> Tls {
        // Both at once, before the process ends: reading takes longer than some programs live.
        let (Ok(file), name) = (File::open(path), fs::read_link(path)) else { return Tls::Unknown };
        let Ok(metadata) = file.metadata() else { return Tls::Unknown };
        let key = (metadata.dev(), metadata.ino(), metadata.ctime());
        if self.known.len() > 4096 {
            self.known.clear();
        }
        let name = name.unwrap_or_else(|_| path.to_path_buf());
        *self.known.entry(key).or_insert_with(|| from_executable(&file, &name))
    }
}

/// From the names of mapped files, in the format of `/proc/<pid>/maps`.
fn from_libraries(maps: &str) -> Option<Tls> {
    let mut found = None;
    for line in maps.lines() {
        let Some(name) = line.rsplit('/').next().filter(|_| line.contains('/')) else { continue };
        if name.starts_with("libssl.so") {
            // A 32-bit program has nothing above 4 GiB, and others no library below.
            let is_low = line.split('-').next().is_some_and(|start| start.len() <= 8);
            return Some(if is_low { Tls::OpenSsl32 } else { Tls::OpenSsl });
        } else if name.starts_with("libgnutls.so") {
            found = found.or(Some(Tls::GnuTls));
        } else if name.starts_with("libssl3.so") {
            found = found.or(Some(Tls::Nss));
        }
    }
    found
}

fn from_executable(file: &File, path: &Path) -> Tls {
    let cache = object::ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else { return Tls::Unknown };
    if elf.section_by_name(".go.buildinfo").is_some() {
        return Tls::Go;
    }
    let linked_in = || {
        let name = path.file_name().unwrap_or_default();
        if name == "node" || name == "nodejs" { Tls::Node } else { Tls::StaticOpenSsl }
    };
    // Whole string tables, not symbol by symbol: large executables have a hundred thousand. An executable that merely
    // imports the symbol maps a libssl, and is not asked.
    let has_symbol = |section: &str| {
        let range = elf.section_by_name(section).and_then(|section| section.file_range());
        range.is_some_and(|range| contains(&read_range(file, range), b"\0SSL_write\0"))
    };
    if has_symbol(".dynstr") || has_symbol(".strtab") {
        return linked_in();
    }
    // Names of source files stay in panic messages even where symbols are stripped.
    let Some(range) = elf.section_by_name(".rodata").and_then(|section| section.file_range()) else {
        return Tls::Unknown;
    };
    let contents = read_range(file, range);
    if contains(&contents, b"rustls") && contains(&contents, b"ClientHello") {
        Tls::Rustls
    } else if contains(&contents, b"OpenSSL 1.")
        || contains(&contents, b"OpenSSL 3.")
        || contains(&contents, b"BoringSSL")
    {
        linked_in()
    } else {
        Tls::Unknown
    }
}

fn read_range(mut file: &File, (at, len): (u64, u64)) -> Vec<u8> {
    let mut contents = Vec::new();
    let read = file
        .seek(SeekFrom::Start(at))
        .and_then(|_| file.take(len.min(SEARCH_LIMIT)).read_to_end(&mut contents));
    if read.is_err() {
        contents.clear();
    }
    contents
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else { return true };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_among_the_mapped_files_wins_over_other_libraries() {
        let gnutls = "7f96aca00000-7f96aca01000 r-xp 0 fe:00 1   /usr/lib/libgnutls.so.30\n";
        let openssl = "7f96acb00000-7f96acb01000 r-xp 0 fe:00 2   /usr/lib/libssl.so.3\n";
        assert_eq!(from_libraries(gnutls), Some(Tls::GnuTls));
        assert_eq!(from_libraries(&[gnutls, openssl].concat()), Some(Tls::OpenSsl));
        assert_eq!(from_libraries("7f00-7f01 rw-p 0 00:00 0\n"), None);
        let low = "f7d00000-f7d80000 r-xp 00000000 fe:00 2   /usr/lib/i386-linux-gnu/libssl.so.3\n";
        assert_eq!(from_libraries(low), Some(Tls::OpenSsl32));
    }

    #[test]
    fn a_program_without_tls_is_unknown_and_asked_once() {
        let mut executables = Executables::default();
        assert_eq!(
            executables.inside(Path::new("/proc/self/exe")),
            executables.inside(Path::new("/proc/self/exe"))
        );
        assert_eq!(executables.inside(Path::new("/nonexistent")), Tls::Unknown);
        assert_eq!(executables.known.len(), 1);
    }

    #[test]
    fn a_process_is_looked_into_again_only_after_it_executed_another_program() {
        let mut executables = Executables::default();
        let me = std::process::id();
        assert_eq!(executables.tls_of(u32::MAX, 1), Tls::Unknown);
        assert!(executables.processes.is_empty(), "the unknown may be known later");
        executables.processes.insert((me, 7), Tls::Go);
        assert_eq!(executables.tls_of(me, 7), Tls::Go);
        executables.forget(me, 7);
        assert_ne!(executables.tls_of(me, 7), Tls::Go);
        for n in 0..MAX_PROCESSES as u64 {
            executables.processes.insert((0, n), Tls::Go);
        }
        executables.tls_of(me, 8);
        assert!(executables.processes.len() <= MAX_PROCESSES + 1);
    }

    #[test]
    fn search_finds_only_whole_words() {
        assert!(contains(b"aab", b"ab"));
        assert!(contains(b"xxrustls", b"rustls"));
        assert!(!contains(b"rustl", b"rustls"));
    }
}
