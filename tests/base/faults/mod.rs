//! Tests of bad inputs and faults. `faults.md` and `fifth.md` list them with the tests that show the behaviour.

pub mod verifier;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Collects the names of the test functions in a folder and its subfolders.
fn tests(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let is_test = |part: &&str| part.starts_with("test]") || part.starts_with("tokio::test");
            for part in text.split("#[").filter(is_test) {
                let name = part.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_fault_has_its_tests_or_a_reason() {
    let root = crate::root();
    let mut names = BTreeSet::new();
    tests(&root.join("src"), &mut names);
    tests(&root.join("tests"), &mut names);
    tests(&root.join("verifier"), &mut names);
    let rows_of =
        |text: &'static str| text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")).skip(2);
    let mut numbers: Vec<String> = Vec::new();
    for row in rows_of(include_str!("faults.md")).chain(rows_of(include_str!("fifth.md"))) {
        let [number, fault, happens, shown] = row.split(" | ").collect::<Vec<&str>>()[..] else { panic!("{row}") };
        let lost: Vec<&str> = shown.split_whitespace().filter(|name| !names.contains(*name)).collect();
        assert!(lost.is_empty(), "{number}, {fault}: no test is called {lost:?}");
        // A fault without a test is left untested on purpose, so the row must give a reason.
        assert!(!shown.is_empty() || happens.len() > 80, "{number}, {fault}: neither a test nor a reason");
        numbers.push(number.to_owned());
    }
    let first = (1..=16).chain(28..=37).chain(41..=63).map(|number: u8| number.to_string());
    // The others of the fifth list are merges, numbers, outputs and secrets.
    let fifth = [3, 5].into_iter().chain(9..=11).chain(13..=14).chain(18..=27).map(|number: u8| format!("F{number}"));
    assert_eq!(numbers, first.chain(fifth).collect::<Vec<_>>());
}
