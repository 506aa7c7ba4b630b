//! Checks the pages of the repository: files and sections that they name exist, pages about the design stay short, and
//! every module has its row on the crate's front page and its box in the image of the architecture.

use std::fs;
use std::path::{Path, PathBuf};

/// Maximum number of lines of a page under docs/design.
const DESIGN_LINES: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns the Markdown files directly in `folder`, as paths from the root.
fn markdown(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| format!("{folder}/{}", name.to_str().unwrap()));
    names.filter(|name| name.ends_with(".md")).collect()
}

/// Returns the pages that are checked, as paths from the root.
fn pages() -> Vec<String> {
    let top = ["README.md", "CONTRIBUTING.md"].map(str::to_owned);
    top.into_iter().chain(markdown("docs")).chain(markdown("docs/design")).collect()
}

/// Collects the sources under `dir`, without reference data, results and this file.
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

/// Returns the section numbers in the references `PAGE section N` of `text`.
fn sections<'a>(text: &'a str, page: &str) -> Vec<&'a str> {
    let number = |rest: &'a str| &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    text.split(&format!("{page} section ")).skip(1).map(number).collect()
}

#[test]
fn sections_named_in_code_are_headings() {
    assert_eq!(sections("(FORMATS section 8). // FORMATS section 4 and 5, FORMATS section", "FORMATS"), ["8", "4"]);

    let mut files = Vec::new();
    for dir in ["src", "kernels", "tests", "tools", "bench", "verifier"] {
        sources(&root().join(dir), &mut files);
    }
    let headings = read("docs/FORMATS.md");
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for number in sections(&text, "FORMATS") {
            seen += 1;
            if !headings.contains(&format!("\n## {number}. ")) {
                wrong.push(format!("{}: FORMATS has no section {number:?}", file.display()));
            }
        }
        for page in ["DESIGN", "CONTRACT"] {
            if !sections(&text, page).is_empty() {
                wrong.push(format!("{}: {page} has no numbered sections; name a page of docs/design", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 0, "no source names a section");
}

/// Returns the files and folders that a page names, in backticks or as links. A path starts at the root, or at `src/` if a
/// module comes first.
fn named(page: &str, text: &str, modules: &[String]) -> Vec<PathBuf> {
    let beside = |target: &str| root().join(page).parent().unwrap().join(target);
    let prose: String = text.split('`').step_by(2).collect();
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let mut out: Vec<PathBuf> = links.filter(|t| !t.contains("://") && !t.starts_with('#')).map(beside).collect();
    for code in text.split('`').skip(1).step_by(2) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let Some((first, rest)) = code.split_once('/').filter(|_| code.chars().all(plain)) else { continue };
        if ["src", "kernels", "tests", "tools", "docs", "configs", "bench", "verifier", ".ci"].contains(&first) {
            out.push(root().join(code));
        } else if modules.iter().any(|module| module == first) && rest.ends_with(".rs") {
            out.push(root().join("src").join(code));
        }
    }
    out
}

fn modules() -> Vec<String> {
    let roots = read("src/lib.rs") + &read("src/runtime.rs");
    roots.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

#[test]
fn files_named_in_pages_are_there() {
    let (modules, mut seen, mut missing) = (modules(), 0, Vec::new());
    for page in pages() {
        for path in named(&page, &read(&page), &modules) {
            seen += 1;
            if !path.exists() {
                missing.push(format!("{page}: {}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen > 100, "{seen} names found");
}

#[test]
fn pages_about_the_design_are_short() {
    let pages = markdown("docs/design");
    let lines = |page: &String| read(page).lines().count();
    let long: Vec<&String> = pages.iter().filter(|page| lines(page) > DESIGN_LINES).collect();
    assert!(long.is_empty(), "more than {DESIGN_LINES} lines: {long:?}");
    assert!(!pages.is_empty());
}

#[test]
fn every_page_about_the_design_is_in_the_index() {
    let index = read("docs/DESIGN.md");
    for page in markdown("docs/design") {
        let link = page.strip_prefix("docs/").unwrap();
        assert!(index.contains(&format!("]({link})")), "docs/DESIGN.md: {link}");
    }
}

#[test]
fn every_module_is_on_the_front_page_and_in_the_image() {
    let (lib, image) = (read("src/lib.rs"), read("docs/architecture.svg"));
    for module in modules() {
        assert!(lib.contains(&format!("[`{module}`]")), "src/lib.rs: {module}");
        assert!(
            image.contains(&format!(">{module}</text>")),
            "docs/architecture.svg, see tools/architecture: {module}"
        );
    }
}

#[test]
fn readme_lists_every_family_of_models() {
    let mut table = "| models | class in `config.json` | images |\n| --- | --- | --- |\n".to_owned();
    for family in omr::model::family::FAMILIES {
        let images = if family.prefixes.is_empty() { "no" } else { "yes" };
        table += &format!("| {} | `{}` | {images} |\n", family.models, family.classes.join("`, `"));
    }
    assert!(read("README.md").contains(&table), "README.md needs this table:\n{table}");
}

#[test]
fn readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "README.md has {lines} lines, expected at most 130");
}
