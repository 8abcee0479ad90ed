//! Settings from options, the environment and an environment file, in that order (docs/protocols/spn.md, Settings, SET-6, SET-8, SET-9).

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// `KEY=value` lines of a file.
#[derive(Debug, Default)]
pub struct EnvFile {
    values: BTreeMap<String, Line>,
    directory: PathBuf,
}

/// The value of a key.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    value: String,
    /// Its first line, from 1.
    line: usize,
}

/// The origin of a setting, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The command line.
    Option,
    /// The environment of the process.
    Environment,
    /// The environment file.
    File,
}

/// A setting that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its index among the requested settings, from 0.
    pub which: usize,
    /// Its value.
    pub value: String,
    /// Its origin.
    pub origin: Origin,
}

/// An error in the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read {path} ({what}): {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The setting that it has.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A line of the environment file is not `KEY=value`.
    #[error("{path}, line {line}: expected {expected}, found `{text}`")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The text of the line.
        text: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A required setting is missing.
    #[error("{what} is not set: give --{option}, or {variable} in the environment or in the --env-file")]
    Missing {
        /// The setting, in words.
        what: &'static str,
        /// The long option.
        option: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// A setting has an invalid value.
    #[error("--{option} or {variable} is `{value}`: expected {expected}")]
    Value {
        /// The long option.
        option: &'static str,
        /// The variable.
        variable: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl EnvFile {
    /// Reads a file as shells, containers and service managers do: `KEY=value` lines, with or without `export` before them, and comments.
    /// A value in quotes is the text between them, which may have several lines; in double quotes `\n`, `\r`, `\t`, `\"`, `\$` and `\\` have their
    /// usual meaning. Nothing is substituted.
    ///
    /// # Errors
    /// The file cannot be read, or a line is malformed.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = read_text(path).map_err(|error| SettingsError::Read {
            path: path.to_owned(),
            what: "environment file".to_owned(),
            error,
        })?;
        let wrong = |(line, text, expected)| SettingsError::Line { path: path.to_owned(), line, text, expected };
        let values = parse(&text).map_err(wrong)?;
        Ok(Self { values, directory: path.parent().map(Path::to_owned).unwrap_or_default() })
    }

    /// Keys that are not in `known`, with their lines: they have no effect, and may be misspelt.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Vec<(usize, &str)> {
        let unknown = self.values.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        let mut unknown: Vec<(usize, &str)> = unknown.map(|(key, value)| (value.line, key.as_str())).collect();
        unknown.sort_unstable();
        unknown
    }

    /// A setting: the option, else the variable, else the file's line. An empty variable counts as not set.
    #[must_use]
    pub fn text(&self, option: Option<&str>, variable: &str) -> Option<String> {
        self.first(&[(option, variable)]).map(|found| found.value)
    }

    /// The effective one of several settings for the same thing: any option precedes any variable, which precedes any line of the
    /// file; of one kind, the first in the list precedes the others.
    #[must_use]
    pub fn first(&self, settings: &[(Option<&str>, &str)]) -> Option<Found> {
        let value = |origin, (option, variable): (Option<&str>, &str)| match origin {
            Origin::Option => option.map(str::to_owned),
            Origin::Environment => env::var(variable).ok().filter(|value| !value.is_empty()),
            Origin::File => {
                self.values.get(variable).map(|line| &line.value).filter(|value| !value.is_empty()).cloned()
            }
        };
        [Origin::Option, Origin::Environment, Origin::File].into_iter().find_map(|origin| {
            let mut found = settings.iter().enumerate();
            found.find_map(|(which, setting)| value(origin, *setting).map(|value| Found { which, value, origin }))
        })
    }

    /// The path in a setting. A path from the environment file is relative to that file.
    #[must_use]
    pub fn path(&self, found: &Found) -> PathBuf {
        match found.origin {
            Origin::Option | Origin::Environment => PathBuf::from(&found.value),
            Origin::File => self.directory.join(&found.value),
        }
    }
}

