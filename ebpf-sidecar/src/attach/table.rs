//! What is probed, as data. A library is known by the name of its file; each row is one probe.

/// A function of a TLS library.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The symbol.
    pub(super) symbol: &'static str,
    /// The program that runs there.
    pub(super) program: Program,
    /// Whether it runs at the function's return.
    pub(super) at_return: bool,
    /// Whether the library is useless to us without it. Old versions lack the others.
    pub(super) required: bool,
}

/// The programs of `bpf/openssl.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Read,
    Write,
    ReadEx,
    WriteEx,
    Return,
    SetFd,
    Clear,
    Free,
}

/// OpenSSL 1.1 and 3. Returns come first, so that no call is begun whose end would be missed.
pub(super) const OPENSSL: &[Probe] = &[
    Probe { symbol: "SSL_read", program: Program::Return, at_return: true, required: true },
    Probe { symbol: "SSL_write", program: Program::Return, at_return: true, required: true },
    Probe { symbol: "SSL_read_ex", program: Program::Return, at_return: true, required: false },
    Probe { symbol: "SSL_write_ex", program: Program::Return, at_return: true, required: false },
    Probe { symbol: "SSL_set_fd", program: Program::SetFd, at_return: false, required: false },
    Probe { symbol: "SSL_clear", program: Program::Clear, at_return: false, required: false },
    Probe { symbol: "SSL_free", program: Program::Free, at_return: false, required: true },
    Probe { symbol: "SSL_read", program: Program::Read, at_return: false, required: true },
    Probe { symbol: "SSL_write", program: Program::Write, at_return: false, required: true },
    Probe { symbol: "SSL_read_ex", program: Program::ReadEx, at_return: false, required: false },
    Probe { symbol: "SSL_write_ex", program: Program::WriteEx, at_return: false, required: false },
];

/// Whether a file of this name is OpenSSL's libssl: `libssl.so.3`, or renamed by Python wheels (`libssl-3a8b1c.so.3`).
pub(super) fn is_openssl(file_name: &str) -> bool {
    file_name.starts_with("libssl.so") || (file_name.starts_with("libssl-") && file_name.contains(".so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_file_names() {
        for name in ["libssl.so.3", "libssl.so.1.1", "libssl.so", "libssl-3a8b1c.so.3"] {
            assert!(is_openssl(name), "{name}");
        }
        for name in ["libssl3.so", "libssh2.so.1", "libcrypto.so.3", "libssl-doc.txt"] {
            assert!(!is_openssl(name), "{name}");
        }
    }
}
