//! Bytes that were captured from other programs. They are not part of this project: users who have them put them beside it, or set `TOWLINE_VECTORS`.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

use crate::needs;

/// The folder with the vectors of a protocol. If it is missing, reports that; the test then ends.
#[must_use]
pub fn folder(protocol: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"));
    let folder = env::var_os("TOWLINE_VECTORS").map_or_else(beside, PathBuf::from).join(protocol);
    if folder.is_dir() {
        return Some(folder);
    }
    needs::skip_vectors(&format!(
        "there are no vectors of {protocol}: {} is no folder (TOWLINE_VECTORS says where they are)",
        folder.display()
    ));
    None
}

/// The JSON files of a folder, in the order of their names.
#[must_use]
pub fn cases(folder: &PathBuf) -> Vec<Value> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no cases", folder.display());
    let read = |path: PathBuf| {
        let text = fs::read(&path).expect("a readable file");
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.into_iter().map(read).collect()
}

/// The bytes of a hexadecimal text.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.len().is_multiple_of(2).then(|| digits.chunks(2));
    pairs?.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
