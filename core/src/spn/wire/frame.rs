//! Control frames of `sc02` (docs/protocols/spn.md, Frames): type, length, payload; integers are QUIC varints.
//!
//! ```
//! use towline_core::spn::wire::frame::{Decoder, Frame};
//!
//! let mut bytes = Vec::new();
//! Frame::SetWeight { weight: 50 }.encode(&mut bytes);
//!
//! let mut decoder = Decoder::default();
//! decoder.push(&bytes);
//! assert_eq!(decoder.next_frame(), Ok(Some(Frame::SetWeight { weight: 50 })));
//! assert_eq!(decoder.next_frame(), Ok(None));
//! ```

use crate::spn::{ConnKey, Role, Tag};

/// The longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 16_384;
/// The longest string, in bytes.
pub const MAX_STRING: usize = 1_024;
/// The most entries in a list; none has fewer than one.
pub const MAX_LIST: u64 = 256;
/// The version of SESSION_OPEN that we speak.
pub const VERSION: u64 = 1;

/// Bits of the flags of frames and preambles.
pub mod flag {
    /// SESSION_OPEN, CONNECT, CONNECTED, SESSION_SHUTDOWN: can resume.
    pub const RESUMABLE: u8 = 1;
    /// SESSION_OPEN: wants to be told who its partners are (PARTNER, OWNER).
    pub const PARTNERS: u8 = 2;
    /// SESSION_OPEN: knows SEEK and what goes with it.
    pub const SEEKS: u8 = 8;
    /// PROVIDERS: there are others, which cannot be asked.
    pub const OTHERS: u8 = 1;
    /// RESUME_REQ and RESUME: the sender's own direction is finished at its *sent* offset.
    pub const FINISHED: u8 = 1;
    /// RESUME_REQ, RESUME and DATA_ACK: the partner's direction is over here.
    pub const OVER: u8 = 2;
    /// RESUME_REQ and RESUME_ACK: aborted.
    pub const ABORTED: u8 = 4;
    /// SESSION_OPEN: a list of hubs follows.
    pub const HUBS: u8 = 4;
}

/// What a RESUME_REQ says of its sender's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeReq {
    /// The connection.
    pub conn: ConnKey,
    /// Generation of the last stream the sender was Connected on.
    pub generation: u64,
    /// Payload bytes the sender's application has accepted.
    pub received: u64,
    /// Payload bytes the sender has ever written.
    pub sent: u64,
    /// Bit 0: own direction finished at `sent`; bit 1: the partner's direction is over here; bit 2: aborted.
    pub flags: u8,
    /// Why it was aborted; 0 unless bit 2 is set.
    pub code: u64,
}

impl ResumeReq {
    /// Whether the sender's end has broken off.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.flags & flag::ABORTED != 0
    }

    /// The frame that says it, with the partner's tag if that is known.
    #[must_use]
    pub fn frame(self, partner: Option<Tag>) -> Frame {
        match partner {
            Some(partner) => Frame::ResumeReqWith { values: self, partner },
            None => Frame::ResumeReq(self),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.conn.0);
        put_varint(out, self.generation);
        put_varint(out, self.received);
        put_varint(out, self.sent);
        out.push(self.flags);
        put_varint(out, self.code);
    }
}

/// The hub's answer to a RESUME_REQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeAck {
    /// The connection.
    pub conn: ConnKey,
    /// 0, or the code that refuses it.
    pub status: u64,
    /// The partner's generation; 0 when there is no partner, like all that follow.
    pub generation: u64,
    /// The partner's received offset.
    pub received: u64,
    /// The partner's flags.
    pub flags: u8,
}

/// One connection's progress in a DATA_ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckEntry {
    /// The connection.
    pub conn: ConnKey,
    /// Payload bytes accepted.
    pub received: u64,
    /// Bit 1: the direction is over.
    pub flags: u8,
}

/// The endpoint's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpen {
    /// [`VERSION`]; the rest is read only when it is.
    pub version: u64,
    /// Must be the role of the ALPN value.
    pub role: Role,
    /// The service wanted; empty means the only one the identity is entitled to.
    pub service: String,
    /// Random, stable for the life of the process.
    pub instance: [u8; 16],
    /// Share of new connections, 0 to 65535; a consumer's is ignored.
    pub weight: u16,
    /// Bit 0: can resume; bit 1: is to be told who its partners are; bit 2 is set while there are `hubs`, and clear otherwise; bit 3: knows SEEK.
    pub flags: u8,
    /// Instance ids of the hubs with which this process has a session; at most [`MAX_LIST`].
    pub hubs: Vec<[u8; 16]>,
}

