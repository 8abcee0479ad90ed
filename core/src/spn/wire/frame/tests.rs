use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-zé:]{0,40}"
}

fn instances() -> impl Strategy<Value = Vec<[u8; 16]>> {
    proptest::collection::vec(any::<[u8; 16]>(), 0..=256)
}

fn conn() -> impl Strategy<Value = ConnKey> {
    any::<[u8; 16]>().prop_map(ConnKey)
}

fn flags() -> impl Strategy<Value = Flags> {
    any::<u8>().prop_map(Flags)
}

fn varint() -> impl Strategy<Value = u64> {
    prop_oneof![0..0x40u64, 0..0x4000u64, 0..0x4000_0000u64, 0..1u64 << 62]
}

fn frames() -> impl Strategy<Value = Frame> {
    let role = prop_oneof![Just(Role::Provider), Just(Role::Consumer)];
    prop_oneof![
        (role, text(), any::<[u8; 16]>(), any::<u16>(), flags(), proptest::collection::vec(any::<[u8; 16]>(), 0..9))
            .prop_map(|(role, service, instance, weight, flags, hubs)| {
                let flags = if hubs.is_empty() { flags.without(Flags::HUBS) } else { flags | Flags::HUBS };
                Frame::SessionOpen(SessionOpen { version: VERSION, role, service, instance, weight, flags, hubs })
            }),
        (2..1u64 << 62).prop_map(|version| Frame::SessionOpenVersion { version }),
        (3u8..).prop_map(|role| Frame::SessionOpenRole { role }),
        (text(), text(), any::<[u8; 16]>(), varint(), 0..3u8).prop_map(
            |(session_id, service, hub_instance, max_connections, state)| {
                Frame::SessionAck(SessionAck { session_id, service, hub_instance, max_connections, state })
            }
        ),
        (varint(), varint(), text()).prop_map(|(code, retry_after_ms, text)| Frame::SessionReject {
            code: SessionCode(code),
            retry_after_ms,
            text
        }),
        (flags(), varint()).prop_map(|(flags, deadline_ms)| Frame::SessionShutdown { flags, deadline_ms }),
        (varint(), text()).prop_map(|(code, text)| Frame::SessionClose { code: SessionCode(code), text }),
        (conn(), varint()).prop_map(|(conn, code)| Frame::CloseReq { conn, code: StreamCode(code) }),
        conn().prop_map(|conn| Frame::CloseAck { conn }),
        conn().prop_map(|conn| Frame::PauseReq { conn }),
        conn().prop_map(|conn| Frame::PauseAck { conn }),
        (conn(), varint(), varint(), varint(), flags(), varint(), any::<Option<[u8; 16]>>()).prop_map(
            |(conn, generation, received, sent, flags, code, partner)| {
                ResumeReq { conn, generation, received, sent, flags, code: StreamCode(code) }.frame(partner.map(Tag))
            }
        ),
        (conn(), varint(), varint(), varint(), flags()).prop_map(|(conn, status, generation, received, flags)| {
            Frame::ResumeAck(ResumeAck { conn, status: StreamCode(status), generation, received, flags })
        }),
        proptest::collection::vec(
            (conn(), varint(), flags()).prop_map(|(conn, received, flags)| AckEntry { conn, received, flags }),
            1..=256
        )
        .prop_map(Frame::DataAck),
        (conn(), flags()).prop_map(|(conn, flags)| Frame::Connected { conn, flags }),
        (conn(), any::<[u8; 16]>()).prop_map(|(conn, tag)| Frame::Partner { conn, partner: Tag(tag) }),
        any::<u16>().prop_map(|weight| Frame::SetWeight { weight }),
        (any::<u16>(), varint()).prop_map(|(weight, streams)| Frame::SetWeightAck { weight, streams }),
        Just(Frame::Drained),
        (0..2u8).prop_map(|state| Frame::SessionState { state }),
        Just(Frame::ProviderStart),
        Just(Frame::ProviderStopped),
        (varint(), flags(), instances(), instances())
            .prop_map(|(number, flags, instances, retiring)| Frame::Providers { number, flags, instances, retiring }),
        varint().prop_map(|number| Frame::ProvidersAck { number }),
        (conn(), any::<[u8; 16]>()).prop_map(|(conn, instance)| Frame::Seek { conn, instance }),
        (conn(), any::<[u8; 16]>()).prop_map(|(conn, instance)| Frame::Absent { conn, instance }),
    ]
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next_frame()
}

#[test]
fn layout_of_session_open() {
    let mut bytes = Vec::new();
    let open = SessionOpen {
        version: 1,
        role: Role::Consumer,
        service: "urn:x".into(),
        instance: [7; 16],
        weight: 100,
        flags: Flags::NONE,
        hubs: Vec::new(),
    };
    Frame::SessionOpen(open.clone()).encode(&mut bytes);
    assert_eq!(bytes, [&[0x01, 27, 1, 2, 5][..], b"urn:x", &[7; 16], &[0x40, 100, 0]].concat());

    // The hubs come last, so that a hub which does not know of them leaves them unread.
    bytes.clear();
    Frame::SessionOpen(SessionOpen { hubs: vec![[8; 16], [9; 16]], ..open }).encode(&mut bytes);
    let known = [&[0x01, 60, 1, 2, 5][..], b"urn:x", &[7; 16], &[0x40, 100, 4, 2], &[8; 16], &[9; 16]].concat();
    assert_eq!(bytes, known);
    // Without the flag, what follows is not looked at.
    bytes[28] = 0;
    assert!(matches!(decode(&bytes), Ok(Some(Frame::SessionOpen(SessionOpen { hubs, .. }))) if hubs.is_empty()));
}

