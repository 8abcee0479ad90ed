//! The QUIC connection of a session: its control stream, its data streams, its windows.

use std::time::Instant;

use bytes::Bytes;

use super::{flow::Flow, signs::Signs, streams::Streams};
use crate::{
    quic::{Handle, StreamId, TransportConfig},
    spn::{
        Protocol,
        endpoint::{
            carrier::{Carrier, LinkId},
            policy::seek::{Instance, Roster},
            ports::Ports,
        },
        wire::{
            code::StreamCode,
            control::{Control, ControlError},
            frame::Flags,
            frame::{Frame, SessionAck},
        },
    },
};

/// A QUIC connection of a session.
pub(in crate::spn::endpoint) struct Wire {
    link: LinkId,
    handle: Handle,
    pub(super) protocol: Protocol,
    /// The hubs that SESSION_OPEN has listed.
    pub(super) hubs: Vec<[u8; 16]>,
    control: Option<Control>,
    /// Control frames were left unread, since the hub has left ours unread.
    is_control_paused: bool,
    /// Established: streams are served.
    pub(super) is_up: bool,
    /// New connections may use it.
    pub(super) is_usable: bool,
    pub(super) is_standby: bool,
    /// SESSION_CLOSE is on its way: nothing new is served.
    pub(super) has_left: bool,
    /// What could go on elsewhere has left it.
    pub(super) is_deserted: bool,
    /// QUIC has no stream credit left.
    is_exhausted: bool,
    /// The hub says that this identity has no right to be here: its connections end.
    pub(super) is_disowned: bool,
    /// Connections that the hub allows at once.
    max_connections: u64,
    session_id: String,
    service: String,
    flow: Flow,
    streams: Streams,
    /// Who may get a consumer's connections, as the hub says.
    roster: Option<Roster>,
    signs: Signs,
}

impl Wire {
    pub(super) fn new(link: LinkId, handle: Handle, transport: &TransportConfig, window_max: u32) -> Self {
        Self {
            link,
            handle,
            protocol: Protocol::Sc02,
            hubs: Vec::new(),
            control: None,
            is_control_paused: false,
            is_up: false,
            is_usable: false,
            is_standby: false,
            has_left: false,
            is_deserted: false,
            is_exhausted: false,
            is_disowned: false,
            max_connections: 0,
            session_id: String::new(),
            service: String::new(),
            flow: Flow::new(link, handle, transport, window_max),
            streams: Streams::new(transport.max_streams),
            roster: None,
            signs: Signs::new(link, handle),
        }
    }

    pub(in crate::spn::endpoint) fn handle(&self) -> Handle {
        self.handle
    }

