//! Tests that files form no circles: no file can be reached from the files that it uses. Re-exports are resolved, and a
//! parent and its children count, too. Headers of `kernels/` do not include each other in a circle, either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::imports::{Module, resolve};
use super::modules;

/// Circles that remain, at most [`MOST`]: a file of each circle, and the reason.
const REMAIN: &[(&str, &str)] = &[
    ("verify::value::compare::lists", "items of a list are compared as answers are, and an answer may be a list"),
    (
        "verify::value::parse::relation",
        "the parser's parts read one another: a side of a relation is an answer of any kind",
    ),
];

/// Maximum number of circles that may remain.
const MOST: usize = 8;

/// Other folders that each folder of `kernels/` may include. The kernel files themselves have an empty name. `emu/` is
/// the host counterpart of `isa/` and reads two of its tables.
const KERNELS: &[(&str, &[&str])] = &[
    ("emu", &["isa/bf16.cuh", "isa/descriptor.cuh"]),
    ("isa", &["emu"]),
    ("common", &["isa"]),
    ("", &["common", "isa"]),
];

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Returns everything that is reachable from `from`.
fn reached(edges: &Edges, from: &str) -> BTreeSet<String> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(at) = todo.pop() {
        for next in edges.get(&at).into_iter().flatten() {
            if seen.insert(next.clone()) {
                todo.push(next.clone());
            }
        }
    }
    seen
}

/// Returns the circles. Each circle is the set of its names.
fn circles(edges: &Edges) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|a| (a, reached(edges, a))).collect();
    let on_one = edges.keys().filter(|a| reached[a].contains(*a));
    on_one.map(|a| reached[a].iter().filter(|b| reached[b].contains(a)).cloned().collect()).collect()
}

/// Returns the files that each file uses, without itself.
fn names(files: &BTreeMap<String, Module>) -> Edges {
    let edges = |(name, module): (&String, &Module)| {
        let to = module.uses.iter().filter_map(|path| resolve(files, name, path));
        (name.clone(), to.filter(|to| to != name).collect())
    };
    files.iter().map(edges).collect()
}

#[test]
fn files_name_one_another_one_way() {
    let mut wrong = Vec::new();
    let mut remain: BTreeSet<&str> = REMAIN.iter().map(|(file, _)| *file).collect();
    for circle in circles(&names(&modules())) {
        let listed = circle.iter().find_map(|file| remain.take(file.as_str()));
        if listed.is_none() {
            wrong.push(circle.join(", "));
        }
    }
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
    assert!(remain.is_empty(), "listed, and no circle is there: {remain:?}");
    assert!(REMAIN.len() <= MOST);
}

#[test]
fn circles_are_found_through_re_exports_and_parents() {
    let files = |list: &[(&str, &str)]| list.iter().map(|(m, t)| (format!("x::{m}"), Module::read(t))).collect();
    let through = |list: &[(&str, &str)]| circles(&names(&files(list)));
    let all = |names: &[&str]| BTreeSet::from([names.iter().map(|name| format!("x::{name}")).collect::<Vec<_>>()]);

    let apart =
        [("a", "mod b; pub use b::X; pub use c::Z;"), ("a::b", "use super::Z;"), ("a::c", "crate::e::W"), ("e", "")];
    assert!(through(&apart).is_empty());
    let hidden = [("a", "pub use b::X; pub use self::c::Z;"), ("a::b", "use super::Z;"), ("a::c", "use crate::a::X;")];
    assert_eq!(through(&hidden), all(&["a::b", "a::c"]));
    let renamed = [("a", "pub use b::{X as Y, V};"), ("a::b", "use super::c;\nc::f()"), ("a::c", "use super::Y;")];
    assert_eq!(through(&renamed), all(&["a::b", "a::c"]));
    let parent = [("a", "mod b; fn f() { b::g() }"), ("a::b", "use super::f;")];
    assert_eq!(through(&parent), all(&["a", "a::b"]));
    let by_module = [("a", ""), ("a::b", "use crate::a; fn f() -> a::c::Z"), ("a::c", "super::b::g()")];
    assert_eq!(through(&by_module), all(&["a::b", "a::c"]));
    let by_crate = [("a", ""), ("a::b", "use omr_x::a::c::Z;"), ("a::c", "crate::a::b::g()")];
    assert_eq!(through(&by_crate), all(&["a::b", "a::c"]));
}

/// Returns the files of `kernels/` and the files that each of them includes.
fn includes(kernels: &Path) -> Edges {
    let mut found = Edges::new();
    for folder in KERNELS.iter().map(|(name, _)| *name) {
        for entry in fs::read_dir(kernels.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = fs::read_to_string(&path).unwrap();
                let lines =
                    text.lines().filter_map(|l| l.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include"));
                let names = lines.filter_map(|l| Some(l.trim_start().strip_prefix('"')?.split('"').next()?.to_owned()));
                found.insert(path.strip_prefix(kernels).unwrap().to_str().unwrap().to_owned(), names.collect());
            }
        }
    }
    found
}

#[test]
fn headers_of_kernels_are_included_one_way() {
    let found = includes(&crate::root().join("kernels"));
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut wrong = Vec::new();
    for (file, names) in &found {
        let (_, below) = KERNELS.iter().find(|(name, _)| *name == folder(file)).unwrap();
        for name in names {
            let allowed = below.iter().any(|b| *b == name || *b == folder(name)) || (folder(name) == folder(file));
            if !allowed || !found.contains_key(name) {
                wrong.push(format!("{file} may not include {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found.values().map(BTreeSet::len).sum::<usize>() > 100, "{} files", found.len());
    let round = circles(&found);
    assert!(round.is_empty(), "{round:#?}");
}
