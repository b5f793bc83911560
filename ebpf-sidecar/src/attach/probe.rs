//! Putting probes on a TLS library.

use std::os::fd::AsRawFd;

use libbpf_rs::{Link, ProgramMut, UprobeOpts};

use super::{
    discover::Library,
    skeleton::FarcallProgs,
    table::{OPENSSL, Program},
};

/// Puts every probe of the table on a library. All required ones, or none.
pub(super) fn attach_openssl(
    programs: &FarcallProgs<'_>,
    library: &Library,
) -> Result<Vec<Link>, libbpf_rs::Error> {
    // The kernel resolves this path in our own process, so that it means this very file, whatever its name does.
    let path = format!("/proc/self/fd/{}", library.file.as_raw_fd());
    let mut links = Vec::new();
    for probe in OPENSSL {
        let program: &ProgramMut<'_> = match probe.program {
            Program::Read => &programs.fc_ssl_read,
            Program::Write => &programs.fc_ssl_write,
            Program::ReadEx => &programs.fc_ssl_read_ex,
            Program::WriteEx => &programs.fc_ssl_write_ex,
            Program::Return => &programs.fc_ssl_return,
            Program::SetFd => &programs.fc_ssl_set_fd,
            Program::Clear => &programs.fc_ssl_clear,
            Program::Free => &programs.fc_ssl_free,
        };
        let options = UprobeOpts {
            retprobe: probe.at_return,
            func_name: Some(probe.symbol.to_owned()),
            ..UprobeOpts::default()
        };
        match program.attach_uprobe_with_opts(EVERY_PROCESS, &path, 0, options) {
            Ok(link) => links.push(link),
            Err(error) if probe.required => return Err(error),
            Err(_) => {}
        }
    }
    Ok(links)
}

/// The programs themselves check whether a process is in the scope.
const EVERY_PROCESS: i32 = -1;
