//! Both codecs: identity, segmentation, limits, and what no peer may cost us.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    Codec, Composed, DecodeError, EncodeError, Fault, Input, Limits, Measure, Primitives, Receiver, Stop, Width,
    msgpack::MsgPack,
    simple::{self, Simple},
};
use crate::pipe::wire::{
    message::{Abort, Block, Close, Control, Loss, MAX_PAYLOAD, Message, Open, Part, PipeId},
    value::{Struct, Value},
};

fn pipe(id: u16) -> PipeId {
    PipeId::new(id).unwrap()
}

fn open(params: Vec<Value>) -> Message {
    Open { pipe: pipe(1), priority: 0, function: 10, params }.into()
}

fn close(value: Value) -> Message {
    Close { pipe: pipe(1), result: Ok(value) }.into()
}

fn data(payload: Bytes) -> Message {
    Block { pipe: pipe(1), part: Part::Data { loss: Loss::NEVER, payload } }.into()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]))
}

fn encode(codec: &dyn Codec, message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    codec.encode(message, &mut out).unwrap();
    out.freeze()
}

/// All messages of a wire that carries these pieces, and how it ends.
fn read(codec: Box<dyn Codec>, pieces: impl IntoIterator<Item = Bytes>) -> (Vec<Message>, Option<DecodeError>) {
    let (mut receiver, mut messages) = (Receiver::new(codec), Vec::new());
    for piece in pieces {
        receiver.push(piece);
        loop {
            match receiver.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// Makes a codec.
type Make = fn(Limits) -> Box<dyn Codec>;

const CODECS: [Make; 2] = [|limits| Box::new(MsgPack::new(limits)), |limits| Box::new(Simple::new(limits))];

fn codecs() -> [Box<dyn Codec>; 2] {
    CODECS.map(|make| make(Limits::default()))
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::Int8),
        any::<i16>().prop_map(Value::Int16),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<u32>().prop_map(|bits| Value::Float32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::Float64(f64::from_bits(bits))),
        bytes().prop_map(Value::Binary),
        any::<String>().prop_map(Value::String),
        any::<u128>().prop_map(|bits| Value::Uuid(Uuid::from_u128(bits))),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
            // No key twice, as in whatever was decoded.
            prop::collection::btree_map(inner.clone(), inner.clone(), 0..8)
                .prop_map(|pairs| Value::Map(pairs.into_iter().rev().collect())),
            (any::<String>(), prop::collection::vec(inner, 0..8)).prop_map(|(schema, fields)| Struct {
                schema: schema.into(),
                fields
            }
            .into()),
        ]
    })
}

fn message() -> impl Strategy<Value = Message> {
    let pipe = || (1..=u16::MAX).prop_map(pipe);
    let result = prop_oneof![
        value().prop_map(Ok),
        (any::<i32>(), any::<String>()).prop_map(|(code, message)| Err(Abort { code, message })),
    ];
    let part = prop_oneof![
        (0..128_u8, bytes()).prop_map(|(loss, payload)| Part::Data { loss: Loss::new(loss).unwrap(), payload }),
        Just(Part::Eof),
    ];
    prop_oneof![
        (pipe(), any::<i8>(), any::<u16>(), prop::collection::vec(value(), 0..4))
            .prop_map(|(pipe, priority, function, params)| Open { pipe, priority, function, params }.into()),
        (pipe(), result).prop_map(|(pipe, result)| Close { pipe, result }.into()),
        (pipe(), part).prop_map(|(pipe, part)| Block { pipe, part }.into()),
        (any::<i8>(), bytes()).prop_map(|(code, data)| Control { code, data }.into()),
    ]
}

/// Bytes that are nearly messages: some, with a few bytes of them changed.
fn mutated() -> impl Strategy<Value = (Vec<Message>, Vec<(prop::sample::Index, u8)>)> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::collection::vec(message(), 1..3), changes)
}

fn spoiled(codec: &dyn Codec, (messages, changes): &(Vec<Message>, Vec<(prop::sample::Index, u8)>)) -> Bytes {
    let mut bytes = messages.iter().map(|message| encode(codec, message)).collect::<Vec<_>>().concat();
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes.into()
}

