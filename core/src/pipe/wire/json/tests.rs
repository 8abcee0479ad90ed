//! The form that people and scripts see.

use bytes::Bytes;

use super::{from_line, to_line};
use crate::pipe::wire::{
    message::{Abort, Block, Close, Control, Loss, Message, Open, Part, PipeId},
    sync::SyncConfig,
    value::{Struct, Value},
};

fn close(value: Value) -> Message {
    Close { pipe: PipeId::new(0x8001).unwrap(), result: Ok(value) }.into()
}

#[track_caller]
fn both_ways(line: &str, message: &Message) {
    assert_eq!(to_line(message), line);
    assert_eq!(from_line(line).map_err(|error| error.to_string()).as_ref(), Ok(message));
}

#[test]
fn messages_have_their_members() {
    let pipe = PipeId::new(0x8001).unwrap();
    both_ways(
        r#"{"type":"open","pipe_id":32769,"priority":-1,"function_id":65535,"params":[{"t":"null"}]}"#,
        &Open { pipe, priority: -1, function: 0xffff, params: vec![Value::Null] }.into(),
    );
    both_ways(r#"{"type":"close","pipe_id":32769,"result":{"t":"null"}}"#, &close(Value::Null));
    both_ways(
        r#"{"type":"close","pipe_id":32769,"abort":{"code":-1,"message":"no"}}"#,
        &Close { pipe, result: Err(Abort::new(-1, "no")) }.into(),
    );
    both_ways(
        r#"{"type":"block","pipe_id":32769,"eof":false,"loss":127,"payload":"00ff"}"#,
        &Block { pipe, part: Part::Data { loss: Loss::new(127).unwrap(), payload: Bytes::from_static(b"\0\xff") } }
            .into(),
    );
    both_ways(r#"{"type":"block","pipe_id":32769,"eof":true,"loss":0}"#, &Block { pipe, part: Part::Eof }.into());
    both_ways(r#"{"type":"control","code":67,"data":""}"#, &Control::close().into());
    both_ways(
        r#"{"type":"control","code":-1,"data":"00"}"#,
        &Control { code: -1, data: Bytes::from_static(b"\0") }.into(),
    );
}

#[test]
fn a_sync_config_is_shown_and_its_data_counts() {
    let config = SyncConfig::from_bytes(&[1; 50]).unwrap();
    let message = Message::from(Control::from(config));
    let line = to_line(&message);
    assert!(line.contains(r#""sync":{"version":257,"node_id":"01010101-0101-0101-0101-010101010101","#), "{line}");
    assert_eq!(from_line(&line).unwrap(), message);
    assert_eq!(from_line(&line.replace(r#""version":257"#, r#""version":"nonsense""#)).unwrap(), message);

    let data = |length| Message::from(Control { code: Control::SYNC_CONFIG, data: vec![1; length].into() });
    assert!(to_line(&data(60)).contains("sync"));
    assert!(!to_line(&data(49)).contains("sync"));
    let other = Message::from(Control { code: Control::CLOSE, data: vec![1; 50].into() });
    assert!(!to_line(&other).contains("sync"));
}

#[test]
fn values_have_their_members() {
    let uuid = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    for (json, value) in [
        (r#"{"t":"null"}"#, Value::Null),
        (r#"{"t":"bool","v":true}"#, true.into()),
        (r#"{"t":"i8","v":-128}"#, i8::MIN.into()),
        (r#"{"t":"i16","v":300}"#, 300_i16.into()),
        (r#"{"t":"i32","v":-5}"#, (-5_i32).into()),
        (r#"{"t":"i64","v":"-9223372036854775808"}"#, i64::MIN.into()),
        (r#"{"t":"f32","bits":"7fc00001"}"#, f32::from_bits(0x7fc0_0001).into()),
        (r#"{"t":"f64","bits":"8000000000000000"}"#, (-0.0).into()),
        (r#"{"t":"bin","hex":"0aff"}"#, Bytes::from_static(b"\x0a\xff").into()),
        (r#"{"t":"str","v":"é\n"}"#, "é\n".into()),
        (r#"{"t":"uuid","v":"00000000-0000-0000-0000-000000000001"}"#, Value::Uuid(uuid)),
        (r#"{"t":"list","v":[{"t":"null"},{"t":"list","v":[]}]}"#, vec![Value::Null, Vec::new().into()].into()),
        (r#"{"t":"map","v":[[{"t":"null"},{"t":"bool","v":false}]]}"#, Value::Map(vec![(Value::Null, false.into())])),
        (
            r#"{"t":"struct","schema":"void","v":[{"t":"null"}]}"#,
            Struct { schema: "void".into(), fields: vec![Value::Null] }.into(),
        ),
    ] {
        both_ways(&format!(r#"{{"type":"close","pipe_id":32769,"result":{json}}}"#), &close(value));
    }
}

#[test]
fn members_come_in_any_order() {
    let read = |line: &str| from_line(line).unwrap();
    let list =
        r#"{"result":{"v":[{"v":"5","t":"i64"},{"v":{},"t":"null"}],"t":"list"},"pipe_id":32769,"type":"close"}"#;
    assert!(from_line(list).unwrap_err().to_string().contains("expected beside `t` no other member"));
    assert_eq!(read(&list.replace(r#""v":{},"#, "")), close(vec![5_i64.into(), Value::Null].into()));
    let schema = r#"{"pipe_id":32769,"result":{"schema":"s","t":"struct","v":[]},"type":"close"}"#;
    assert_eq!(read(schema), close(Struct { schema: "s".into(), fields: Vec::new() }.into()));
}

#[test]
fn values_are_nested_as_deep_as_codecs_take_them() {
    let nested = (0..64).fold(Value::Null, |value, _| Value::Map(vec![(value, Value::Null)]));
    let line = to_line(&close(nested.clone()));
    assert_eq!(from_line(&line).unwrap(), close(nested));
    // Brackets in text are text.
    let text = close("[".repeat(1000).into());
    assert_eq!(from_line(&to_line(&text)).unwrap(), text);
    for line in ["[".repeat(100_000), format!(r#"{{"type":"close","result":{}"#, r#"{"t":"list","v":["#.repeat(10_000))]
    {
        let error = from_line(&line).unwrap_err().to_string();
        assert!(error.starts_with("brackets are nested deeper than 256, at column "), "{error}");
    }
}

#[test]
fn what_is_no_message_is_refused_and_the_error_says_what_was_expected() {
    for (line, expected) in [
        ("", "EOF"),
        ("{}", "missing field `type`"),
        (r#"{"type":"opened"}"#, "unknown variant `opened`, expected one of `open`, `close`, `block`, `control`"),
        (r#"{"type":"control","code":67}"#, "missing field `data`"),
        (r#"{"type":"control","code":67"#, "EOF while parsing an object, at column 27"),
        (r#"{"type":"control","code":67,"data":"","more":1}"#, "unknown field `more`"),
        (r#"{"type":"control","code":67,"data":""} {}"#, "trailing characters"),
        (r#"{"type":"control","code":67,"data":"abc"}"#, "expected pairs of hex digits"),
        (r#"{"type":"control","code":200,"data":""}"#, "expected i8"),
        (r#"{"type":"close","pipe_id":0,"result":{"t":"null"}}"#, "expected a nonzero u16"),
        (r#"{"type":"close","pipe_id":1}"#, "expected one of `result` and `abort`"),
        (
            r#"{"type":"close","pipe_id":1,"result":{"t":"null"},"abort":{"code":1,"message":""}}"#,
            "expected one of `result` and `abort`",
        ),
        (r#"{"type":"block","pipe_id":1,"eof":false,"loss":128,"payload":""}"#, "loss rate is 128; expected 0 to 127"),
        (r#"{"type":"block","pipe_id":1,"eof":false,"loss":0}"#, "missing field `payload`"),
        (r#"{"type":"block","pipe_id":1,"eof":true,"loss":1}"#, "expected `loss` 0 and no `payload`"),
        (r#"{"type":"block","pipe_id":1,"eof":true,"loss":0,"payload":""}"#, "expected `loss` 0 and no `payload`"),
    ] {
        let error = from_line(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
    for (value, expected) in [
        (r#"{"t":"i9","v":1}"#, "unknown variant `i9`"),
        (r#"{"v":1}"#, "missing field `t`"),
        (r#"{"t":"i8","v":128}"#, "expected i8"),
        (r#"{"t":"i64","v":5}"#, "expected a string"),
        (r#"{"t":"i64","v":"9223372036854775808"}"#, "expected a number of 64 bits as decimal text"),
        (r#"{"t":"f32","bits":"00"}"#, "expected 8 hex digits"),
        (r#"{"t":"f64","bits":"3f800000"}"#, "expected 16 hex digits"),
        (r#"{"t":"bin","bits":"00"}"#, "expected beside `t` `hex` and no other"),
        (r#"{"t":"bin","len":5}"#, "unknown field `len`"),
        (r#"{"t":"list","repeat":5,"of":{"t":"null"}}"#, "unknown field `repeat`"),
        (r#"{"t":"struct","v":[]}"#, "expected beside `t` `schema` and `v`"),
        (r#"{"t":"bool","v":true,"v":true}"#, "duplicate field `v`"),
        (r#"{"t":"bool","t":"bool","v":true}"#, "duplicate field `t`"),
        (r#""null""#, "expected a value: an object with its type `t`"),
    ] {
        let error = from_line(&format!(r#"{{"type":"close","pipe_id":1,"result":{value}}}"#)).unwrap_err().to_string();
        assert!(error.contains(expected), "{value}: {error}");
    }
}
