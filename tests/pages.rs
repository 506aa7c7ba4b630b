//! What is said of the pages under docs/ leads somewhere: sections named in code are headings, files named in pages are
//! there, every room stands on both maps.

use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 6] =
    ["README.md", "CONTRIBUTING.md", "docs/DESIGN.md", "docs/FORMATS.md", "docs/MEASURED.md", "docs/OPENMMREASONER.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every source under `dir` that is text of ours: reference data and results are not.
fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !["tests/goldens", "bench/results"].iter().any(|d| path.ends_with(d)) {
                sources(&path, out);
            }
        } else if path.file_name().is_some_and(|n| n != "LOG.md" && n != "pages.rs") {
            out.push(path);
        }
    }
}

/// The numbers behind each `PAGE section` in `text`.
fn sections<'a>(text: &'a str, page: &str) -> Vec<&'a str> {
    let number = |rest: &'a str| &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    text.split(&format!("{page} section ")).skip(1).map(number).collect()
}

#[test]
fn sections_named_in_code_are_headings() {
    assert_eq!(sections("(DESIGN section 8). // DESIGN section 4 and 5, DESIGN section x", "DESIGN"), ["8", "4", ""]);

    let mut files = Vec::new();
    for dir in ["src", "kernels", "tests", "tools", "bench"] {
        sources(&root().join(dir), &mut files);
    }
    let pages = ["DESIGN", "FORMATS"].map(|page| (page, read(&format!("docs/{page}.md"))));
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (page, headings) in &pages {
            for number in sections(&text, page) {
                seen += 1;
                if !headings.contains(&format!("\n## {number}. ")) {
                    wrong.push(format!("{}: {page} has no section {number:?}", file.display()));
                }
            }
        }
        if !sections(&text, "CONTRACT").is_empty() {
            wrong.push(format!("{}: there is no page CONTRACT", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 0, "no source names a section");
}

/// Files and folders a page names: in backticks or as links, from the root, or from `src/` when a room comes first.
fn named(page: &str, text: &str, rooms: &[String]) -> Vec<PathBuf> {
    let beside = |target: &str| root().join(page).parent().unwrap().join(target);
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let mut out: Vec<PathBuf> = links.filter(|t| !t.contains("://") && !t.starts_with('#')).map(beside).collect();
    for code in text.split('`').skip(1).step_by(2) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let Some((first, rest)) = code.split_once('/').filter(|_| code.chars().all(plain)) else { continue };
        if ["src", "kernels", "tests", "tools", "docs", "configs", "bench", "verifier", ".ci"].contains(&first) {
            out.push(root().join(code));
        } else if rooms.iter().any(|room| room == first) && rest.ends_with(".rs") {
            out.push(root().join("src").join(code));
        }
    }
    out
}

fn rooms() -> Vec<String> {
    let lib = read("src/lib.rs");
    lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

#[test]
fn files_named_in_pages_are_there() {
    let (rooms, mut seen, mut missing) = (rooms(), 0, Vec::new());
    for page in PAGES {
        for path in named(page, &read(page), &rooms) {
            seen += 1;
            if !path.exists() {
                missing.push(format!("{page}: {}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen > 20, "{seen} names found");
}

#[test]
fn every_room_stands_on_both_maps() {
    let (lib, design) = (read("src/lib.rs"), read("docs/DESIGN.md"));
    for room in rooms() {
        assert!(lib.contains(&format!("[`{room}`]")), "lib.rs: {room}");
        assert!(design.contains(&format!("`{room}`")), "docs/DESIGN.md: {room}");
    }
}
