//! What is known of a stream before the host reads it: the partner's RESUME, and payload that came together with a preamble.

use bytes::Bytes;

use crate::{
    quic::{self, ReadOutcome},
    spn::{
        endpoint::carrier::Carrier,
        wire::preamble::{Collector, Preamble},
    },
};

/// The beginning of a connection's receiving direction.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Input {
    /// The partner's RESUME is still to come on this stream.
    answer: Option<Collector>,
    /// Payload that came together with the preamble.
    ahead: Bytes,
    /// The end of the stream was found while its first byte was looked for.
    ahead_ends: bool,
}

/// What a look for the partner's RESUME finds.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Answer {
    /// None is to come: payload may be read.
    None,
    /// It is still to come.
    Awaited,
    /// It has come.
    Come(Preamble),
    /// The stream was reset before it.
    Reset(u64),
    /// Something else has come, or the stream's end.
    Wrong,
}

impl Input {
    /// Payload, or the end, came together with what began the stream.
    pub(in crate::spn::endpoint) fn begin(&mut self, ahead: Bytes, ends: bool) {
        (self.ahead, self.ahead_ends) = (ahead, ends);
    }

    /// The partner's RESUME is to come first.
    pub(in crate::spn::endpoint) fn await_answer(&mut self) {
        self.answer = Some(Collector::default());
    }

    /// Whether it is still to come.
    pub(in crate::spn::endpoint) fn is_answer_awaited(&self) -> bool {
        self.answer.is_some()
    }

    /// It is not to come: the stream is left, or nobody resumes.
    pub(in crate::spn::endpoint) fn forget_answer(&mut self) {
        self.answer = None;
    }

    /// The stream is left, and another one repeats what was not read.
    pub(in crate::spn::endpoint) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }

    /// Looks for the partner's RESUME.
    pub(in crate::spn::endpoint) fn read_answer(
        &mut self,
        carrier: Option<Carrier>,
        quic: &mut quic::Endpoint,
    ) -> Answer {
        let (Some(collector), Some(carrier)) = (&mut self.answer, carrier) else { return Answer::None };
        let mut chunks = Vec::new();
        loop {
            let outcome = quic.read(carrier.handle, carrier.stream, &mut chunks, 1);
            let Some(mut chunk) = chunks.pop() else {
                return match outcome {
                    ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone => Answer::Awaited,
                    ReadOutcome::Finished => Answer::Wrong,
                    ReadOutcome::Reset(code) => Answer::Reset(code),
                };
            };
            match collector.take(&mut chunk) {
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    self.answer = None;
                    self.ahead = chunk;
                    return Answer::Come(preamble);
                }
                Err(_) => return Answer::Wrong,
            }
        }
    }

    /// Takes up to `max` chunks of payload.
    pub(in crate::spn::endpoint) fn read(
        &mut self,
        carrier: Option<Carrier>,
        chunks: &mut Vec<Bytes>,
        mut max: usize,
        quic: &mut quic::Endpoint,
    ) -> ReadOutcome {
        if !self.ahead.is_empty() && max > 0 {
            chunks.push(std::mem::take(&mut self.ahead));
            max -= 1;
        }
        let Some(carrier) = carrier else { return ReadOutcome::Blocked };
        if std::mem::take(&mut self.ahead_ends) {
            return ReadOutcome::Finished;
        }
        quic.read(carrier.handle, carrier.stream, chunks, max)
    }
}