/// Each way of cutting gives the same; what was read is written, and read again; nothing costs more than it may.
fn check(make: Make, bytes: &Bytes) {
    let codec = || make(Limits::default());
    let (messages, error) = read(codec(), [bytes.clone()]);
    let pieces = (0..bytes.len()).map(|at| bytes.slice(at..=at));
    assert_eq!(read(codec(), pieces), (messages.clone(), error), "byte by byte");
    for message in messages {
        let again = encode(&*codec(), &message);
        assert_eq!(read(codec(), [again]), (vec![message], None));
    }

    // CAP-4: whatever bytes say, they cost so many times their number: their copy, and what becomes of it.
    let mut receiver = Receiver::new(codec());
    let used = allocation_counter::measure(|| {
        receiver.push(bytes.clone());
        while let Ok(Some(_)) = receiver.next_message() {}
    });
    assert!(used.bytes_max <= 80 * bytes.len() as u64 + 1000, "{used:?} for {} bytes", bytes.len());
}

proptest! {
    #[test]
    fn what_is_written_is_read(messages in prop::collection::vec(message(), 1..4), cut in any::<prop::sample::Index>()) {
        for codec in codecs() {
            let bytes = spoiled(&*codec, &(messages.clone(), Vec::new()));
            let at = cut.index(bytes.len());
            let pieces = [bytes.slice(..at), bytes.slice(at..)];
            prop_assert_eq!(read(codec, pieces), (messages.clone(), None));
        }
    }

    #[test]
    fn bytes_at_random_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5_usize) {
        // Most bytes begin no message.
        let bytes = Bytes::from([b"()#*".get(kind..=kind).unwrap_or_default(), &bytes].concat());
        CODECS.iter().for_each(|make| check(*make, &bytes));
    }

    #[test]
    fn bytes_that_are_nearly_messages_are_read_or_refused(mutated in mutated()) {
        CODECS.iter().for_each(|make| check(*make, &spoiled(&*make(Limits::default()), &mutated)));
    }
}

#[test]
fn a_message_in_one_piece_is_a_slice_of_it() {
    for codec in codecs() {
        let bytes = encode(&*codec, &data(vec![7; MAX_PAYLOAD].into()));
        let (messages, _) = read(codec, [bytes.clone()]);
        let [Message::Block(Block { part: Part::Data { payload, .. }, .. })] = &*messages else {
            panic!("{messages:?}")
        };
        assert_eq!(payload.as_ptr(), bytes[bytes.len() - MAX_PAYLOAD..].as_ptr(), "no copy");
    }
}

#[test]
fn the_longest_message_is_taken_and_no_longer_one() {
    for mut codec in codecs() {
        let head = encode(&*codec, &close(Value::Binary(vec![0; 65_000].into()))).len() - 65_000;
        let longest = Limits::default().message - head;
        let message = close(Value::Binary(vec![3; longest].into()));
        let bytes = encode(&*codec, &message);
        assert_eq!(bytes.len(), 65_507);
        assert_eq!(codec.measure(&bytes), Ok(Measure::Whole(bytes.len())));
        assert_eq!(codec.decode(bytes), Ok(message));

        let mut out = BytesMut::from(&b"before"[..]);
        let longer = close(Value::Binary(vec![3; longest + 1].into()));
        let refused = EncodeError::TooLarge { what: "bytes of a message", found: 65_508, limit: 65_507 };
        assert_eq!(codec.encode(&longer, &mut out), Err(refused));
        assert_eq!(out, "before");
    }
}

#[test]
fn many_values_are_too_long_a_message_only_when_they_have_come() {
    // A list of 65,535, for which no message has room.
    let lists: [&[u8]; 2] = [b")\x01\x01\x20\xff", b")\0\x01\x01\x20\xff\xff"];
    for (mut codec, list) in codecs().into_iter().zip(lists) {
        let mut list = list.to_vec();
        assert_eq!(codec.measure(&list), Ok(Measure::Needs(list.len() + 1)));
        list.resize(65_506, 0);
        assert_eq!(codec.measure(&list), Ok(Measure::Needs(65_507)));
        list.push(0);
        let fault = Fault::TooLarge { what: "bytes of a message", declared: 65_508, limit: 65_507 };
        assert_eq!(codec.measure(&list), Err(DecodeError { offset: 65_507, fault }));
    }
}

