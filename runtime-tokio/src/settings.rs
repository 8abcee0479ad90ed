//! Settings from options, the environment and an environment file, in that order (docs/protocols/spn.md, Settings).

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// `KEY=value` lines of a file.
#[derive(Debug, Default)]
pub struct EnvFile {
    values: BTreeMap<String, String>,
    directory: PathBuf,
}

/// Where a setting is from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The command line.
    Option,
    /// The environment of the process.
    Environment,
    /// The environment file.
    File,
}

/// A setting that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which of those that were asked for, from 0.
    pub which: usize,
    /// Its value.
    pub value: String,
    /// Where it is from.
    pub origin: Origin,
}

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("cannot read {path} ({what}): {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What it was to give.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A line of the environment file is no `KEY=value`.
    #[error("{path}, line {line}: expected KEY=value or a # comment, found `{text}`")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// A setting that must be there is not.
    #[error("{what} is not set: give --{option}, or {variable} in the environment or in the --env-file")]
    Missing {
        /// What it is.
        what: &'static str,
        /// The long option.
        option: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("--{option} or {variable} is `{value}`: expected {expected}")]
    Value {
        /// The long option.
        option: &'static str,
        /// The variable.
        variable: &'static str,
        /// What came.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl EnvFile {
    /// Reads a file. Values are taken as they stand: no quotes, no substitution.
    ///
    /// # Errors
    /// A file or line that cannot be read.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path).map_err(|error| SettingsError::Read {
            path: path.to_owned(),
            what: "environment file".to_owned(),
            error,
        })?;
        let mut values = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                let (path, line, text) = (path.to_owned(), number + 1, line.to_owned());
                return Err(SettingsError::Line { path, line, text });
            };
            values.insert(key.trim().to_owned(), value.to_owned());
        }
        Ok(Self { values, directory: path.parent().map(Path::to_owned).unwrap_or_default() })
    }

    /// A setting: the option, or the variable, or the file's line. An empty variable counts as not set.
    #[must_use]
    pub fn text(&self, option: Option<&str>, variable: &str) -> Option<String> {
        self.first(&[(option, variable)]).map(|found| found.value)
    }

    /// Of several settings for the same thing the one that counts: any option goes before any variable, that before any line of the
    /// file, and of one kind the one that is listed first.
    #[must_use]
    pub fn first(&self, settings: &[(Option<&str>, &str)]) -> Option<Found> {
        let value = |origin, (option, variable): (Option<&str>, &str)| match origin {
            Origin::Option => option.map(str::to_owned),
            Origin::Environment => env::var(variable).ok().filter(|value| !value.is_empty()),
            Origin::File => self.values.get(variable).filter(|value| !value.is_empty()).cloned(),
        };
        [Origin::Option, Origin::Environment, Origin::File].into_iter().find_map(|origin| {
            let mut found = settings.iter().enumerate();
            found.find_map(|(which, setting)| value(origin, *setting).map(|value| Found { which, value, origin }))
        })
    }

    /// The path that a value of the file stands for: it is relative to the file.
    #[must_use]
    pub fn path(&self, found: &Found) -> PathBuf {
        match found.origin {
            Origin::Option | Origin::Environment => PathBuf::from(&found.value),
            Origin::File => self.directory.join(&found.value),
        }
    }
}

/// A TCP service to dial.
///
/// # Errors
/// It is no `HOST:PORT`.
pub fn host_and_port(text: &str) -> Result<String, &'static str> {
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
        is_host && port.parse::<u16>().is_ok()
    });
    if is_good { Ok(text.to_owned()) } else { Err(HOST_AND_PORT) }
}

/// What [`host_and_port`] expects.
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
    fn values_are_taken_as_they_stand_and_paths_are_relative_to_the_file() {
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
