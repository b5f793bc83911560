//! `farcall config`.

use crate::Exit;
use crate::output::{complain, print};
use clap::Subcommand;
use farcall::Config;
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a configuration file: every error with its line, its column and what to write instead
    #[command(after_help = "Examples:
  farcall config check
  farcall config check deploy/farcall.toml

Without FILE: $FARCALL_CONFIG, ./farcall.toml, then farcall.toml in $FARCALL_HOME. Ends with 1 where the file has \
                            errors,\nwith 2 where there is none.")]
    Check {
        /// The file
        file: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &Command) -> Exit {
    let Command::Check { file } = command;
    let home = farcall_agent::home(None);
    let Some(file) = farcall_agent::config_file(file.as_deref(), home.as_deref()) else {
        complain("there is no farcall.toml here; name one, as in: farcall config check deploy/farcall.toml");
        return Exit::Usage;
    };
    let name = file.display().to_string();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("cannot read {name}: {error}"));
            return Exit::Usage;
        }
    };
    match Config::parse(&name, &text) {
        Ok(config) => {
            let vendors = match config.vendors.len() {
                1 => "1 vendor of your own".to_owned(),
                count => format!("{count} vendors of your own"),
            };
            print(&format!("{name} is right: {vendors}.\n"), Exit::Fine)
        }
        Err(errors) => {
            let mut lines = String::new();
            for error in &errors {
                lines += &format!("{error}\n");
            }
            print(&lines, Exit::Wrong)
        }
    }
}
