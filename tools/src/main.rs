//! `tophash`: look into, fill, copy, check, repair and measure tophash stores from the command line.
//!
//! One file per subcommand in [`commands`], one per text format in [`format`]. What they share is small: how
//! a store is opened ([`open`]), how results and errors reach the outside ([`output`], [`exit`]), and how
//! long work shows progress ([`progress`]) and is stopped ([`interrupt`]).

mod argument;
mod commands;
mod exit;
mod format;
mod interrupt;
mod open;
mod output;
mod progress;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Look into, fill, copy, check, repair and measure tophash stores.
#[derive(Debug, Parser)]
#[command(name = "tophash", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the answer is no: key not found, findings, losses, differences, malformed input
  2    could not be carried out: wrong usage, no store, no such table, store in
       use, I/O error
  130  interrupted (Ctrl-C)

Results go to stdout, diagnostics and progress to stderr. A closed pipe
(`| head`) ends a command quietly. The store's path is its directory.

Start with `tophash demo`.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Import(commands::import::Args),
    Export(commands::export::Args),
    Get(commands::get::Args),
    Set(commands::set::Args),
    Del(commands::del::Args),
    Scan(commands::scan::Args),
    Stats(commands::stats::Args),
    Tables(commands::tables::Args),
    Verify(commands::verify::Args),
    Repair(commands::repair::Args),
    Compact(commands::compact::Args),
    Doctor(commands::doctor::Args),
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // It quotes arguments, which may hold anything.
        Err(error) if error.use_stderr() => {
            output::note(format_args!("{}", error.render().to_string().trim_end()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let result = match command {
        Command::Demo(args) => commands::demo::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Get(args) => commands::get::run(&args),
        Command::Set(args) => commands::set::run(&args),
        Command::Del(args) => commands::del::run(&args),
        Command::Scan(args) => commands::scan::run(&args),
        Command::Stats(args) => commands::stats::run(&args),
        Command::Tables(args) => commands::tables::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Repair(args) => commands::repair::run(&args),
        Command::Compact(args) => commands::compact::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
    };
    exit::code(result)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// clap checks its own definitions only when they are used; this uses all of them.
    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in super::Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("tophash {}", command.get_name());
            assert!(help.contains(&example), "`{example}` does not occur in the help of {}", command.get_name());
        }
    }
}
