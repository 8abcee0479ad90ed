//! Messages as JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, de::IgnoredAny};

use super::Hex;
use crate::pipe::wire::{
    message::{Abort, Block, Close, Control, Loss, Message, Open, Part, PipeId},
    sync::SyncConfig,
    value::Value,
};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Written<'a> {
    Open {
        pipe_id: PipeId,
        priority: i8,
        function_id: u16,
        params: &'a [Value],
    },
    Close {
        pipe_id: PipeId,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        abort: Option<&'a Abort>,
    },
    Block {
        pipe_id: PipeId,
        eof: bool,
        loss: Loss,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Hex>,
    },
    Control {
        code: i8,
        data: Hex,
        #[serde(skip_serializing_if = "Option::is_none")]
        sync: Option<SyncConfig>,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Read {
    Open {
        pipe_id: PipeId,
        priority: i8,
        function_id: u16,
        params: Vec<Value>,
    },
    Close {
        pipe_id: PipeId,
        result: Option<Value>,
        abort: Option<Abort>,
    },
    Block {
        pipe_id: PipeId,
        eof: bool,
        loss: Loss,
        payload: Option<Hex>,
    },
    Control {
        code: i8,
        data: Hex,
        // It says again what `data` says.
        #[serde(rename = "sync")]
        _sync: Option<IgnoredAny>,
    },
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self {
            Self::Open(Open { pipe, priority, function, params }) => {
                Written::Open { pipe_id: *pipe, priority: *priority, function_id: *function, params }
            }
            Self::Close(Close { pipe, result }) => {
                Written::Close { pipe_id: *pipe, result: result.as_ref().ok(), abort: result.as_ref().err() }
            }
            Self::Block(Block { pipe, part: Part::Data { loss, payload } }) => {
                Written::Block { pipe_id: *pipe, eof: false, loss: *loss, payload: Some(Hex(payload.clone())) }
            }
            Self::Block(Block { pipe, part: Part::Eof }) => {
                Written::Block { pipe_id: *pipe, eof: true, loss: Loss::NEVER, payload: None }
            }
            Self::Control(Control { code, data }) => {
                let is_sync = *code == Control::SYNC_CONFIG;
                let sync = is_sync.then(|| SyncConfig::from_bytes(data).ok()).flatten();
                Written::Control { code: *code, data: Hex(data.clone()), sync }
            }
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Read::deserialize(deserializer)? {
            Read::Open { pipe_id: pipe, priority, function_id: function, params } => {
                Open { pipe, priority, function, params }.into()
            }
            Read::Close { pipe_id: pipe, result: Some(result), abort: None } => {
                Close { pipe, result: Ok(result) }.into()
            }
            Read::Close { pipe_id: pipe, result: None, abort: Some(abort) } => {
                Close { pipe, result: Err(abort) }.into()
            }
            Read::Close { .. } => return Err(D::Error::custom("expected one of `result` and `abort` in a close")),
            Read::Block { pipe_id: pipe, eof: false, loss, payload: Some(Hex(payload)) } => {
                Block { pipe, part: Part::Data { loss, payload } }.into()
            }
            Read::Block { pipe_id: pipe, eof: true, loss: Loss::NEVER, payload: None } => {
                Block { pipe, part: Part::Eof }.into()
            }
            Read::Block { eof: false, .. } => return Err(D::Error::missing_field("payload")),
            Read::Block { .. } => {
                return Err(D::Error::custom("expected `loss` 0 and no `payload` where `eof` is true"));
            }
            Read::Control { code, data: Hex(data), _sync } => Control { code, data }.into(),
        })
    }
}