/// The hub's acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAck {
    /// The session's name in the hub's records.
    pub session_id: String,
    /// The service that was chosen.
    pub service: String,
    /// The hub process.
    pub hub_instance: [u8; 16],
    /// Connections a consumer may have open at once; 0 for a provider.
    pub max_connections: u64,
    /// 0 active, 1 stand-by; [`SessionAck::SPARE`] says that this is no session.
    pub state: u8,
}

impl SessionAck {
    /// The `state` of an answer to a SESSION_OPEN that lists this very hub: the process has its session by another address.
    pub const SPARE: u8 = 2;
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the table in docs/protocols/spn.md, Frames")]
pub enum Frame {
    /// Endpoint to hub: asks for a session.
    SessionOpen(SessionOpen),
    /// Endpoint to hub: a SESSION_OPEN of a version that we do not speak; nothing else of it was read.
    SessionOpenVersion { version: u64 },
    /// Endpoint to hub: a SESSION_OPEN whose role is neither provider nor consumer.
    SessionOpenRole { role: u8 },
    /// Hub to endpoint: the session is established.
    SessionAck(SessionAck),
    /// Hub to endpoint: refused; the endpoint closes with that code.
    SessionReject { code: u64, retry_after_ms: u64, text: String },
    /// Hub to endpoint: the hub is leaving. Flags bit 0: connections can be resumed.
    SessionShutdown { flags: u8, deadline_ms: u64 },
    /// Both: the session ends; the receiver closes with that code.
    SessionClose { code: u64, text: String },
    /// Both: ends both directions of a connection.
    CloseReq { conn: ConnKey, code: u64 },
    /// Both: the answer, where one is due.
    CloseAck { conn: ConnKey },
    /// Hub to endpoint: pause.
    PauseReq { conn: ConnKey },
    /// Endpoint to hub: paused.
    PauseAck { conn: ConnKey },
    /// Endpoint to hub: asks to go on.
    ResumeReq(ResumeReq),
    /// Endpoint to hub: RESUME_REQ of an end that knows its partner. A hub of an earlier release reads it without the tag.
    ResumeReqWith { values: ResumeReq, partner: Tag },
    /// Hub to endpoint: the answer.
    ResumeAck(ResumeAck),
    /// Both, forwarded by the hub: progress of receivers.
    DataAck(Vec<AckEntry>),
    /// Hub to consumer: a provider has been chosen. Flags bit 0: resumable.
    Connected { conn: ConnKey, flags: u8 },
    /// Hub to consumer: who the provider is.
    Partner { conn: ConnKey, partner: Tag },
    /// Provider to hub.
    SetWeight { weight: u16 },
    /// Hub to provider: the weight now in force, and how many streams the hub had opened by then.
    SetWeightAck { weight: u16, streams: u64 },
    /// Provider to hub: all connections of this weight-0 provider have ended.
    Drained,
    /// Hub to endpoint: 0 active, 1 stand-by.
    SessionState { state: u8 },
    /// Consumer to hub: start the provider.
    ProviderStart,
    /// Hub to consumer: the provider was stopped.
    ProviderStopped,
    /// Hub to consumer: from now on these provider processes may get its connections. Flags bit 0: so may others. Those that retire get
    /// none, and can be asked by SEEK.
    Providers { number: u64, flags: u8, instances: Vec<[u8; 16]>, retiring: Vec<[u8; 16]> },
    /// Consumer to hub: PROVIDERS with that number has come.
    ProvidersAck { number: u64 },
    /// Consumer to hub, and on to that provider: does it have this connection?
    Seek { conn: ConnKey, instance: [u8; 16] },
    /// Provider to hub, and on to the consumer: it does not, and will not take it any more.
    Absent { conn: ConnKey, instance: [u8; 16] },
}

/// Why bytes are no frame. All of them close the session with code 0x10.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is over [`MAX_PAYLOAD`].
    #[error("frame 0x{kind:x}: length {length} is over {MAX_PAYLOAD}")]
    TooLong {
        /// Frame type.
        kind: u64,
        /// What came.
        length: u64,
    },
    /// An odd type that we do not know (even ones are ignored).
    #[error("frame type 0x{kind:x} is unknown and must be understood")]
    UnknownType {
        /// Frame type.
        kind: u64,
    },
    /// The payload ends before the field does.
    #[error("frame 0x{kind:x}: payload ends inside `{field}`")]
    Short {
        /// Frame type.
        kind: u64,
        /// The field that is cut.
        field: &'static str,
    },
    /// A value that its field cannot have.
    #[error("frame 0x{kind:x}: `{field}` is {value}, expected {expected}")]
    Range {
        /// Frame type.
        kind: u64,
        /// The field.
        field: &'static str,
        /// What came.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A string is not UTF-8.
    #[error("frame 0x{kind:x}: `{field}` is not UTF-8")]
    Utf8 {
        /// Frame type.
        kind: u64,
        /// The field.
        field: &'static str,
    },
}

mod kind {
    pub(super) const SESSION_OPEN: u64 = 0x01;
    pub(super) const SESSION_ACK: u64 = 0x03;
    pub(super) const SESSION_REJECT: u64 = 0x05;
    pub(super) const SESSION_SHUTDOWN: u64 = 0x07;
    pub(super) const SESSION_CLOSE: u64 = 0x09;
    pub(super) const CLOSE_REQ: u64 = 0x11;
    pub(super) const CLOSE_ACK: u64 = 0x13;
    pub(super) const PAUSE_REQ: u64 = 0x15;
    pub(super) const PAUSE_ACK: u64 = 0x17;
    pub(super) const RESUME_REQ: u64 = 0x19;
    pub(super) const RESUME_ACK: u64 = 0x1b;
    pub(super) const DATA_ACK: u64 = 0x1d;
    pub(super) const CONNECTED: u64 = 0x1f;
    pub(super) const SESSION_STATE: u64 = 0x20;
    pub(super) const SET_WEIGHT: u64 = 0x21;
    pub(super) const PROVIDER_START: u64 = 0x22;
    pub(super) const SET_WEIGHT_ACK: u64 = 0x23;
    pub(super) const PROVIDER_STOPPED: u64 = 0x24;
    pub(super) const PARTNER: u64 = 0x28;
    pub(super) const DRAINED: u64 = 0x25;
    pub(super) const PROVIDERS: u64 = 0x30;
    pub(super) const PROVIDERS_ACK: u64 = 0x32;
    pub(super) const SEEK: u64 = 0x34;
    pub(super) const ABSENT: u64 = 0x36;
}

impl Frame {
    /// Its name in docs/protocols/spn.md, Frames.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionOpen(_) | Self::SessionOpenVersion { .. } | Self::SessionOpenRole { .. } => "SESSION_OPEN",
            Self::SessionAck(_) => "SESSION_ACK",
            Self::SessionReject { .. } => "SESSION_REJECT",
            Self::SessionShutdown { .. } => "SESSION_SHUTDOWN",
            Self::SessionClose { .. } => "SESSION_CLOSE",
            Self::CloseReq { .. } => "CLOSE_REQ",
            Self::CloseAck { .. } => "CLOSE_ACK",
            Self::PauseReq { .. } => "PAUSE_REQ",
            Self::PauseAck { .. } => "PAUSE_ACK",
            Self::ResumeReq(_) | Self::ResumeReqWith { .. } => "RESUME_REQ",
            Self::ResumeAck(_) => "RESUME_ACK",
            Self::DataAck(_) => "DATA_ACK",
            Self::Connected { .. } => "CONNECTED",
            Self::Partner { .. } => "PARTNER",
            Self::SetWeight { .. } => "SET_WEIGHT",
            Self::SetWeightAck { .. } => "SET_WEIGHT_ACK",
            Self::Drained => "DRAINED",
            Self::SessionState { .. } => "SESSION_STATE",
            Self::ProviderStart => "PROVIDER_START",
            Self::ProviderStopped => "PROVIDER_STOPPED",
            Self::Providers { .. } => "PROVIDERS",
            Self::ProvidersAck { .. } => "PROVIDERS_ACK",
            Self::Seek { .. } => "SEEK",
            Self::Absent { .. } => "ABSENT",
        }
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        let kind = self.encode_payload(&mut body);
        put_varint(out, kind);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> u64 {
        match self {
            Self::SessionOpen(open) => {
                put_varint(out, open.version);
                out.push(match open.role {
                    Role::Provider => 1,
                    Role::Consumer => 2,
                });
                put_string(out, &open.service);
                out.extend_from_slice(&open.instance);
                put_varint(out, open.weight.into());
                if open.hubs.is_empty() {
                    out.push(open.flags & !flag::HUBS);
                } else {
                    out.push(open.flags | flag::HUBS);
                    let hubs = open.hubs.iter().take(MAX_LIST as usize);
                    put_varint(out, hubs.len() as u64);
                    out.extend(hubs.flatten());
                }
                kind::SESSION_OPEN
            }
            Self::SessionOpenVersion { version } => {
                put_varint(out, *version);
                kind::SESSION_OPEN
            }
            Self::SessionOpenRole { role } => {
                put_varint(out, VERSION);
                out.push(*role);
                kind::SESSION_OPEN
            }
            Self::SessionAck(ack) => {
                put_string(out, &ack.session_id);
                put_string(out, &ack.service);
                out.extend_from_slice(&ack.hub_instance);
                put_varint(out, ack.max_connections);
                out.push(ack.state);
                kind::SESSION_ACK
            }
            Self::SessionReject { code, retry_after_ms, text } => {
                put_varint(out, *code);
                put_varint(out, *retry_after_ms);
                put_string(out, text);
                kind::SESSION_REJECT
            }
            Self::SessionShutdown { flags, deadline_ms } => {
                out.push(*flags);
                put_varint(out, *deadline_ms);
                kind::SESSION_SHUTDOWN
            }
            Self::SessionClose { code, text } => {
                put_varint(out, *code);
                put_string(out, text);
                kind::SESSION_CLOSE
            }
            Self::CloseReq { conn, code } => {
                out.extend_from_slice(&conn.0);
                put_varint(out, *code);
                kind::CLOSE_REQ
            }
            Self::CloseAck { conn } => {
                out.extend_from_slice(&conn.0);
                kind::CLOSE_ACK
            }
            Self::PauseReq { conn } => {
                out.extend_from_slice(&conn.0);
                kind::PAUSE_REQ
            }
            Self::PauseAck { conn } => {
                out.extend_from_slice(&conn.0);
                kind::PAUSE_ACK
            }
            Self::ResumeReq(req) => {
                req.encode(out);
                kind::RESUME_REQ
            }
            Self::ResumeReqWith { values, partner } => {
                values.encode(out);
                out.extend_from_slice(&partner.0);
                kind::RESUME_REQ
            }
            Self::ResumeAck(ack) => {
                out.extend_from_slice(&ack.conn.0);
                put_varint(out, ack.status);
                put_varint(out, ack.generation);
                put_varint(out, ack.received);
                out.push(ack.flags);
                kind::RESUME_ACK
            }
            Self::DataAck(entries) => {
                debug_assert!((1..=MAX_LIST as usize).contains(&entries.len()), "a list has 1 to 256 entries");
                put_varint(out, entries.len() as u64);
                for entry in entries {
                    out.extend_from_slice(&entry.conn.0);
                    put_varint(out, entry.received);
                    out.push(entry.flags);
                }
                kind::DATA_ACK
            }
            Self::Connected { conn, flags } => {
                out.extend_from_slice(&conn.0);
                out.push(*flags);
                kind::CONNECTED
            }
            Self::Partner { conn, partner } => {
                out.extend_from_slice(&conn.0);
                out.extend_from_slice(&partner.0);
                kind::PARTNER
            }
            Self::SetWeight { weight } => {
                put_varint(out, (*weight).into());
                kind::SET_WEIGHT
            }
            Self::SetWeightAck { weight, streams } => {
                put_varint(out, (*weight).into());
                if *streams > 0 {
                    put_varint(out, *streams);
                }
                kind::SET_WEIGHT_ACK
            }
            Self::Drained => kind::DRAINED,
            Self::SessionState { state } => {
                out.push(*state);
                kind::SESSION_STATE
            }
            Self::ProviderStart => kind::PROVIDER_START,
            Self::ProviderStopped => kind::PROVIDER_STOPPED,
            Self::Providers { number, flags, instances, retiring } => {
                put_varint(out, *number);
                out.push(*flags);
                for list in [instances].into_iter().chain((!retiring.is_empty()).then_some(retiring)) {
                    debug_assert!(list.len() <= MAX_LIST as usize, "a list has at most 256 entries");
                    put_varint(out, list.len() as u64);
                    out.extend(list.iter().flatten());
                }
                kind::PROVIDERS
            }
            Self::ProvidersAck { number } => {
                put_varint(out, *number);
                kind::PROVIDERS_ACK
            }
            Self::Seek { conn, instance } => {
                out.extend_from_slice(&conn.0);
                out.extend_from_slice(instance);
                kind::SEEK
            }
            Self::Absent { conn, instance } => {
                out.extend_from_slice(&conn.0);
                out.extend_from_slice(instance);
                kind::ABSENT
            }
        }
    }

