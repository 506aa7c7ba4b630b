//! Files of a room stand above and below one another: no circle but that of a parent and its children. So do the
//! headers of `kernels/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{code, paths, sources};

/// A room inside a room that is another program's structure, repeated.
const REPEATED: &str = "reward::compat::";

/// What each folder of `kernels/` may include, itself aside; the kernel files themselves have no name. `emu/` is the
/// host's twin of `isa/` and reads two of its tables.
const KERNELS: &[(&str, &[&str])] = &[
    ("emu", &["isa/bf16.cuh", "isa/descriptor.cuh"]),
    ("isa", &["emu"]),
    ("common", &["isa"]),
    ("", &["common", "isa"]),
];

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Everything `from` leads to.
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

/// The circles, each by the names on it.
fn circles(edges: &Edges) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|a| (a, reached(edges, a))).collect();
    let on_one = edges.keys().filter(|a| reached[a].contains(*a));
    on_one.map(|a| reached[a].iter().filter(|b| reached[b].contains(a)).cloned().collect()).collect()
}

/// Which file of its room each file names; `files` are modules by path with their code.
fn names(files: &BTreeMap<String, String>) -> Edges {
    let below = |a: &str, b: &str| b.starts_with(&format!("{a}::"));
    let file_of = |path: &str| {
        let mut path = path;
        while !files.contains_key(path) {
            path = path.rsplit_once("::")?.0;
        }
        Some(path.to_owned())
    };
    let named = |module: &str, path: &str| {
        let mut base: Vec<&str> = module.split("::").collect();
        let mut rest = path;
        if let Some(path) = rest.strip_prefix("crate::") {
            (base, rest) = (Vec::new(), path);
        }
        while let Some(path) = rest.strip_prefix("super::") {
            base.pop();
            rest = path;
        }
        base.push(rest.strip_prefix("self::").unwrap_or(rest));
        file_of(&base.join("::"))
    };
    let room = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let edges = |module: &str, code: &str| -> BTreeSet<String> {
        let found = paths(code).into_iter().filter_map(|path| named(module, &path));
        found
            .filter(|to| to != module && room(to) == room(module) && !below(to, module) && !below(module, to))
            .collect()
    };
    files.iter().map(|(module, code)| (module.clone(), edges(module, code))).collect()
}

#[test]
fn files_of_a_room_name_one_another_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    for file in sources(&src) {
        let inner = file.strip_prefix(&src).unwrap().with_extension("");
        let module: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
        let module = module.join("::");
        if !["lib", "main"].contains(&module.as_str()) && !module.starts_with(REPEATED) {
            files.insert(module, code(&fs::read_to_string(&file).unwrap()));
        }
    }
    let found = circles(&names(&files));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn circles_are_found_and_parents_are_no_part_of_one() {
    let files = |list: &[(&str, &str)]| list.iter().map(|(m, t)| (m.to_string(), t.to_string())).collect();
    let apart = [("a", "use self::b::X;"), ("a::b", "use super::Y; use super::c::{Z, d};"), ("a::c", "crate::a::W")];
    assert!(circles(&names(&files(&apart))).is_empty());
    let round =
        [("a", ""), ("a::b", "use super::c::Z;"), ("a::c", "fn f() -> crate::a::d::V"), ("a::d", "super::b::g()")];
    let all = ["a::b", "a::c", "a::d"].map(str::to_owned).to_vec();
    assert_eq!(circles(&names(&files(&round))), BTreeSet::from([all]));
}

/// The files of `kernels/` and what each includes of them.
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
    let found = includes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"));
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
