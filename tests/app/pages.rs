//! Checks the pages of the repository: pages about the design stay short, every file is on the map of the code, and every module
//! has its row there and its box in the image of the architecture. `tools/pages` checks paths, links, commands and keys.

use std::fs;
use std::process::Command;

use omr_base_tests::{root, sources};

/// Maximum number of lines of a page under docs/dev/design.
const DESIGN_LINES: usize = 120;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns the Markdown files directly in `folder`, as paths from the root.
fn markdown(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| format!("{folder}/{}", name.to_str().unwrap()));
    names.filter(|name| name.ends_with(".md")).collect()
}

/// The crates under src.
const CRATES: [&str; 6] = ["base", "runtime", "data", "model", "train", "app"];

#[test]
fn commands_keys_and_references_of_the_pages_are_those_of_the_program() {
    let program = env!("CARGO_BIN_EXE_omr");
    let mut check = Command::new("python3");
    check.args(["tools/pages", "--check", "--omr", program]).current_dir(root());
    let Ok(output) = check.output() else {
        eprintln!("this machine has no python3: tools/pages is not run");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn pages_about_the_design_are_short() {
    let pages = markdown("docs/dev/design");
    let lines = |page: &String| read(page).lines().count();
    let long: Vec<&String> = pages.iter().filter(|page| lines(page) > DESIGN_LINES).collect();
    assert!(long.is_empty(), "more than {DESIGN_LINES} lines: {long:?}");
    assert!(!pages.is_empty());
}

#[test]
fn every_page_about_the_design_is_in_the_index() {
    let index = read("docs/dev/design.md");
    for page in markdown("docs/dev/design") {
        let link = page.strip_prefix("docs/dev/").unwrap();
        assert!(index.contains(&format!("]({link})")), "docs/dev/design.md: {link}");
    }
}

#[test]
fn every_module_is_on_the_front_page_and_in_the_image() {
    let (map, image) = (read("src/README.md"), read("docs/dev/architecture.svg"));
    for name in CRATES {
        let path = format!("src/{name}/lib.rs");
        let lib = read(&path);
        let modules: Vec<&str> = lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
        assert!(!modules.is_empty(), "{path}");
        for module in modules {
            let named = |row: &str| row.starts_with("| ") && row.contains(&format!("`{module}`"));
            assert!(map.lines().any(named), "src/README.md: {module} of {path}");
            assert!(
                image.contains(&format!(">{module}</text>")),
                "docs/dev/architecture.svg, see tools/architecture: {module}"
            );
        }
    }
}

#[test]
fn every_file_is_on_the_map_and_the_map_names_no_other() {
    let map = read("src/README.md");
    for file in ["src", "bench/src", "verifier/src"].iter().flat_map(|folder| sources(&root().join(folder))) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let is_named = ["mod", "lib", "main", "build"].contains(&name) || map.contains(&format!("`{name}`"));
        assert!(is_named, "src/README.md: {}", file.display());
    }
    let (_, subjects) = map.split_once("## Subjects").unwrap();
    let (subjects, _) = subjects.split_once("\n## ").unwrap();
    let quoted = subjects.split('`').skip(1).step_by(2).filter(|text| text.contains('/') && !text.starts_with("docs/"));
    for path in quoted {
        let exists =
            [format!("src/{path}.rs"), format!("src/{path}"), path.to_owned()].iter().any(|p| root().join(p).exists());
        assert!(exists, "src/README.md: {path}");
    }
}

#[test]
fn readme_lists_every_family_of_models() {
    let mut table = "| models | class in `config.json` | images |\n| --- | --- | --- |\n".to_owned();
    for family in omr_model::nn::family::FAMILIES {
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
