//! What crosses the parts: from QUIC and the host to the machines, and from the machines to QUIC.
//!
//! | what | where |
//! |---|---|
//! | a session, from its address to its end | `link.rs` |
//! | what the hub says on the control stream | `frames.rs` |
//! | a connection and its stream | `conn.rs` |
//! | what the host reads and writes; the reset that waits for what was written | `payload.rs` |
//! | a provider's new streams | `streams.rs` |
//! | reports, and requests to resume | `resume.rs` |
//! | the streams after the first | `legs.rs` |
//! | what is left of a connection that has ended | `ending.rs` |
//! | who has a connection of which nothing was heard | `seek.rs` |

mod conn;
mod ending;
mod frames;
mod legs;
mod link;
mod payload;
mod resume;
mod seek;
mod streams;