/// Reads a text that may have been written on any system: in UTF-8, or in UTF-16 with a byte-order mark. The mark is not
/// part of the result.
///
/// # Errors
/// The file cannot be read, or is no text.
pub fn read_text(path: &Path) -> io::Result<String> {
    fs::read(path).and_then(text_of)
}

/// Decodes a text as [`read_text`] does.
pub(crate) fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    let no_text = || io::Error::new(io::ErrorKind::InvalidData, "not text in UTF-8 or UTF-16");
    let wide = |of: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().skip(1).map(|unit| of(*unit)).collect();
        rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten().ok_or_else(no_text)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => {
            let mut text = String::from_utf8(bytes).map_err(|_| no_text())?;
            if text.starts_with('\u{feff}') {
                text.remove(0);
            }
            Ok(text)
        }
    }
}

const KEY_AND_VALUE: &str = "KEY=value or a # comment";
const END_OF_QUOTE: &str = "a closing quote";

/// Parses `KEY=value` lines. An error has the number and the text of the malformed line, and what was expected.
fn parse(text: &str) -> Result<BTreeMap<String, Line>, (usize, String, &'static str)> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let wrong = |expected| (number + 1, line.to_owned(), expected);
        let (key, value) = line.split_once('=').ok_or_else(|| wrong(KEY_AND_VALUE))?;
        let key = match key.trim().split_once(char::is_whitespace) {
            Some(("export", key)) => key.trim(),
            _ => key.trim(),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong(KEY_AND_VALUE));
        }
        let value = value.trim();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        let value = match quote {
            None => plain(value).to_owned(),
            Some(quote) => {
                let mut quoted = value.to_owned();
                loop {
                    match unquote(&quoted, quote) {
                        Some((inner, rest)) if rest.trim().is_empty() || rest.trim_start().starts_with('#') => {
                            break inner;
                        }
                        // More text follows the quotes: they are part of the value.
                        Some(_) => break plain(&quoted).to_owned(),
                        None => {
                            let (_, next) = lines.next().ok_or_else(|| wrong(END_OF_QUOTE))?;
                            quoted.push('\n');
                            quoted.push_str(next);
                        }
                    }
                }
            }
        };
        values.insert(key.to_owned(), Line { value, line: number + 1 });
    }
    Ok(values)
}

/// A value without its comment, which begins with a space and `#`.
fn plain(value: &str) -> &str {
    let comment = value
        .char_indices()
        .zip(value.chars().skip(1))
        .find(|((_, first), second)| first.is_whitespace() && *second == '#');
    comment.map_or(value, |((at, _), _)| &value[..at]).trim_end()
}

/// The text between the quotes at the beginning, and the rest; `None` if the second quote is missing.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((inner, &text[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => inner.push('\n'),
                'r' => inner.push('\r'),
                't' => inner.push('\t'),
                c @ ('"' | '\\' | '$') => inner.push(c),
                // No known escape: perhaps a path of Windows.
                c => inner.extend(['\\', c]),
            },
            c => inner.push(c),
        }
    }
    None
}

/// Checks the address of a TCP service, and returns it.
///
/// # Errors
/// The text is not `HOST:PORT`; the error is the expected form.
pub fn host_and_port(text: &str) -> Result<String, &'static str> {
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
        is_host && port.parse::<u16>().is_ok()
    });
    if is_good { Ok(text.to_owned()) } else { Err(HOST_AND_PORT) }
}

