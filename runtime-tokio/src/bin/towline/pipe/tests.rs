//! Both tools on inputs that come in pieces of any size.

use std::io::BufReader;

use super::*;

const CALL: &str = r#"{"type":"open","pipe_id":1,"priority":0,"function_id":10,"params":[{"t":"str","v":"towline"}]}"#;
const END: &str = r#"{"type":"control","code":67,"data":""}"#;
const CALL_BYTES: &[u8] = b"\x28\x01\x00\x0a\x01\x0b\xa7towline";
const END_BYTES: &[u8] = b"\x2aC\xa0";

fn form(hex: bool) -> Form {
    Form { codec: CodecName::Msgpack, hex }
}

/// What `decode` prints, and its exit code, from pieces of that size.
fn decoded(hex: bool, input: &[u8], size: usize) -> (Vec<String>, ExitCode) {
    let mut output = Vec::new();
    let code = decode(&form(hex), &mut BufReader::with_capacity(size, input), &mut output).unwrap();
    (String::from_utf8(output).unwrap().lines().map(str::to_owned).collect(), code)
}

#[track_caller]
fn decodes(hex: bool, input: &[u8], lines: &[&str], code: u8) {
    for size in [1, 2, 5, 8192] {
        let (found, ended) = decoded(hex, input, size);
        assert_eq!(found, lines, "in pieces of {size}");
        assert_eq!(ended, code.into());
    }
}

fn encoded(hex: bool, input: &[u8]) -> (Vec<u8>, Result<(), Error>) {
    let mut output = Vec::new();
    let ended = encode(&form(hex), &mut { input }, &mut output);
    (output, ended)
}

#[test]
fn messages_are_printed_one_a_line() {
    decodes(false, b"", &[], 0);
    decodes(false, &[CALL_BYTES, END_BYTES].concat(), &[CALL, END], 0);
    decodes(true, b" 2801 000a\r\n01 0bA7 746f776c696e65\n2a43a 0\t", &[CALL, END], 0);
    decodes(true, b" \n", &[], 0);
}

#[test]
fn the_last_line_says_how_the_input_ends() {
    let end = |lines: &str| lines.to_owned();
    decodes(false, &[CALL_BYTES, &END_BYTES[..2]].concat(), &[CALL, &end(r#"{"incomplete":2,"offset":14}"#)], 0);
    decodes(false, &CALL_BYTES[..13], &[r#"{"incomplete":13,"offset":0}"#], 0);
    let unknown = r#"{"error":"unknown-tag","offset":19,"detail":"value tag 35; expected 0 to 8, 10 to 12 or 32 to 34; the message begins at byte 14"}"#;
    decodes(false, &[CALL_BYTES, b"\x28\x01\x00\x0a\x01\x23 and more"].concat(), &[CALL, unknown], 1);
    let large = r#"{"error":"too-large","offset":6,"detail":"134217727 bytes of a binary; the limit is 65496; the message begins at byte 0"}"#;
    decodes(false, b"\x28\x01\x00\x0a\x01\x0a\xdb\x07\xff\xff\xff", &[large], 1);
}

#[test]
fn what_is_no_hex_is_an_error_behind_the_messages_before() {
    let stray = r#"{"error":"no-hex","offset":4,"detail":"'g'; expected hex digits and white space"}"#;
    decodes(true, b"2a43a0 28g1", &[END, stray], 1);
    let half = r#"{"error":"no-hex","offset":3,"detail":"one hex digit; expected pairs of them"}"#;
    decodes(true, b"2a43a0 2", &[END, half], 1);
}

#[test]
fn lines_are_encoded_and_blank_ones_skipped() {
    let input = format!("\n{CALL}\r\n  \n{END}");
    let (output, ended) = encoded(false, input.as_bytes());
    assert!(ended.is_ok());
    assert_eq!(output, [CALL_BYTES, END_BYTES].concat());
    let (output, ended) = encoded(true, input.as_bytes());
    assert!(ended.is_ok());
    assert_eq!(output, b"2801000a010ba7746f776c696e65\n2a43a0\n");
    assert_eq!(encoded(false, b"").0, b"");
}

#[test]
fn a_line_that_is_no_message_is_named() {
    let big = format!(r#"{{"type":"block","pipe_id":1,"eof":false,"loss":0,"payload":"{}"}}"#, "00".repeat(61_440));
    let long = " ".repeat(LINE_MAX as usize + 1);
    for (line, expected) in [
        (&b"{}"[..], "line 3: missing field `type`"),
        (b"\xff", "line 3: no UTF-8"),
        (
            big.as_bytes(),
            "line 3: cannot be sent: 61440 bytes of a payload; the limit is 61439; send less, or several messages",
        ),
        (long.as_bytes(), "line 3: longer than 16777216 bytes"),
    ] {
        let input = [END.as_bytes(), b"\n\n", line, b"\n", END.as_bytes()].concat();
        let (output, ended) = encoded(false, &input);
        let error = ended.unwrap_err();
        assert_eq!((&*output, error.exit_code()), (END_BYTES, 1), "what came before is written, and nothing else");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
