//! Every link and citation in the documents and the code has a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Files with that extension, but for what cargo makes.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if entry.is_dir() && name != "target" && !name.starts_with('.') {
            files(&entry, extension, found);
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
}

/// Headings as GitHub makes anchors of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut documents = Vec::new();
    files(&root(), "md", &mut documents);
    assert!(documents.len() > 5);
    let mut faults = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).expect("text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            let is_there = target.exists()
                && anchor
                    .is_none_or(|anchor| fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)));
            if !is_there {
                faults.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn comments_cite_chapters_that_exist() {
    let mut sources = Vec::new();
    files(&root(), "rs", &mut sources);
    let read =
        |path: &PathBuf| fs::read_to_string(path).expect("text").replace("\n//! ", " ").replace("\n    /// ", " ");
    let sources: Vec<(PathBuf, String)> = sources.into_iter().map(|path| (path.clone(), read(&path))).collect();
    for (name, least) in [("pipe.md", 10), ("spn.md", 10), ("txn.md", 0)] {
        let name = format!("docs/protocols/{name}");
        let reference = fs::read_to_string(root().join(&name)).expect("the reference");
        let chapters: Vec<&str> =
            reference.lines().filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### "))).collect();
        let (mut citations, mut faults) = (0, Vec::new());
        for (source, text) in &sources {
            for rest in text.split(&format!("{name}, ")).skip(1) {
                citations += 1;
                if !chapters.iter().any(|chapter| rest.starts_with(chapter)) {
                    faults.push(format!("{}: {}", source.display(), rest.chars().take(30).collect::<String>()));
                }
            }
        }
        assert!(citations > least && faults.is_empty(), "{name}: {citations} citations; {faults:#?}");
    }
}

/// The ids of rules, as `ABC-12`, in any text.
fn rule_ids(text: &str) -> impl Iterator<Item = &str> {
    let is_id = |word: &&str| {
        word.split_once('-').is_some_and(|(prefix, number)| {
            prefix.len() == 3
                && prefix.bytes().all(|byte| byte.is_ascii_uppercase())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(is_id)
}

/// The rules that the references define: rows of tables that begin with an id. What it maps to is how often.
fn rules() -> BTreeMap<String, usize> {
    let mut references = Vec::new();
    files(&root().join("docs/protocols"), "md", &mut references);
    let mut rules = BTreeMap::new();
    for reference in references {
        let text = fs::read_to_string(reference).expect("text");
        let first_cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        for (id, _) in first_cells.filter(|(cell, _)| rule_ids(cell).next() == Some(*cell)) {
            *rules.entry(id.to_owned()).or_default() += 1;
        }
    }
    rules
}

#[test]
fn rule_ids_are_unique() {
    let rules = rules();
    let twice: Vec<_> = rules.iter().filter(|(_, count)| **count > 1).collect();
    assert!(rules.len() > 10 && twice.is_empty(), "{} rules; defined twice: {twice:?}", rules.len());
}

#[test]
fn rules_that_are_cited_exist() {
    let rules = rules();
    let prefixes: BTreeSet<&str> = rules.keys().filter_map(|id| id.split('-').next()).collect();
    let mut texts = Vec::new();
    files(&root(), "rs", &mut texts);
    files(&root(), "md", &mut texts);
    let mut faults = Vec::new();
    for path in texts {
        let text = fs::read_to_string(&path).expect("text");
        for id in rule_ids(&text).filter(|id| prefixes.contains(&id[..3]) && !rules.contains_key(*id)) {
            faults.push(format!("{}: {id}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn tests_that_hold_something_exist() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).expect("the document");
    let mut sources = Vec::new();
    files(&root(), "rs", &mut sources);
    let (mut citations, mut faults) = (0, Vec::new());
    for cited in text.split('`').skip(1).step_by(2).filter(|code| code.contains("::") && !code.contains([' ', '…'])) {
        citations += 1;
        // The name of a test behind that of its file, or of the modules down to it.
        let (place, name) = cited.rsplit_once("::").expect("two parts");
        let place = place.replace("::", "/");
        let is_there = sources.iter().any(|source| {
            let is_its = source.with_extension("").ends_with(&place);
            is_its && fs::read_to_string(source).expect("text").contains(&format!("fn {name}("))
        });
        if !is_there {
            faults.push(cited);
        }
    }
    assert!(citations > 30 && faults.is_empty(), "{citations} citations; {faults:#?}");
}
