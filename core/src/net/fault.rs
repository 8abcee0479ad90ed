//! Why a connection, a look-up or an accept failed: the differences that bindings make use of.

use std::io;

use serde::{Deserialize, Serialize};

/// Why a connection or a look-up failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The peer reset the connection.
    Reset,
    /// The peer refused it.
    Refused,
    /// There is no way there.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// There is no such name.
    NoSuchName,
    /// TLS refuses the peer, or the peer's TLS refuses this end.
    Tls,
    /// Anything else.
    #[default]
    #[serde(other)]
    Other,
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Self {
        let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        if is(&[io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionAborted, io::ErrorKind::BrokenPipe]) {
            Self::Reset
        } else if is(&[io::ErrorKind::ConnectionRefused]) {
            Self::Refused
        } else if is(&[io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable]) {
            Self::Unreachable
        } else if is(&[io::ErrorKind::TimedOut]) {
            Self::TimedOut
        } else {
            Self::Other
        }
    }
}

/// Why no connection could be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptFault {
    /// The connection was over before it was accepted, or a firewall forbids it.
    Aborted,
    /// A signal came in between.
    Interrupted,
    /// No file descriptor is left.
    Files,
    /// No memory is left.
    Memory,
    /// Anything else: the listener is broken.
    #[serde(other)]
    Other,
}

impl From<&io::Error> for AcceptFault {
    fn from(error: &io::Error) -> Self {
        // The numbers are those of Linux and of the BSDs alike, but for ENOBUFS.
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOBUFS: [i32; 2] = [55, 105];
        // On Linux, accept(2) also tells what has become of the new connection, as EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET or EOPNOTSUPP too.
        const OF_THE_CONNECTION: [i32; 5] = [71, 92, 112, 64, 95];
        use io::ErrorKind::{
            ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied,
            TimedOut,
        };
        match (error.kind(), error.raw_os_error()) {
            (
                ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
                | PermissionDenied | TimedOut,
                _,
            ) => Self::Aborted,
            (_, Some(number)) if cfg!(target_os = "linux") && OF_THE_CONNECTION.contains(&number) => Self::Aborted,
            (io::ErrorKind::Interrupted, _) => Self::Interrupted,
            (_, Some(ENFILE | EMFILE)) => Self::Files,
            (io::ErrorKind::OutOfMemory, _) | (_, Some(ENOMEM)) => Self::Memory,
            (_, Some(number)) if ENOBUFS.contains(&number) => Self::Memory,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_accept() {
        let of = |number| AcceptFault::from(&io::Error::from_raw_os_error(number));
        assert_eq!(AcceptFault::from(&io::Error::from(io::ErrorKind::ConnectionAborted)), AcceptFault::Aborted);
        assert_eq!(AcceptFault::from(&io::Error::from(io::ErrorKind::Interrupted)), AcceptFault::Interrupted);
        assert_eq!((of(24), of(23), of(12)), (AcceptFault::Files, AcceptFault::Files, AcceptFault::Memory));
        if cfg!(target_os = "linux") {
            // accept(2): ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM, ECONNABORTED.
            for number in [100, 71, 92, 112, 64, 113, 95, 101, 1, 103] {
                assert_eq!(of(number), AcceptFault::Aborted, "{number}");
            }
            assert_eq!((of(105), of(9), of(22)), (AcceptFault::Memory, AcceptFault::Other, AcceptFault::Other));
        }
    }
}