#[test]
fn a_declared_size_over_the_limit_is_not_waited_for() {
    let too_large = |bytes: &[u8], codec: &mut dyn Codec, at| {
        let error = codec.measure(bytes).unwrap_err();
        assert_eq!((error.fault.name(), error.offset), ("too-large", at), "{bytes:02x?}: {error}");
    };
    let mut msgpack = MsgPack::default();
    too_large(b"\x28\x01\0\x0a\x01\x0a\xdb\x07\xff\xff\xff", &mut msgpack, 6);
    too_large(b"\x28\x01\0\x0a\x01\x0a\xdb\xff\xff\xff\xff", &mut msgpack, 6);
    too_large(b"\x23\x01\0\xda\xf0\0", &mut msgpack, 3);
    too_large(b"\x2a\x51\xda\xff\xdf", &mut msgpack, 2);
    let mut simple = Simple::default();
    too_large(b"\x23\0\x01\0\xf0\0", &mut simple, 4);
    too_large(b"\x2a\x51\xff\xe0", &mut simple, 2);
}

#[test]
fn values_are_nested_as_deep_as_the_limit_says() {
    for make in CODECS {
        let (default, mut codec) = (make(Limits::default()), make(Limits { depth: 3, ..Limits::default() }));
        for message in [open(vec![Value::Null, nested(3)]), close(nested(3))] {
            let bytes = encode(&*codec, &message);
            assert_eq!(codec.measure(&bytes), Ok(Measure::Whole(bytes.len())));
            assert_eq!(codec.decode(bytes), Ok(message));
        }
        for message in [open(vec![Value::Null, nested(4)]), close(nested(4))] {
            let mut out = BytesMut::new();
            assert_eq!(codec.encode(&message, &mut out), Err(EncodeError::TooDeep { limit: 3 }));
            assert!(out.is_empty());
            let bytes = encode(&*default, &message);
            assert_eq!(codec.measure(&bytes).unwrap_err().fault, Fault::TooDeep { limit: 3 });
            assert_eq!(codec.decode(bytes).unwrap_err().fault, Fault::TooDeep { limit: 3 });
        }
    }
}

#[test]
fn the_number_of_values_is_limited() {
    for make in CODECS {
        let (default, mut codec) = (make(Limits::default()), make(Limits { values: 10, ..Limits::default() }));
        let list = |entries| open(vec![Value::List(vec![Value::Null; entries])]);
        let bytes = encode(&*codec, &list(9));
        assert_eq!(codec.measure(&bytes), Ok(Measure::Whole(bytes.len())));

        let refused = EncodeError::TooLarge { what: "values of a message", found: 11, limit: 10 };
        assert_eq!(codec.encode(&list(10), &mut BytesMut::new()), Err(refused));
        let announced = encode(&*default, &list(10));
        let fault = Fault::TooLarge { what: "values of a message", declared: 11, limit: 10 };
        assert_eq!(codec.measure(&announced[..announced.len() - 10]).unwrap_err().fault, fault, "at once");
    }
}

#[test]
fn a_key_that_comes_again_keeps_its_place_and_takes_the_last_value() {
    let (a, b, c) = (Value::from("a"), Value::from("b"), Value::from("c"));
    let pairs = |values: &[(&Value, i32)]| {
        close(Value::Map(values.iter().map(|(key, value)| ((*key).clone(), (*value).into())).collect()))
    };
    for codec in codecs() {
        let bytes = encode(&*codec, &pairs(&[(&a, 1), (&b, 2), (&a, 3), (&c, 4), (&b, 5), (&a, 6)]));
        assert_eq!(codec.decode(bytes), Ok(pairs(&[(&a, 6), (&b, 5), (&c, 4)])));
    }
}

#[test]
fn the_most_expensive_messages_cost_no_more_than_others() {
    let nulls = Value::List(vec![Value::Null; 32_000]);
    let same_keys = Value::Map(vec![(Value::Null, Value::Null); 32_000]);
    let keys = Value::Map((0..13_000_i16).map(|nth| (Value::Int16(nth), Value::Null)).collect());
    let twice = Value::Map((0..13_000_i16).map(|nth| (Value::Int16(nth / 2), Value::Null)).collect());
    let lists = Value::List(vec![nested(1); 16_000]);
    let deep = Value::List(vec![nested(60); 300]);
    let texts = Value::List(vec!["a".into(); 12_000]);
    let empty = Value::List(vec![Struct::default().into(); 12_000]);
    for value in [nulls, same_keys, keys, twice, lists, deep, texts, empty] {
        CODECS.iter().for_each(|make| check(*make, &encode(&*make(Limits::default()), &close(value.clone()))));
    }
    let no_text = |make: &Make| {
        let mut bytes = encode(&*make(Limits::default()), &close("?".repeat(20_000).into())).to_vec();
        bytes.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xff);
        bytes
    };
    CODECS.iter().for_each(|make| check(*make, &no_text(make).into()));
}