#[test]
fn only_the_version_of_another_version_is_read() {
    assert_eq!(decode(&[0x01, 1, 2]), Ok(Some(Frame::SessionOpenVersion { version: 2 })));
    assert_eq!(decode(&[0x01, 2, 1, 9]), Ok(Some(Frame::SessionOpenRole { role: 9 })));
}

#[test]
fn unknown_types_even_and_odd() {
    assert_eq!(decode(&[0x26, 1, 0xff]), Ok(None));
    assert_eq!(decode(&[0x26, 1, 0xff, 0x25, 0]), Ok(Some(Frame::Drained)));
    assert_eq!(decode(&[0x27, 0]), Err(FrameError::UnknownType { kind: 0x27 }));
}

#[test]
fn who_does_not_know_its_partner_names_none() {
    let values =
        ResumeReq { conn: ConnKey([7; 16]), generation: 1, received: 2, sent: 3, flags: Flags(1), code: StreamCode(0) };
    let mut bytes = Vec::new();
    values.clone().frame(Some(Tag([9; 16]))).encode(&mut bytes);
    assert_eq!(bytes, [&[0x19, 37][..], &[7; 16], &[1, 2, 3, 1, 0], &[9; 16]].concat());
    let cut = [&[0x19, 36][..], &bytes[2..38]].concat();
    assert_eq!(decode(&cut), Ok(Some(Frame::ResumeReq(values))), "what is behind the code and too short says nothing");
}

#[test]
fn limits() {
    assert_eq!(decode(&[0x25, 0x80, 0, 0x40, 1]), Err(FrameError::TooLong { kind: 0x25, length: 16_385 }));
    let range = |kind, field, value, expected| Err(FrameError::Range { kind, field, value, expected });
    assert_eq!(decode(&[0x1d, 1, 0]), range(0x1d, "count", 0, "1 to 256"));
    assert_eq!(decode(&[0x1d, 2, 0x41, 1]), range(0x1d, "count", 257, "1 to 256"));
    assert_eq!(decode(&[0x21, 4, 0x80, 1, 0, 0]), range(0x21, "weight", 65_536, "0 to 65535"));
    assert_eq!(decode(&[0x20, 1, 2]), range(0x20, "state", 2, "0 or 1"));
    assert_eq!(decode(&[0x09, 3, 0, 0x44, 1]), range(0x09, "text", 1025, "at most 1024 bytes"));
    assert_eq!(decode(&[0x09, 3, 0, 1, 0xff]), Err(FrameError::Utf8 { kind: 0x09, field: "text" }));
    assert_eq!(decode(&[0x13, 1, 0]), Err(FrameError::Short { kind: 0x13, field: "conn" }));
}

#[test]
fn integers_may_be_longer_than_needed_and_payloads_too() {
    let longer = [0x40, 0x21, 0x80, 0, 0, 9, 0xc0, 0, 0, 0, 0, 0, 0, 5, 0xaa];
    assert_eq!(decode(&longer), Ok(Some(Frame::SetWeight { weight: 5 })));
}

#[test]
fn a_weight_may_come_without_the_streams_before_it() {
    let ack = |weight, streams| Ok(Some(Frame::SetWeightAck { weight, streams }));
    assert_eq!(decode(&[0x23, 1, 5]), ack(5, 0), "from a hub of an earlier release");
    assert_eq!(decode(&[0x23, 2, 5, 9]), ack(5, 9));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut bytes = Vec::new();
    Frame::SessionClose { code: SessionCode(0), text: "é".repeat(600) + "x" }.encode(&mut bytes);
    assert_eq!(decode(&bytes), Ok(Some(Frame::SessionClose { code: SessionCode(0), text: "é".repeat(512) })));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(sent in proptest::collection::vec(frames(), 1..6), cut in 1usize..200) {
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.encode(&mut bytes);
        }
        let mut decoder = Decoder::default();
        let mut received = Vec::new();
        for piece in bytes.chunks(cut) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                received.push(frame);
            }
        }
        prop_assert_eq!(received, sent);
        prop_assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn a_cut_payload_is_short(frame in frames(), keep in 0usize..20) {
        let mut whole = Vec::new();
        let kind = frame.encode_payload(&mut whole);
        prop_assume!(keep < whole.len());
        // Cutting can also cut inside the version or a list; it is never another valid frame of the same fields.
        let cut = Frame::decode(kind, &whole[..keep]);
        prop_assert!(cut != Ok(Some(frame)));
    }
}
