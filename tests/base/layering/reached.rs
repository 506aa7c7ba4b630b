//! Tests that every file of code is part of a crate: a file that no `mod` declares is not compiled, and its tests do not
//! run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sources;

/// Adds `file` and the files of the modules that it declares.
fn reach(file: &Path, found: &mut BTreeSet<PathBuf>) {
    if !found.insert(file.to_owned()) {
        return;
    }
    let own = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| file.ends_with(name));
    let folder = if own { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    let text = fs::read_to_string(file).unwrap();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(named) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(file.parent().unwrap().join(named));
        } else if let Some(name) = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")) {
            let visible = name.0.is_empty() || name.0.starts_with("pub");
            let places = [folder.join(format!("{}.rs", name.1)), folder.join(name.1).join("mod.rs")];
            let place = path.take().or_else(|| places.into_iter().find(|place| place.is_file()));
            if let Some(place) = place.filter(|_| visible) {
                reach(&place, found);
            }
        }
    }
}

#[test]
fn every_file_is_declared_by_a_module() {
    let (mut left, mut count) = (Vec::new(), 0);
    for folder in ["src", "bench/src", "tests"] {
        let files = sources(&crate::root().join(folder));
        let is_root = |file: &&PathBuf| ["lib.rs", "main.rs", "build.rs"].iter().any(|name| file.ends_with(name));
        let mut found = BTreeSet::new();
        files.iter().filter(is_root).for_each(|file| reach(file, &mut found));
        count += files.len();
        left.extend(files.into_iter().filter(|file| !found.contains(file)));
    }
    assert!(count > 0 && left.is_empty(), "no module declares {left:#?}");
}

#[test]
fn a_file_without_a_declaration_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("b/c")).unwrap();
    for (name, text) in [
        ("lib.rs", "pub mod a;\nmod b;\n"),
        ("a.rs", "// mod lost;\n"),
        ("b/mod.rs", "pub(crate) mod c;\n"),
        ("b/c/mod.rs", ""),
        ("lost.rs", ""),
        ("b/lost.rs", ""),
    ] {
        fs::write(at(name), text).unwrap();
    }
    let mut found = BTreeSet::new();
    reach(&at("lib.rs"), &mut found);
    assert_eq!(found, ["lib.rs", "a.rs", "b/mod.rs", "b/c/mod.rs"].map(at).into());
}
