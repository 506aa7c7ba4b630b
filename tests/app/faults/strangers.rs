//! Tests that text from strangers does not act on a terminal.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn nothing_that_rows_or_paths_say_acts_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a\u{1b}]0;mine\u{7}\u{9b}31m.yaml");
    let run = |path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let output = command.args(["sft".as_ref(), path.as_os_str()]).args(["--out", "o"]).current_dir(&dir).output();
        let text = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        text
    };
    assert!(run(&path).contains("a\\u{1b}]0;mine\\u{7}\\u{9b}31m.yaml"));
    fs::write(&path, "model: \"\\e[2J\"\n").unwrap();
    assert!(run(&path).contains("\\u{1b}[2J"));
}
