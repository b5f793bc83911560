//! What people would call a program.

use std::fs;

/// Interpreters whose name says nothing about the program: there the script is meant. Version suffixes are ignored.
const INTERPRETERS: &[&str] = &[
    "python", "pypy", "node", "nodejs", "ruby", "perl", "php", "java", "bash", "sh", "dash", "zsh", "deno",
    "bun",
];

/// Arguments of interpreters that take the next argument with them.
const WITH_VALUE: &[&str] =
    &["-W", "-X", "-r", "--require", "--import", "--loader", "-e", "-C", "-cp", "-classpath"];

/// The name of a living process; from its executable alone where it is gone.
pub(super) fn name(tgid: u32, executable: &str) -> String {
    let arguments = fs::read(format!("/proc/{tgid}/cmdline")).unwrap_or_default();
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .skip(1)
        .take(32)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    of(executable, &arguments)
}

fn of(executable: &str, arguments: &[String]) -> String {
    let program = base_name(executable);
    let stem = program.trim_end_matches(|last: char| last.is_ascii_digit() || last == '.');
    if INTERPRETERS.contains(&stem)
        && let Some(script) = script(arguments)
    {
        return script;
    }
    if program.is_empty() { "unknown".to_owned() } else { program.to_owned() }
}

/// The script or module that an interpreter runs, without its folder. `None` where it runs none (`-c`, standard input).
fn script(arguments: &[String]) -> Option<String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-m" => return arguments.next().cloned(),
            "-jar" => return arguments.next().map(|path| base_name(path).to_owned()),
            "-c" | "-e" | "--eval" | "-p" | "-" | "" => return None,
            flag if WITH_VALUE.contains(&flag) => {
                arguments.next()?;
            }
            flag if flag.starts_with('-') => {}
            path => return Some(base_name(path).to_owned()),
        }
    }
    None
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(executable: &str, arguments: &[&str]) -> String {
        of(executable, &arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_program_is_its_executable_and_a_script_its_file() {
        assert_eq!(named("/usr/bin/curl", &["-s", "https://x"]), "curl");
        assert_eq!(
            named("/usr/bin/python3.11", &["-u", "-W", "ignore", "/srv/billing.py", "x"]),
            "billing.py"
        );
        assert_eq!(named("/usr/bin/python3", &["-m", "gunicorn", "app:app"]), "gunicorn");
        assert_eq!(named("/usr/bin/node", &["--import", "farcall/register", "app.js"]), "app.js");
        assert_eq!(named("/usr/bin/java", &["-Xmx1g", "-jar", "/opt/shop.jar"]), "shop.jar");
        assert_eq!(named("/bin/bash", &["-c", "curl https://secret@x"]), "bash");
        assert_eq!(named("/usr/bin/python3.11", &[]), "python3.11");
        assert_eq!(named("", &[]), "unknown");
    }
}
