//! Dependencies point one way: every `crate::X` under `src/` is read against the order of the rooms.

mod circles;
mod sizes;

use std::fs;
use std::path::{Path, PathBuf};

/// What every room may name.
const GROUND: &[&str] = &["error", "math", "philox", "files", "bounds", "secrets"];

/// What each room may name, itself and the ground aside. Host rooms never name device, tensor or ops.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("math", &[]),
    ("philox", &["math"]),
    ("files", &["error"]),
    ("bounds", &[]),
    ("secrets", &[]),
    ("observe", &[]),
    ("config", &[]),
    ("identity", &["config"]),
    ("client", &["config"]),
    ("answers", &["client"]),
    ("hub", &["config", "observe", "client"]),
    ("device", &["config"]),
    ("tensor", &["config", "device"]),
    ("dist", &["config", "device", "tensor"]),
    ("ops", &["config", "device", "tensor"]),
    ("text", &["config"]),
    ("image", &["config"]),
    ("reward", &["config", "client", "answers"]),
    ("task", &["config", "observe", "text", "image", "reward", "data"]),
    ("data", &["config", "identity", "observe", "client", "answers", "hub::local", "text", "image", "reward", "task"]),
    ("model", &["config", "device", "tensor", "ops", "image", "text"]),
    ("optim", &["config", "device", "tensor", "dist", "ops", "model"]),
    ("checkpoint", &["config", "identity", "device", "tensor", "dist", "ops", "model", "optim"]),
    ("engine", &["device", "tensor", "ops", "model", "text", "image"]),
    ("rollout", &["device", "dist", "ops", "model", "engine", "text", "image", "reward", "task", "data"]),
    (
        "train",
        &[
            "config",
            "identity",
            "observe",
            "device",
            "tensor",
            "dist",
            "ops",
            "model",
            "optim",
            "checkpoint",
            "text",
            "image",
            "task",
            "data",
        ],
    ),
    (
        "rl",
        &[
            "config",
            "identity",
            "observe",
            "device",
            "tensor",
            "dist",
            "ops",
            "model",
            "optim",
            "checkpoint",
            "engine",
            "rollout",
            "train",
            "text",
            "image",
            "reward",
            "task",
            "data",
        ],
    ),
    (
        "eval",
        &[
            "config",
            "identity",
            "observe",
            "client",
            "answers",
            "device",
            "tensor",
            "dist",
            "ops",
            "model",
            "engine",
            "rollout",
            "text",
            "image",
            "reward",
            "task",
            "data",
            "train::metrics",
            "train::plan",
            "train::validation",
        ],
    ),
    ("replay", &["rollout", "train::metrics"]),
    (
        "report",
        &["config", "observe", "eval", "text", "image", "reward", "task", "data", "rollout::file", "train::metrics"],
    ),
    (
        "pipeline",
        &[
            "config", "identity", "observe", "answers", "client", "device", "tensor", "dist", "ops", "model", "engine",
            "text", "image", "reward", "data", "rollout", "report",
        ],
    ),
    (
        "recipe",
        &[
            "answers", "config", "identity", "observe", "device", "tensor", "dist", "model", "text", "reward", "task",
            "data", "train", "rl", "eval", "report", "pipeline",
        ],
    ),
    ("cli", &["*"]),
];

/// The Rust files in and below `dir`.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out
}

/// A file without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The paths in code that begin with `crate::`, `super::` or `self::`, groups taken apart.
fn paths(code: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            // Not the middle of a longer path or word.
            if !code[..at].ends_with(|c: char| word(c) || c == ':') {
                expand(&code[at..], String::new(), &mut out);
            }
        }
    }
    out
}

/// Reads one path or group, `prefix` before it; what is left.
fn expand<'a>(text: &'a str, prefix: String, out: &mut Vec<String>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        text = inside.trim_start();
        while !text.is_empty() && !text.starts_with('}') {
            text = expand(text, prefix.clone(), out).trim_start();
            text = text.strip_prefix(',').unwrap_or(text).trim_start();
        }
        return text.strip_prefix('}').unwrap_or(text);
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let (false, Some(rest)) = (name.is_empty(), rest.strip_prefix("::")) {
        return expand(rest, format!("{prefix}{name}::"), out);
    }
    out.push(format!("{prefix}{name}"));
    // What cannot be read is passed over, so that a group ends; so is the new name of `as`.
    let rest = if name.is_empty() { rest.get(1..).unwrap_or("") } else { rest };
    match rest.trim_start().strip_prefix("as ") {
        Some(renamed) => renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        None => rest,
    }
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let inner = file.strip_prefix(&src).unwrap();
        let room = inner.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room} has no place in the order", inner.display()));
            continue;
        };
        for path in paths(&code(&fs::read_to_string(&file).unwrap())) {
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let target = path.split("::").next().unwrap_or_default();
            let is_room = ROOMS.iter().any(|(name, _)| *name == target);
            let allowed = target == room
                || !is_room
                || (GROUND.contains(&target) && !GROUND.contains(&room))
                || below.contains(&"*")
                || below.iter().any(|b| path == *b || path.starts_with(&format!("{b}::")));
            if !allowed {
                wrong.push(format!("{}: {room} may not name {path}", inner.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn grouped_and_nested_names_are_read() {
    let text =
        "use crate::{error::Result, ops::{rope as r, linear}};\nlet x = crate::device::Pool::new(1); // crate::cli
        pub(in crate::ops) fn f(x: super::Y) -> $crate::z::W";
    let found = ["crate::error::Result", "crate::ops::rope", "crate::ops::linear", "crate::device::Pool::new"];
    assert_eq!(paths(&code(text)), [&found[..], &["crate::ops", "crate::z::W", "super::Y"]].concat());
}

#[test]
fn unsafe_stands_only_where_it_is_meant_to() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let meant = [
        "device/",
        "ops/matmul/",
        "ops/attention",
        "ops/paged_attention",
        "ops/linear_logprob",
        "ops/sample",
        "ops/tile.rs",
    ];
    for file in sources(&src) {
        let inner = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let code: String = fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n")
            .collect();
        let found = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        assert!(!found || meant.iter().any(|m| inner.starts_with(m)), "{inner} holds unsafe code");
    }
}

/// Ops of `src/ops` that go to the CPU without looking for a GPU first: the op's name stands above in `OP`, or in the
/// call itself.
fn without_kernel(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("cpu_only(") {
        let said = text[at..].split_once('(').unwrap().1.split_once(')').unwrap().0;
        if let Some(name) = said.strip_prefix('"') {
            found.push(name.trim_end_matches('"').to_owned());
        } else if said == "OP" {
            let (_, after) = text[..at].rsplit_once("const OP: &str = \"").expect("OP above");
            let looked = after.contains("On::Gpu") || after.contains("is_gpu()");
            if !looked {
                found.push(after.split_once('"').unwrap().0.to_owned());
            }
        }
    }
    found
}

#[test]
fn ops_without_a_kernel_are_listed() {
    let text = "const OP: &str = \"a::fwd\"; match dev.on() { On::Gpu(g) => 1 }; dev.cpu_only(OP)?;\n\
        const OP: &str = \"a::bwd\"; dev.cpu_only(OP)?; dev.cpu_only(\"b\")?;";
    assert_eq!(without_kernel(text), ["a::bwd", "b"]);

    let mut found = Vec::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops")) {
        found.extend(without_kernel(&fs::read_to_string(file).unwrap()));
    }
    found.sort();
    assert_eq!(found, omr::ops::CPU_ONLY);
}
