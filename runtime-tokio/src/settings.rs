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
    #[error("{variable} is `{value}`: expected {expected}")]
    Value {
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
        option
            .map(str::to_owned)
            .or_else(|| env::var(variable).ok().filter(|value| !value.is_empty()))
            .or_else(|| self.values.get(variable).filter(|value| !value.is_empty()).cloned())
    }

    /// A setting that is a path: in the file it is relative to the file.
    #[must_use]
    pub fn path(&self, option: Option<&Path>, variable: &str) -> Option<PathBuf> {
        option
            .map(Path::to_owned)
            .or_else(|| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
            .or_else(|| {
                self.values.get(variable).filter(|value| !value.is_empty()).map(|value| self.directory.join(value))
            })
    }
}

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
        assert_eq!(file.path(None, "TOWLINE_T_P"), Some(directory.path().join("ca.pem")));
        assert_eq!(file.path(None, "TOWLINE_T_ABS"), Some(PathBuf::from("/x/y")));
        assert_eq!(file.path(Some(Path::new("o.pem")), "TOWLINE_T_P"), Some(PathBuf::from("o.pem")));
    }

    #[test]
    fn a_bad_line_is_named() {
        let (_directory, path) = file("A=1\nnonsense\n");
        let error = EnvFile::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("a.env, line 2: expected KEY=value or a # comment, found `nonsense`"), "{error}");
    }
}
