//! From a command's result to the exit code, and to the message on stderr.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use tophash::Error;

use crate::format::escape;
use crate::output;

/// What a command that could be carried out says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, found, clean: exit code 0.
    Yes,
    /// Not found, findings, differences: exit code 1. The command has said so itself.
    No,
}

/// An error of the library in the words of the command. The library's advice is about its own options.
pub fn explained(error: &Error) -> String {
    match error {
        Error::NotFound { path, .. } => format!(
            "there is no store at {}; `tophash set` and `tophash import` create one (without --no-create)",
            path.display()
        ),
        Error::AlreadyExists { path, .. } => format!("{} is a store already; choose another path", path.display()),
        Error::NoSuchTable { path, name, .. } => format!(
            "there is no table {} in {}; `tophash tables STORE` lists those that are there",
            escape::excerpt(name.as_bytes()),
            path.display(),
        ),
        Error::Poisoned { path, cause, .. } => {
            format!(
                "{}: an error left unclear what is on disk ({cause}); run the command again, which recovers",
                path.display()
            )
        }
        error => error.to_string(),
    }
}

/// Input that is not what it should be: exit code 1, where other errors give 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// The user stopped the command: exit code 130, as shells report SIGINT.
#[derive(Debug, thiserror::Error)]
#[error("interrupted{}", suffix(.0))]
pub struct Interrupted(pub String);

fn suffix(reached: &str) -> String {
    if reached.is_empty() { String::new() } else { format!(": {reached}") }
}

/// Reports an error on stderr and chooses the exit code.
pub fn code(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        // stdout is the only pipe that the tool writes to: its reader has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("tophash: {}", message(&error)));
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Interrupted>()) {
        130
    } else if error.chain().any(|cause| cause.is::<BadInput>()) {
        1
    } else {
        2
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The chain of causes on one line. A cause whose text is in the message before it already (the store's
/// errors quote what the system said, and name it as their source too) is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = match cause.downcast_ref::<tophash::Error>() {
            Some(error) => explained(error),
            None => cause.to_string(),
        };
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn codes_follow_the_kind_of_error_even_under_context() {
        let bad = anyhow::Error::new(BadInput("line 3".into())).context("import");
        assert_eq!(code_of(&bad), 1);
        assert_eq!(code_of(&anyhow::Error::new(Interrupted(String::new()))), 130);
        assert_eq!(code_of(&anyhow!("no such store")), 2);
    }

    #[test]
    fn a_closed_pipe_is_recognised_under_context() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("write").unwrap_err();
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound))));
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let error = anyhow!("denied").context("open a: denied").context("export");
        assert_eq!(message(&error), "export: open a: denied");
    }

    #[test]
    fn interrupted_names_what_was_reached() {
        assert_eq!(Interrupted(String::new()).to_string(), "interrupted");
        assert_eq!(Interrupted("at line 3".into()).to_string(), "interrupted: at line 3");
    }
}