#[test]
fn many_keys_are_joined_in_no_time() {
    for codec in codecs() {
        // As many as a message has room for.
        let keys = (0..13_000_i16).map(|nth| (Value::Int16(nth % 12_999), Value::Null));
        let bytes = encode(&*codec, &close(Value::Map(keys.collect())));
        let Ok(Message::Close(Close { result: Ok(Value::Map(pairs)), .. })) = codec.decode(bytes) else { panic!() };
        assert_eq!(pairs.len(), 12_999);
    }
}

/// Items of SimpleCodec, and how many were read in this thread.
struct Counted;

thread_local! {
    static READ: Cell<usize> = const { Cell::new(0) };
}

fn count<T>(read: T) -> T {
    READ.set(READ.get() + 1);
    read
}

impl Primitives for Counted {
    const NAME: &'static str = "Counted";

    fn put_int(out: &mut BytesMut, value: i64, width: Width) {
        simple::Items::put_int(out, value, width);
    }
    fn put_f32(out: &mut BytesMut, value: f32) {
        simple::Items::put_f32(out, value);
    }
    fn put_f64(out: &mut BytesMut, value: f64) {
        simple::Items::put_f64(out, value);
    }
    fn put_binary_head(out: &mut BytesMut, length: usize) -> Result<(), EncodeError> {
        simple::Items::put_binary_head(out, length)
    }
    fn int(input: &mut Input<'_>, width: Width) -> Result<i64, Stop> {
        count(simple::Items::int(input, width))
    }
    fn f32(input: &mut Input<'_>) -> Result<f32, Stop> {
        count(simple::Items::f32(input))
    }
    fn f64(input: &mut Input<'_>) -> Result<f64, Stop> {
        count(simple::Items::f64(input))
    }
    fn binary_head(input: &mut Input<'_>) -> Result<usize, Stop> {
        count(simple::Items::binary_head(input))
    }
}

#[test]
fn a_big_message_that_comes_byte_by_byte_is_not_read_from_its_start_each_time() {
    let mut codec = Composed::<Counted>::default();
    let strings = (0..5_000).map(|nth| Value::List(vec![Value::Null, format!("{nth}").into()]));
    let message = close(Value::List(strings.collect()));
    let bytes = encode(&codec, &message);
    READ.set(0);
    for length in 0..bytes.len() {
        assert!(
            matches!(codec.measure(&bytes[..length]), Ok(Measure::Needs(least)) if (length + 1..=bytes.len()).contains(&least))
        );
    }
    assert_eq!(codec.measure(&bytes), Ok(Measure::Whole(bytes.len())));
    // Items that had not come are read again, and no others: three at most for each byte.
    assert!(READ.get() <= 3 * bytes.len(), "{} items read for {} bytes", READ.get(), bytes.len());
}

#[test]
fn text_that_is_not_utf_8_is_mended() {
    for codec in codecs() {
        let mut bytes = encode(&*codec, &close("a?b".into())).to_vec();
        let at = bytes.len() - 2;
        bytes[at] = 0xff;
        assert_eq!(codec.decode(bytes.into()), Ok(close("a\u{fffd}b".into())));
    }
}

#[test]
fn what_was_not_measured_is_refused() {
    for codec in codecs() {
        let whole = encode(&*codec, &close("abc".into()));
        let not_one = |offset, found| Err(DecodeError { offset, fault: Fault::NotOneMessage { found } });
        for found in 0..whole.len() {
            assert_eq!(codec.decode(whole.slice(..found)), not_one(found, found));
        }
        let more: Bytes = [&*whole, b"!"].concat().into();
        assert_eq!(codec.decode(more), not_one(whole.len(), whole.len() + 1));
    }
}