    /// Reads a payload; `Ok(None)` is a type to be ignored. Bytes behind the last field are ignored.
    fn decode(kind: u64, payload: &[u8]) -> Result<Option<Self>, FrameError> {
        let mut r = Reader { kind, rest: payload };
        Ok(Some(match kind {
            kind::SESSION_OPEN => {
                // The version first: another version may mean another layout of all that follows.
                let version = r.varint("version")?;
                if version != VERSION {
                    return Ok(Some(Self::SessionOpenVersion { version }));
                }
                let role = match r.byte("role")? {
                    1 => Role::Provider,
                    2 => Role::Consumer,
                    role => return Ok(Some(Self::SessionOpenRole { role })),
                };
                let (service, instance) = (r.string("service")?, r.id("instance")?);
                let (weight, flags) = (r.weight()?, r.byte("flags")?);
                let count = if flags & flag::HUBS == 0 { 0 } else { r.count()? };
                let hubs = (0..count).map(|_| r.id("hub instance")).collect::<Result<_, _>>()?;
                Self::SessionOpen(SessionOpen { version, role, service, instance, weight, flags, hubs })
            }
            kind::SESSION_ACK => Self::SessionAck(SessionAck {
                session_id: r.string("spnSessionId")?,
                service: r.string("service")?,
                hub_instance: r.id("hub instance")?,
                max_connections: r.varint("max connections")?,
                state: r.state(SessionAck::SPARE, "0 to 2")?,
            }),
            kind::SESSION_REJECT => Self::SessionReject {
                code: r.varint("code")?,
                retry_after_ms: r.varint("retry-after")?,
                text: r.string("text")?,
            },
            kind::SESSION_SHUTDOWN => {
                Self::SessionShutdown { flags: r.byte("flags")?, deadline_ms: r.varint("deadline")? }
            }
            kind::SESSION_CLOSE => Self::SessionClose { code: r.varint("code")?, text: r.string("text")? },
            kind::CLOSE_REQ => Self::CloseReq { conn: r.conn()?, code: r.varint("code")? },
            kind::CLOSE_ACK => Self::CloseAck { conn: r.conn()? },
            kind::PAUSE_REQ => Self::PauseReq { conn: r.conn()? },
            kind::PAUSE_ACK => Self::PauseAck { conn: r.conn()? },
            kind::RESUME_REQ => {
                let values = ResumeReq {
                    conn: r.conn()?,
                    generation: r.varint("generation")?,
                    received: r.varint("received offset")?,
                    sent: r.varint("sent offset")?,
                    flags: r.byte("flags")?,
                    code: r.varint("code")?,
                };
                // An end of an earlier release stops here.
                match r.id("partner") {
                    Ok(partner) => Self::ResumeReqWith { values, partner: Tag(partner) },
                    Err(_) => Self::ResumeReq(values),
                }
            }
            kind::RESUME_ACK => Self::ResumeAck(ResumeAck {
                conn: r.conn()?,
                status: r.varint("status")?,
                generation: r.varint("generation")?,
                received: r.varint("received offset")?,
                flags: r.byte("flags")?,
            }),
            kind::DATA_ACK => {
                let count = r.count()?;
                let entry = |r: &mut Reader<'_>| {
                    Ok(AckEntry { conn: r.conn()?, received: r.varint("received offset")?, flags: r.byte("flags")? })
                };
                Self::DataAck((0..count).map(|_| entry(&mut r)).collect::<Result<_, _>>()?)
            }
            kind::CONNECTED => Self::Connected { conn: r.conn()?, flags: r.byte("flags")? },
            kind::PARTNER => Self::Partner { conn: r.conn()?, partner: r.id("partner").map(Tag)? },
            kind::SET_WEIGHT => Self::SetWeight { weight: r.weight()? },
            kind::SET_WEIGHT_ACK => {
                // A hub of an earlier release stops behind the weight.
                Self::SetWeightAck { weight: r.weight()?, streams: r.varint("streams").unwrap_or_default() }
            }
            kind::DRAINED => Self::Drained,
            kind::SESSION_STATE => Self::SessionState { state: r.state(1, "0 or 1")? },
            kind::PROVIDER_START => Self::ProviderStart,
            kind::PROVIDER_STOPPED => Self::ProviderStopped,
            kind::PROVIDERS => {
                let (number, flags, instances) = (r.varint("number")?, r.byte("flags")?, r.instances()?);
                let retiring = if r.rest.is_empty() { Vec::new() } else { r.instances()? };
                Self::Providers { number, flags, instances, retiring }
            }
            kind::PROVIDERS_ACK => Self::ProvidersAck { number: r.varint("number")? },
            kind::SEEK => Self::Seek { conn: r.conn()?, instance: r.id("instance")? },
            kind::ABSENT => Self::Absent { conn: r.conn()?, instance: r.id("instance")? },
            kind if kind % 2 == 0 => return Ok(None),
            kind => return Err(FrameError::UnknownType { kind }),
        }))
    }
}

