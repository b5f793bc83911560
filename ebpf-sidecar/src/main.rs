//! `farcall-sidecar`: sees the outbound calls of programs that nobody instrumented.

mod cli;
mod privileges;
mod run;
mod signals;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Watch(arguments) => watch::watch(&arguments),
        Command::Check(arguments) => return cli::check(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
