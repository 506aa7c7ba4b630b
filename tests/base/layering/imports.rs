//! Reads the names that a Rust file uses, and finds the file that each name refers to through `use`, modules and
//! re-exports.

use std::collections::{BTreeMap, BTreeSet};

/// The names in a Rust file.
#[derive(Default)]
pub struct Module {
    /// Paths that the code uses, without re-exports.
    pub uses: BTreeSet<String>,
    /// Re-exports: the name in this file, and the path that it refers to.
    pub exports: BTreeMap<String, String>,
}

/// Returns a file's text without comments and without the unit tests at its end.
pub fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

impl Module {
    /// Reads the text of a file.
    pub fn read(text: &str) -> Module {
        let (mut module, mut imports) = (Module::default(), BTreeMap::new());
        // `use` statements are removed. The remaining paths belong to expressions and types.
        let (code, mut rest) = (code(text), String::new());
        let mut text = code.as_str();
        while let Some(at) = text.find("use ") {
            let (before, from) = text.split_at(at);
            let visible = before.trim_end();
            let is_export = visible.ends_with("pub") || (visible.ends_with(')') && visible.contains("pub("));
            let alone = before.chars().next_back().is_none_or(char::is_whitespace);
            match (alone, from.split_once(';')) {
                (true, Some((tree, behind))) => {
                    rest.push_str(before);
                    let to = if is_export { &mut module.exports } else { &mut imports };
                    leaves(&tree[4..], "", to);
                    text = behind;
                }
                _ => {
                    rest.push_str(&text[..at + 4]);
                    text = &text[at + 4..];
                }
            }
        }
        rest.push_str(text);
        let mut prefixes = BTreeSet::new();
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for path in rest.split(|c| !word(c)).map(|path| path.trim_matches(':')) {
            let Some((first, behind)) = path.split_once("::") else { continue };
            // An imported module is used through its name.
            match imports.get(first) {
                Some(import) => {
                    prefixes.insert(first);
                    module.uses.insert(format!("{import}::{behind}"));
                }
                None => drop(module.uses.insert(path.to_owned())),
            }
        }
        let whole = imports.iter().filter(|(name, _)| !prefixes.contains(name.as_str()));
        module.uses.extend(whole.map(|(_, path)| path.clone()));
        module
    }
}

/// Adds each name of a `use` tree with its path. Returns the text after the tree.
fn leaves<'a>(text: &'a str, prefix: &str, out: &mut BTreeMap<String, String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut inside) = text.strip_prefix('{') {
        while let Some(c) = inside.trim_start().chars().next().filter(|c| *c != '}') {
            inside = inside.trim_start();
            inside = if c == ',' { &inside[1..] } else { leaves(inside, prefix, out) };
        }
        return inside.trim_start().get(1..).unwrap_or("");
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && !['_', '*'].contains(&c)).unwrap_or(text.len());
    // Characters that cannot be parsed are skipped.
    let end = end.max(text.chars().next().map_or(0, char::len_utf8));
    let (name, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix("::") {
        return leaves(rest, &format!("{prefix}{name}::"), out);
    }
    let path = if name == "self" { prefix.trim_end_matches("::").to_owned() } else { format!("{prefix}{name}") };
    let last = path.rsplit("::").next().unwrap_or_default().to_owned();
    match rest.trim_start().strip_prefix("as ") {
        Some(renamed) => {
            let end = renamed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(renamed.len());
            // An import `as _` has no name of its own.
            let name = if &renamed[..end] == "_" { &last } else { &renamed[..end] };
            out.insert(name.to_owned(), path);
            &renamed[end..]
        }
        None => {
            out.insert(last, path);
            rest
        }
    }
}

/// Returns the file that `path`, written in `module`, refers to. Returns `None` if it is not in `files`.
pub fn resolve(files: &BTreeMap<String, Module>, module: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    if let Some(name) = parts.first()?.strip_prefix("omr_") {
        parts[0] = "crate";
        base = vec![name];
    } else if parts.first() == Some(&"crate") {
        base.truncate(1);
    } else if !["self", "super"].contains(parts.first()?) && !files.contains_key(&format!("{module}::{}", parts[0])) {
        // The path is neither in this crate nor the name of a child, so it belongs to another crate.
        return None;
    }
    while let Some(root @ ("crate" | "self" | "super")) = parts.first().copied() {
        parts.remove(0);
        if root == "super" {
            base.pop();
        }
    }
    let mut at = base.join("::");
    for (i, part) in parts.iter().enumerate() {
        let below = if at.is_empty() { (*part).to_owned() } else { format!("{at}::{part}") };
        if files.contains_key(&below) {
            at = below;
        } else if let Some(target) = files.get(&at).and_then(|file| file.exports.get(*part)) {
            let behind = parts[i + 1..].join("::");
            return resolve(files, &at, &format!("{target}::{behind}")).or(Some(at));
        } else {
            break;
        }
    }
    files.contains_key(&at).then_some(at)
}
