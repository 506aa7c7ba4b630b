//! Tests that launches list the members of argument structs in the same order as the kernels' sources.

use std::fs;
use std::path::Path;

use omr_runtime::device::images::OWN;

/// An argument struct as one side declares it: its path, such as `rope::Args`, and the names of its members.
struct Listed {
    place: String,
    path: String,
    members: Vec<String>,
}

/// Returns the part of `text` before the bracket that closes a bracket opened just before `text`.
fn inside(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &text[..i],
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("never closed: {text}")
}

/// Returns the pieces of `text` between commas outside brackets.
fn pieces(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut out) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[from..].trim());
    out.retain(|piece| !piece.is_empty());
    out
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect()
}

/// Returns the argument structs that the launches of a file list.
fn launched(file: &Path) -> Vec<Listed> {
    let text = without_comments(&fs::read_to_string(file).unwrap());
    let calls = text.split("params!(").skip(1).map(inside);
    let listed = calls.map(|call| {
        let (path, members) = call.split_once('{').unwrap();
        let names = pieces(inside(members)).into_iter().map(|piece| piece.split(':').next().unwrap().trim().to_owned());
        Listed { place: file.display().to_string(), path: path.trim().to_owned(), members: names.collect() }
    });
    listed.collect()
}

/// Returns the members of each struct in the kernels' sources that `path` may refer to, without padding.
fn declared(path: &str) -> Vec<Vec<String>> {
    let (outer, name) = path.split_once("::").unwrap();
    let mut out = Vec::new();
    for (_, text) in OWN.sources {
        let text = without_comments(text);
        let scopes = ["namespace", "struct"].map(|kind| format!("{kind} {outer} "));
        for (at, scope) in scopes.iter().flat_map(|scope| text.match_indices(scope)) {
            let wanted = format!("struct {name} {{");
            let Some(body) = text[at + scope.len()..].split(&wanted).nth(1) else { continue };
            // Member functions come after the members.
            let members = inside(body).split('{').next().unwrap();
            let names =
                members.rsplit_once(';').map_or("", |(members, _)| members).split(';').flat_map(|declaration| {
                    let name =
                        |piece: &str| piece.split('[').next().unwrap().rsplit([' ', '*']).next().unwrap().to_owned();
                    pieces(declaration).into_iter().map(name).collect::<Vec<_>>()
                });
            out.push(names.filter(|name| !["pad", "padding"].contains(&name.as_str())).collect());
        }
    }
    out
}

#[test]
fn launches_name_the_members_of_the_kernels_structs() {
    let files = omr_base_tests::sources(&omr_base_tests::root().join("src/runtime/ops"));
    let all: Vec<Listed> = files.iter().flat_map(|file| launched(file)).collect();
    let mut wrong = Vec::new();
    for Listed { place, path, members } in &all {
        // `in` is a keyword in Rust.
        let members: Vec<&str> = members.iter().map(|m| if m == "operands" { "in" } else { m }).collect();
        let found = declared(path);
        if !found.iter().any(|declared| *declared == members) {
            wrong.push(format!("{place}: {path} of {members:?}, declared: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.len() > 30, "{} launches", all.len());
}