/// Splits a byte stream into frames.
///
/// It holds at most what was pushed, so push one chunk, then take frames until `Ok(None)`.
/// After an error the stream is lost: the session must be closed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next frame; `Ok(None)` until more bytes come.
    ///
    /// # Errors
    /// What is wrong with the frame; to be answered by closing with code 0x10.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let mut rest = self.buffer.get(self.start..).unwrap_or_default();
            let (Some(kind), Some(length)) = (take_varint(&mut rest), take_varint(&mut rest)) else { return Ok(None) };
            if length > MAX_PAYLOAD as u64 {
                return Err(FrameError::TooLong { kind, length });
            }
            let Some(payload) = rest.get(..length as usize) else { return Ok(None) };
            let end = self.buffer.len() - rest.len() + payload.len();
            let frame = Frame::decode(kind, payload);
            self.start = end;
            if let Some(frame) = frame? {
                return Ok(Some(frame));
            }
        }
    }

    /// Whether bytes of an unfinished frame are waiting.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.start < self.buffer.len()
    }
}

struct Reader<'a> {
    kind: u64,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn short(&self, field: &'static str) -> FrameError {
        FrameError::Short { kind: self.kind, field }
    }

    fn range(&self, field: &'static str, value: u64, expected: &'static str) -> FrameError {
        FrameError::Range { kind: self.kind, field, value, expected }
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, FrameError> {
        take_varint(&mut self.rest).ok_or(self.short(field))
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        let (&byte, rest) = self.rest.split_first().ok_or(self.short(field))?;
        self.rest = rest;
        Ok(byte)
    }

    fn id(&mut self, field: &'static str) -> Result<[u8; 16], FrameError> {
        let (id, rest) = self.rest.split_first_chunk().ok_or(self.short(field))?;
        self.rest = rest;
        Ok(*id)
    }

    fn instances(&mut self) -> Result<Vec<[u8; 16]>, FrameError> {
        let count = self.varint("count")?;
        if count > MAX_LIST {
            return Err(self.range("count", count, "at most 256"));
        }
        (0..count).map(|_| self.id("instance")).collect()
    }

    fn conn(&mut self) -> Result<ConnKey, FrameError> {
        self.id("conn").map(ConnKey)
    }

    fn weight(&mut self) -> Result<u16, FrameError> {
        let value = self.varint("weight")?;
        u16::try_from(value).map_err(|_| self.range("weight", value, "0 to 65535"))
    }

    fn state(&mut self, most: u8, expected: &'static str) -> Result<u8, FrameError> {
        match self.byte("state")? {
            state if state <= most => Ok(state),
            state => Err(self.range("state", state.into(), expected)),
        }
    }

    /// How many entries a list has.
    fn count(&mut self) -> Result<u64, FrameError> {
        match self.varint("count")? {
            count @ 1..=MAX_LIST => Ok(count),
            count => Err(self.range("count", count, "1 to 256")),
        }
    }

    fn string(&mut self, field: &'static str) -> Result<String, FrameError> {
        let length = self.varint(field)?;
        if length > MAX_STRING as u64 {
            return Err(self.range(field, length, "at most 1024 bytes"));
        }
        let (text, rest) = self.rest.split_at_checked(length as usize).ok_or(self.short(field))?;
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| FrameError::Utf8 { kind: self.kind, field })?;
        Ok(text.to_owned())
    }
}

/// Takes a QUIC varint (RFC 9000 §16), shortest form or not; `None` when it is cut.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (value, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    Some(value.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

/// Appends a QUIC varint in its shortest form; `value` is below 2^62.
fn put_varint(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value < 1 << 62, "a QUIC varint has 62 bits");
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a string, cut at a character boundary when it is over [`MAX_STRING`].
fn put_string(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_STRING)];
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
