//! Exit codes: 0 nothing found, 1 findings or failed checks, 2 usage or configuration, 3 failed while running.

use std::fmt;

/// Marks an error as a mistake of usage or configuration (exit code 2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("usage or configuration")
    }
}

/// What a command that ran to its end has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing found, or all well.
    Clean,
    /// Findings, or failed checks.
    Found,
}

impl Outcome {
    pub(crate) fn code(self) -> u8 {
        u8::from(self == Outcome::Found)
    }
}

/// Prints an error as people read it and gives the exit code. A usage mark is not part of the message.
#[expect(clippy::print_stderr, reason = "the one place that reports errors")]
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    let usage = error.is::<Usage>();
    let words: Vec<String> = error
        .chain()
        .map(ToString::to_string)
        .filter(|w| *w != Usage.to_string())
        .collect();
    let text = words.join(": ");
    if text.starts_with("error: ") {
        eprintln!("{text}");
    } else {
        eprintln!("error: {text}");
    }
    if usage { 2 } else { 3 }
}
