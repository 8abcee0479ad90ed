//! Against a server end that the test plays.
