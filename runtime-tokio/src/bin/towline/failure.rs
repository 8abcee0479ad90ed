//! How a tool between standard input and standard output ends.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

/// Why it failed; what it displays goes to stderr.
pub(crate) trait Failure: fmt::Display {
    fn exit_code(&self) -> u8;
    /// What has failed, if it was standard output.
    fn of_output(&self) -> Option<&io::Error>;
}

/// The exit code; says what there is to say.
pub(crate) fn exit_code(ended: Result<ExitCode, impl Failure>) -> ExitCode {
    ended.unwrap_or_else(|failure| {
        // Whoever reads has seen enough, as with `| head`.
        if failure.of_output().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{failure}");
        failure.exit_code().into()
    })
}
