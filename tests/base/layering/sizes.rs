//! Tests that no file is too long to be read at once.

use std::fs;
use std::path::{Path, PathBuf};

/// Maximum number of lines of a code file.
const LINES: usize = 500;

/// Folders of data.
const DATA: &[&str] = &["tests/goldens", "verifier/tests/data", "bench/results"];

/// File extensions of code. A tool has no extension.
const CODE: &[&str] = &["rs", "cu", "cuh", "h", "cpp", "py", "sh", ""];

fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, out);
        } else if CODE.contains(&path.extension().map_or("", |e| e.to_str().unwrap())) {
            out.push(path);
        }
    }
}

#[test]
fn no_file_of_code_is_longer_than_500_lines() {
    let root = crate::root();
    let mut files = Vec::new();
    for folder in ["src", "bench", "verifier", "tests", "kernels", "tools"] {
        walk(&root.join(folder), &mut files);
    }
    let mut long = Vec::new();
    for file in files {
        let inner = file.strip_prefix(root).unwrap();
        if !DATA.iter().any(|folder| inner.starts_with(folder)) {
            let lines = fs::read(&file).unwrap().iter().filter(|b| **b == b'\n').count();
            if lines > LINES {
                long.push(format!("{}: {lines} lines", inner.display()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
