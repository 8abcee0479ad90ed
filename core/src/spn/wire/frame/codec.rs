//! Frames to bytes, and bytes to frames.

use super::{
    AckEntry, Flags, Frame, FrameError, MAX_LIST, MAX_PAYLOAD, ResumeAck, ResumeReq, SessionAck, SessionOpen, VERSION,
    fields::{Reader, put_string, put_varint, take_varint},
};
use crate::spn::{
    Role, Tag,
    wire::code::{SessionCode, StreamCode},
};

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

impl ResumeReq {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.conn.0);
        put_varint(out, self.generation);
        put_varint(out, self.received);
        put_varint(out, self.sent);
        out.push(self.flags.0);
        put_varint(out, self.code.0);
    }
}

impl Frame {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        let kind = self.encode_payload(&mut body);
        put_varint(out, kind);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
    }

    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) -> u64 {
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
                    out.push(open.flags.without(Flags::HUBS).0);
                } else {
                    out.push((open.flags | Flags::HUBS).0);
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
                put_varint(out, code.0);
                put_varint(out, *retry_after_ms);
                put_string(out, text);
                kind::SESSION_REJECT
            }
            Self::SessionShutdown { flags, deadline_ms } => {
                out.push(flags.0);
                put_varint(out, *deadline_ms);
                kind::SESSION_SHUTDOWN
            }
            Self::SessionClose { code, text } => {
                put_varint(out, code.0);
                put_string(out, text);
                kind::SESSION_CLOSE
            }
            Self::CloseReq { conn, code } => {
                out.extend_from_slice(&conn.0);
                put_varint(out, code.0);
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
                put_varint(out, ack.status.0);
                put_varint(out, ack.generation);
                put_varint(out, ack.received);
                out.push(ack.flags.0);
                kind::RESUME_ACK
            }
            Self::DataAck(entries) => {
                debug_assert!((1..=MAX_LIST as usize).contains(&entries.len()), "a list has 1 to 256 entries");
                put_varint(out, entries.len() as u64);
                for entry in entries {
                    out.extend_from_slice(&entry.conn.0);
                    put_varint(out, entry.received);
                    out.push(entry.flags.0);
                }
                kind::DATA_ACK
            }
            Self::Connected { conn, flags } => {
                out.extend_from_slice(&conn.0);
                out.push(flags.0);
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
                out.push(flags.0);
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
    pub(super) fn decode(kind: u64, payload: &[u8]) -> Result<Option<Self>, FrameError> {
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
                let (weight, flags) = (r.weight()?, r.flags()?);
                let count = if !flags.contains(Flags::HUBS) { 0 } else { r.count()? };
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
                code: r.varint("code").map(SessionCode)?,
                retry_after_ms: r.varint("retry-after")?,
                text: r.string("text")?,
            },
            kind::SESSION_SHUTDOWN => Self::SessionShutdown { flags: r.flags()?, deadline_ms: r.varint("deadline")? },
            kind::SESSION_CLOSE => {
                Self::SessionClose { code: r.varint("code").map(SessionCode)?, text: r.string("text")? }
            }
            kind::CLOSE_REQ => Self::CloseReq { conn: r.conn()?, code: r.varint("code").map(StreamCode)? },
            kind::CLOSE_ACK => Self::CloseAck { conn: r.conn()? },
            kind::PAUSE_REQ => Self::PauseReq { conn: r.conn()? },
            kind::PAUSE_ACK => Self::PauseAck { conn: r.conn()? },
            kind::RESUME_REQ => {
                let values = ResumeReq {
                    conn: r.conn()?,
                    generation: r.varint("generation")?,
                    received: r.varint("received offset")?,
                    sent: r.varint("sent offset")?,
                    flags: r.flags()?,
                    code: r.varint("code").map(StreamCode)?,
                };
                // An end of an earlier release stops here.
                match r.id("partner") {
                    Ok(partner) => Self::ResumeReqWith { values, partner: Tag(partner) },
                    Err(_) => Self::ResumeReq(values),
                }
            }
            kind::RESUME_ACK => Self::ResumeAck(ResumeAck {
                conn: r.conn()?,
                status: r.varint("status").map(StreamCode)?,
                generation: r.varint("generation")?,
                received: r.varint("received offset")?,
                flags: r.flags()?,
            }),
            kind::DATA_ACK => {
                let count = r.count()?;
                let entry = |r: &mut Reader<'_>| {
                    Ok(AckEntry { conn: r.conn()?, received: r.varint("received offset")?, flags: r.flags()? })
                };
                Self::DataAck((0..count).map(|_| entry(&mut r)).collect::<Result<_, _>>()?)
            }
            kind::CONNECTED => Self::Connected { conn: r.conn()?, flags: r.flags()? },
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
                let (number, flags, instances) = (r.varint("number")?, r.flags()?, r.instances()?);
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
