//! `towline pipe`: messages of Pipe RPC as bytes and as JSON.

use std::{
    io::{self, BufRead, BufWriter, Read, Write},
    process::ExitCode,
};

use bytes::{Bytes, BytesMut};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use towline_core::pipe::{
    codec::{Codec, DecodeError, EncodeError, Receiver},
    json,
    msgpack::MsgPack,
    simple::Simple,
};

use crate::failure::{self, Failure};

#[derive(Subcommand)]
pub(crate) enum Tool {
    /// Reads the bytes of one direction of a connection from standard input and prints messages
    #[command(after_help = DECODE_HELP)]
    Decode(Form),
    /// Reads messages from standard input, one a line, and writes their bytes
    #[command(after_help = ENCODE_HELP)]
    Encode(Form),
}

#[derive(Args)]
pub(crate) struct Form {
    /// Codec of the connection
    #[arg(long, value_enum)]
    codec: CodecName,
    /// Bytes are hex digits; between them there may be white space. `encode` writes a line for each message
    #[arg(long)]
    hex: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CodecName {
    Msgpack,
    Simple,
}

impl CodecName {
    fn codec(self) -> Box<dyn Codec> {
        match self {
            Self::Msgpack => Box::<MsgPack>::default(),
            Self::Simple => Box::<Simple>::default(),
        }
    }
}

const DECODE_HELP: &str = "\
Each line of output is a message, for example {\"type\": \"control\", \"code\": 67, \"data\": \"\"}. If the input ends inside a message, the last
line is {\"incomplete\": BYTES, \"offset\": N}: so many bytes of it, which begin at byte N. If the input is no message, the last line is
{\"error\": NAME, \"offset\": N, \"detail\": TEXT}: what begins at byte N cannot be.

Exit code: 0 success, 1 input that is no message, 2 wrong usage or I/O error.";

const ENCODE_HELP: &str = "\
Each line of input is a message as `towline pipe decode` prints it. At the first line that is none, or that is over a limit, it stops.

Exit code: 0 success, 1 a line that cannot be encoded, 2 wrong usage or I/O error.";

/// The longest line that `encode` reads, in bytes: several times what any message needs.
const LINE_MAX: u64 = 16 << 20;

/// Why the tool failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("line {line}: {why}")]
    Line { line: u64, why: LineError },
    #[error("cannot read standard input: {0}")]
    Read(io::Error),
    #[error("cannot write to standard output: {0}")]
    Write(io::Error),
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("{0}; give one message, as `towline pipe decode` prints it")]
    Message(#[from] json::Error),
    #[error("no UTF-8; give one message, as `towline pipe decode` prints it")]
    Text(#[from] std::str::Utf8Error),
    #[error("longer than {LINE_MAX} bytes; give one message, as `towline pipe decode` prints it")]
    Long,
    #[error("cannot be sent: {0}; send less, or several messages")]
    Limit(#[from] EncodeError),
}

impl Failure for Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Line { .. } => 1,
            Self::Read(_) | Self::Write(_) => 2,
        }
    }

    fn of_output(&self) -> Option<&io::Error> {
        match self {
            Self::Write(error) => Some(error),
            Self::Line { .. } | Self::Read(_) => None,
        }
    }
}

pub(crate) fn main(tool: Tool) -> ExitCode {
    let (input, output) = (&mut io::stdin().lock(), &mut io::stdout().lock());
    failure::exit_code(match tool {
        Tool::Decode(form) => decode(&form, input, output),
        Tool::Encode(form) => encode(&form, input, output).map(|()| ExitCode::SUCCESS),
    })
}

/// The last line of `decode`, unless its input ends behind a message.
#[derive(Serialize)]
#[serde(untagged)]
enum Last {
    Incomplete { incomplete: u64, offset: u64 },
    Error { error: &'static str, offset: u64, detail: String },
}

fn decode(form: &Form, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<ExitCode, Error> {
    let mut output = BufWriter::new(output);
    let (mut receiver, mut digits, mut read) = (Receiver::new(form.codec.codec()), Digits::default(), 0);
    loop {
        let bytes = next_piece(input).map_err(Error::Read)?;
        let is_end = bytes.is_empty();
        let (bytes, stray) = if form.hex { digits.bytes(&bytes) } else { (bytes, None) };
        read += bytes.len() as u64;
        receiver.push(bytes);
        let malformed = loop {
            match receiver.next_message() {
                Ok(Some(message)) => writeln!(output, "{}", json::to_line(&message)).map_err(Error::Write)?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let begins = receiver.taken();
        let last = match (malformed, stray) {
            (Some(DecodeError { offset, fault }), _) => {
                let detail = format!("{fault}; the message begins at byte {begins}");
                Some(Last::Error { error: fault.name(), offset: begins + offset as u64, detail })
            }
            (None, Some(detail)) => Some(Last::Error { error: "no-hex", offset: read, detail }),
            (None, None) if is_end && digits.is_half() => {
                let detail = "one hex digit; expected pairs of them".to_owned();
                Some(Last::Error { error: "no-hex", offset: read, detail })
            }
            (None, None) if is_end && begins < read => {
                Some(Last::Incomplete { incomplete: read - begins, offset: begins })
            }
            (None, None) => None,
        };
        if let Some(last) = &last {
            let line = serde_json::to_string(last).map_err(|error| Error::Write(error.into()))?;
            writeln!(output, "{line}").map_err(Error::Write)?;
        }
        // What is read is said at once: a person or a program may be at the other end.
        output.flush().map_err(Error::Write)?;
        match last {
            Some(Last::Error { .. }) => return Ok(ExitCode::from(1)),
            _ if is_end => return Ok(ExitCode::SUCCESS),
            _ => {}
        }
    }
}

/// What has come; empty at the end.
fn next_piece(input: &mut dyn BufRead) -> io::Result<Bytes> {
    let piece = loop {
        match input.fill_buf() {
            Ok(piece) => break Bytes::copy_from_slice(piece),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    input.consume(piece.len());
    Ok(piece)
}

/// Hex digits that come in pieces.
#[derive(Default)]
struct Digits {
    /// The first digit of a pair.
    first: Option<u8>,
}

impl Digits {
    /// The bytes of a piece, and what is wrong behind them.
    fn bytes(&mut self, piece: &[u8]) -> (Bytes, Option<String>) {
        let mut bytes = BytesMut::with_capacity(piece.len().div_ceil(2));
        for &byte in piece.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            let Some(digit) = char::from(byte).to_digit(16) else {
                let found = char::from(byte).escape_default();
                return (bytes.freeze(), Some(format!("'{found}'; expected hex digits and white space")));
            };
            match self.first.take() {
                None => self.first = Some(digit as u8),
                Some(first) => bytes.extend_from_slice(&[first << 4 | digit as u8]),
            }
        }
        (bytes.freeze(), None)
    }

    fn is_half(&self) -> bool {
        self.first.is_some()
    }
}

fn encode(form: &Form, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), Error> {
    let codec = form.codec.codec();
    let (mut text, mut bytes) = (Vec::new(), BytesMut::new());
    for line in 1.. {
        text.clear();
        input.take(LINE_MAX + 1).read_until(b'\n', &mut text).map_err(Error::Read)?;
        if text.is_empty() {
            break;
        }
        bytes.clear();
        encode_line(&*codec, &text, &mut bytes).map_err(|why| Error::Line { line, why })?;
        if form.hex && !bytes.is_empty() { writeln!(output, "{bytes:x}") } else { output.write_all(&bytes) }
            .and_then(|()| output.flush())
            .map_err(Error::Write)?;
    }
    Ok(())
}

/// Appends the message of a line; blank ones have none.
fn encode_line(codec: &dyn Codec, line: &[u8], out: &mut BytesMut) -> Result<(), LineError> {
    if line.len() as u64 > LINE_MAX {
        return Err(LineError::Long);
    }
    let line = std::str::from_utf8(line)?.trim();
    if !line.is_empty() {
        codec.encode(&json::from_line(line)?, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
