//! Waiting for an event, and the list of the tests that read a clock.
//!
//! A test waits for what it needs, and not for a time in which a fast machine would be done. `wait.md` lists the other
//! files with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Number of looks after which a test that would otherwise hang fails: more than ten minutes.
const LOOKS: u32 = 300_000;

/// Waits until `is_there` returns true. `what` names the event in the failure of a test that would hang.
pub fn until(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_there() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("it never came: {what}");
}

/// Does the same as [`until`] for a condition that is read by an asynchronous function.
pub async fn until_async(what: &str, mut is_there: impl AsyncFnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_there().await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("it never came: {what}");
}

/// Returns the files of programs in a folder.
fn programs(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_program =
        |path: &PathBuf| ["rs", "c", "cu", "py"].iter().any(|end| path.extension().is_some_and(|e| e == *end));
    let files = |path: PathBuf| if path.is_dir() { programs(&path) } else { vec![path] };
    paths.flat_map(files).filter(is_program).collect()
}

/// A test that reads a clock can fail on a busy machine.
#[test]
fn every_test_that_reads_a_clock_stands_in_the_table_with_its_reason() {
    let root = crate::root();
    let words = ["Instant", "sleep", "elapsed"];
    let mut found = BTreeSet::new();
    for path in ["tests", "src", "bench/src", "verifier"].iter().flat_map(|folder| programs(&root.join(folder))) {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        // Of a source file, only the unit tests.
        let is_test = name.starts_with("tests/") || name.contains("/tests");
        let tests = if is_test { &text[..] } else { text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests) };
        if words.iter().any(|word| tests.contains(word)) {
            found.insert(name);
        }
    }
    let rows = include_str!("wait.md").lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let rows: Vec<_> = rows.map(|row| row.split_once("` | ").unwrap()).collect();
    assert!(rows.iter().all(|(_, reason)| reason.len() > 30), "a reason is missing");
    let listed: BTreeSet<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    let difference: Vec<_> = found.symmetric_difference(&listed).collect();
    assert!(difference.is_empty(), "files that differ between the tests and wait.md: {difference:?}");
}