/// The form that [`host_and_port`] expects.
pub const HOST_AND_PORT: &str = "HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080";

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.env");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn paths_are_relative_to_the_file_and_quotes_within_a_value_stand_for_themselves() {
        let (directory, path) = file("# comment\n\nTOWLINE_T_A=a \"b\" = c\nTOWLINE_T_P=ca.pem\nTOWLINE_T_ABS=/x/y\n");
        let file = EnvFile::read(&path).unwrap();
        assert_eq!(file.text(None, "TOWLINE_T_A").as_deref(), Some("a \"b\" = c"));
        assert_eq!(file.text(Some("option"), "TOWLINE_T_A").as_deref(), Some("option"));
        assert_eq!(file.text(None, "TOWLINE_T_NONE"), None);
        let path = |option, variable| file.first(&[(option, variable)]).map(|found| file.path(&found));
        assert_eq!(path(None, "TOWLINE_T_P"), Some(directory.path().join("ca.pem")));
        assert_eq!(path(None, "TOWLINE_T_ABS"), Some(PathBuf::from("/x/y")));
        assert_eq!(path(Some("o.pem"), "TOWLINE_T_P"), Some(PathBuf::from("o.pem")));
    }

    #[test]
    fn an_option_counts_before_a_line_of_the_file_of_whichever_name() {
        let (_directory, path) = file("TOWLINE_T_HOST=h\nTOWLINE_T_URL=u\n");
        let file = EnvFile::read(&path).unwrap();
        let which = |host, url| {
            let found = file.first(&[(host, "TOWLINE_T_HOST"), (url, "TOWLINE_T_URL")]).unwrap();
            (found.which, found.value, found.origin)
        };
        assert_eq!(which(None, None), (0, "h".to_owned(), Origin::File));
        assert_eq!(which(None, Some("x")), (1, "x".to_owned(), Origin::Option));
        assert_eq!(which(Some("y"), Some("x")), (0, "y".to_owned(), Origin::Option));
    }

    #[test]
    fn what_people_write_is_read_as_they_meant_it() {
        let text = "\u{feff}# from Windows\r\nA=plain \r\n export B = \"two words\" # both\r\nC='it''s\\n'\nC='single \\n'\nD=\"a\\n\\\"b\\\" \\$c C:\\dir\"\n\
            E=50 # half\nF=a#b\nG=\"one\ntwo\"\nH=\nI=\"\"\nexport=J\nK=a=b\n";
        for (encoding, bytes) in [
            ("UTF-8", text.as_bytes().to_vec()),
            ("UTF-16 LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("UTF-16 BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ] {
            let values = parse(&text_of(bytes).unwrap()).unwrap();
            let values: Vec<(&str, &str)> =
                values.iter().map(|(key, line)| (key.as_str(), line.value.as_str())).collect();
            let expected = [
                ("A", "plain"),
                ("B", "two words"),
                ("C", "single \\n"),
                ("D", "a\n\"b\" $c C:\\dir"),
                ("E", "50"),
                ("F", "a#b"),
                ("G", "one\ntwo"),
                ("H", ""),
                ("I", ""),
                ("K", "a=b"),
                ("export", "J"),
            ];
            assert_eq!(values, expected, "{encoding}");
        }
        assert_eq!(parse("A=1\nB=\"x\nC=2\n").unwrap_err(), (2, "B=\"x".to_owned(), END_OF_QUOTE));
        assert_eq!(parse("A B=1\n").unwrap_err().2, KEY_AND_VALUE);
        assert!(text_of(vec![0xff, 0xfe, 1]).is_err() && text_of(vec![0xc0]).is_err());
    }

    #[test]
    fn keys_that_nobody_reads_are_found() {
        let (_directory, path) = file("B=1\n\nSPN_HUB_HOSTNAM=h\nA=2\n");
        assert_eq!(EnvFile::read(&path).unwrap().unknown(&["A"]), [(1, "B"), (3, "SPN_HUB_HOSTNAM")]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let (_directory, path) = file("A=1\nnonsense\n");
        let error = EnvFile::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("a.env, line 2: expected KEY=value or a # comment, found `nonsense`"), "{error}");
    }

    #[test]
    fn services_have_a_host_and_a_port() {
        for good in ["127.0.0.1:80", "localhost:65535", "[::1]:1"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["", "80", "localhost", ":80", "a:", "a:65536", "::1:80", "a:b"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
