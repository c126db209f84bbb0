//! `goldcrest`: boots unikernels and Linux on KVM. See `goldcrest --help`.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod api;
mod args;
mod clone;
mod clone_args;
mod ctl;
mod devices;
mod disk_boot;
mod doctor;
#[cfg(all(target_env = "gnu", not(test)))]
mod entry;
mod failure;
mod firecracker;
mod inspect;
mod log;
mod metrics;
mod mmds;
mod prefixed;
mod run;
mod signals;
mod snapshot;
mod snapshot_args;
mod terminal;
mod timeline;
mod top;

use std::borrow::Cow;

use clap::CommandFactory;

use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::timeline::MainReached;

#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    tool().into()
}

/// Does what the command line says; the exit status.
fn tool() -> u8 {
    let main_reached = MainReached::now();
    terminal::restore_on_panic();
    let name = std::env::args_os().next();
    let result = match firecracker::is_called(name.as_deref()) {
        true => firecracker::run(),
        false => command(&Args::read(), main_reached),
    };
    terminal::restore();
    log::end();
    match result {
        Ok(status) => status,
        Err(failure) => {
            say(&format!("goldcrest: {failure}\n"));
            failure.status()
        }
    }
}

fn command(args: &Args, main_reached: MainReached) -> Result<u8, Failure> {
    match &args.command {
        None => run::demo(main_reached),
        Some(Command::Run(options)) => run::run(options, main_reached),
        Some(Command::Inspect { image, format }) => inspect::inspect(image, *format),
        Some(Command::Ctl { api_sock, request }) => ctl::ctl(api_sock, request),
        Some(Command::Snapshot { command }) => snapshot::snapshot(command),
        Some(Command::Clone(options)) => clone::clone(options),
        Some(Command::Top(options)) => top::top(options),
        Some(Command::Doctor) => doctor::doctor(),
        Some(Command::Completions { shell }) => completions(*shell),
        Some(Command::Man { command }) => man(command.as_deref()),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "goldcrest", &mut script);
    print(&script)
}

fn man(command: Option<&str>) -> Result<u8, Failure> {
    let mut tool = Args::command();
    tool.build();
    let known = command.map_or(Some(&tool), |name| tool.find_subcommand(name));
    let Some(known) = known else {
        let unknown = std::io::Error::other("`goldcrest --help` lists the commands");
        return Err(Failure::usage("no such command", unknown));
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(known.clone())
        .render(&mut page)
        .map_err(|source| Failure::failed("cannot render the manual page", source))?;
    print(&page)
}

/// Says something to the person, on stderr. Where nobody listens, nothing is lost by going on.
fn say(message: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(harmless(message).as_bytes());
}

/// A text with which a terminal does nothing but show it: names in it can be a snapshot's, or a client's.
fn harmless(text: &str) -> Cow<'_, str> {
    let acts = |char: char| char.is_control() && !matches!(char, '\n' | '\r' | '\t');
    if !text.contains(acts) {
        return text.into();
    }
    let shown = text.chars().map(|char| match acts(char) {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    });
    shown.collect::<String>().into()
}

/// Writes to stdout.
fn print(bytes: &[u8]) -> Result<u8, Failure> {
    use std::io::Write;
    std::io::stdout()
        .lock()
        .write_all(bytes)
        .map_err(|source| Failure::failed("cannot write to standard output", source))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_is_said_does_nothing_to_a_terminal() {
        let plain = "goldcrest: naïve: 5 %\r\n";
        assert_eq!(harmless(plain), plain);
        assert_eq!(
            harmless("a\u{1b}]0;x\u{7}\u{9b}b\n"),
            "a\\u{1b}]0;x\\u{7}\\u{9b}b\n"
        );
    }
}
