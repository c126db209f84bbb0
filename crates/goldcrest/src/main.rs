//! `goldcrest`: boots unikernels and Linux on KVM. See `goldcrest --help`.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod args;
mod doctor;
#[cfg(all(target_env = "gnu", not(test)))]
mod entry;
mod failure;
mod inspect;
mod run;
mod signals;
mod terminal;
mod timeline;

use std::time::Instant;

use clap::{CommandFactory, Parser};

use crate::args::{Args, Command};
use crate::failure::Failure;

#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    tool().into()
}

/// Does what the command line says; the exit status.
fn tool() -> u8 {
    let main_reached = Instant::now();
    terminal::restore_on_panic();
    let args = Args::parse();
    let result = match &args.command {
        None => run::demo(main_reached),
        Some(Command::Run(options)) => run::run(options, main_reached),
        Some(Command::Inspect { image }) => inspect::inspect(image),
        Some(Command::Doctor) => doctor::doctor(),
        Some(Command::Completions { shell }) => completions(*shell),
        Some(Command::Man) => man(),
    };
    terminal::restore();
    match result {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("goldcrest: {failure}");
            failure.status()
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "goldcrest", &mut script);
    print(&script)
}

fn man() -> Result<u8, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command())
        .render(&mut page)
        .map_err(|source| Failure::failed("cannot render the manual page", source))?;
    print(&page)
}

/// Writes to stdout; a closed pipe is an error, not a panic.
fn print(bytes: &[u8]) -> Result<u8, Failure> {
    use std::io::Write;
    std::io::stdout()
        .lock()
        .write_all(bytes)
        .map_err(|source| Failure::failed("cannot write to standard output", source))?;
    Ok(0)
}