    pub(in crate::spn::endpoint) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(in crate::spn::endpoint) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Its streams.
    pub(in crate::spn::endpoint) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Its streams.
    pub(in crate::spn::endpoint) fn streams_mut(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// What a stream of it is for a connection.
    pub(in crate::spn::endpoint) fn carrier(&self, stream: StreamId) -> Carrier {
        Carrier { link: self.link, handle: self.handle, stream, protocol: self.protocol }
    }

    /// Whether RESUME_REQ may go to it, as far as it knows.
    pub(super) fn is_askable(&self) -> bool {
        self.protocol == Protocol::Sc02 && self.is_up && !self.has_left
    }

    /// Whether new connections find room.
    pub(super) fn has_room(&self) -> bool {
        let allowed = match self.protocol {
            Protocol::Sc01 => true,
            Protocol::Sc02 => (self.streams.count() as u64) < self.max_connections,
        };
        self.is_usable && !self.is_standby && !self.is_exhausted && allowed
    }

    /// Whether new streams of the hub are looked at: SESSION_ACK is in, and no hold is on.
    pub(in crate::spn::endpoint) fn serves_streams(&self) -> bool {
        self.is_up && !self.signs.is_on_hold()
    }

    /// What SESSION_ACK says.
    pub(super) fn acknowledge(&mut self, ack: SessionAck) {
        self.session_id = ack.session_id;
        self.service = ack.service;
        self.max_connections = ack.max_connections;
    }

    /// The session's name in the hub's records, and the service.
    pub(super) fn names(&self) -> (String, String) {
        (self.session_id.clone(), self.service.clone())
    }

    /// Its windows.
    pub(in crate::spn::endpoint) fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// The hub's signs of life, and the streams beside which they are looked for.
    pub(in crate::spn::endpoint) fn signs_mut(&mut self) -> (&mut Signs, &Streams) {
        (&mut self.signs, &self.streams)
    }

    /// Something is being sent, or a provider's session is up: from now on silence is looked for. `sc01` has none of this.
    pub(in crate::spn::endpoint) fn listen(&mut self, now: Instant, ports: &mut Ports) {
        if self.protocol == Protocol::Sc02 {
            self.signs.listen(now, ports);
        }
    }

    /// Opens a stream for a connection, if there is credit.
    pub(in crate::spn::endpoint) fn open_stream(&mut self, ports: &mut Ports) -> Option<StreamId> {
        let stream = ports.quic.open(self.handle);
        self.is_exhausted |= stream.is_none();
        stream
    }

    /// QUIC has stream credit again.
    pub(in crate::spn::endpoint) fn note_credit(&mut self) {
        self.is_exhausted = false;
    }

    /// Refuses a stream that is no connection yet.
    pub(in crate::spn::endpoint) fn refuse(&mut self, stream: StreamId, code: StreamCode, ports: &mut Ports) {
        self.streams.close_opening(stream);
        ports.quic.reset(self.handle, stream, code.0);
        ports.quic.stop(self.handle, stream, code.0);
    }

    /// Lets the hub open more streams if it may soon need them; see [`Streams`].
    pub(in crate::spn::endpoint) fn grant(&mut self, connections: usize, paused: usize, ports: &mut Ports) {
        let most = u32::try_from(connections).unwrap_or(u32::MAX);
        if let Some(granted) = self.streams.grant(most, paused) {
            ports.quic.set_max_streams(self.handle, granted);
        }
    }

    /// Grants the hub no more streams.
    pub(super) fn refuse_streams(&mut self, ports: &mut Ports) {
        self.streams.stop_granting();
        ports.quic.set_max_streams(self.handle, 0);
    }

    /// Opens the control stream: the first stream that we open is stream 0 (Control stream). Says whether the hub allows it.
    pub(super) fn open_control(&mut self, ports: &mut Ports) -> bool {
        let Some(stream) = ports.quic.open(self.handle) else { return false };
        self.control = Some(Control::new(&mut ports.quic, self.handle, stream));
        true
    }

    pub(in crate::spn::endpoint) fn is_control(&self, stream: StreamId) -> bool {
        self.control.as_ref().is_some_and(|control| control.stream() == stream)
    }

    /// Queues a control frame.
    pub(super) fn send(&mut self, frame: &Frame, ports: &mut Ports) {
        if let Some(control) = &mut self.control {
            control.send(frame);
            ports.note_frames();
        }
    }

    pub(super) fn send_datagram(&self, text: &'static [u8], ports: &mut Ports) {
        ports.quic.send_datagram(self.handle, Bytes::from_static(text));
    }

    /// Sends what the control stream has. Says whether there is something to do: frames may be read on, or the stream is lost.
    pub(super) fn flush(&mut self, ports: &mut Ports) -> Option<Result<(), ControlError>> {
        let flushed = self.control.as_mut()?.flush(&mut ports.quic);
        (flushed.is_err() || std::mem::take(&mut self.is_control_paused)).then_some(flushed)
    }

    /// The next control frame. None is read while more than `backlog` bytes wait for the hub to read them.
    pub(in crate::spn::endpoint) fn next_frame(
        &mut self,
        backlog: usize,
        ports: &mut Ports,
    ) -> Result<Option<Frame>, ControlError> {
        let Some(control) = &mut self.control else { return Ok(None) };
        if control.backlog() > backlog {
            self.is_control_paused = true;
            return Ok(None);
        }
        control.next_frame(&mut ports.quic)
    }

    /// PROVIDERS. It is acknowledged, unless the connections have left: the hub may not know yet that their streams are lost, and a provider
    /// that it lists now must not get one of them (SEK-2). Says whether connections may have another provider to ask.
    pub(super) fn list(
        &mut self,
        number: u64,
        flags: Flags,
        instances: Vec<Instance>,
        retiring: Vec<Instance>,
        ports: &mut Ports,
    ) -> bool {
        if self.is_deserted {
            return false;
        }
        self.roster.get_or_insert_default().update(number, flags, instances, retiring);
        self.send(&Frame::ProvidersAck { number }, ports);
        true
    }

    /// Who may get its connections, if the hub says so.
    pub(in crate::spn::endpoint) fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref()
    }

    /// The QUIC connection is over.
    pub(super) fn end(&self, ports: &mut Ports) {
        self.flow.end(ports);
    }
}
