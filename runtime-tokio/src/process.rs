//! What a program of ours needs of its process.

use std::io;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// As many files as a program may have, where nothing else limits it: a command that it starts inherits the limit, and some do something for
/// each number there is.
const FILES: u64 = 1 << 20;

/// Runs a program in this thread. When its future has ended nothing is waited for: neither a look-up of a name nor a file that hangs.
///
/// # Errors
/// The machine has no room for it, or the program's own.
pub fn run<T, E: From<io::Error>>(program: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    raise_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // A file that has reached its limit shall be an error, as a full disk is, and not the end.
        let _sizes = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        program.await
    });
    runtime.shutdown_background();
    result
}

/// Allows this process as many open files as it may allow itself: a connection needs one, and the usual limit is from times of less.
fn raise_files() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.map_or(FILES, |most| most.min(FILES));
    if now.current.is_some_and(|current| current < most) {
        // Whatever is the matter, it goes with what there is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..now });
    }
}
