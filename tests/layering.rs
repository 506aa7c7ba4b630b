//! Dependencies point one way: every `crate::X` under `src/` is read against the order of the rooms.

use std::fs;
use std::path::{Path, PathBuf};

/// What every room may name.
const GROUND: &[&str] = &["error", "math", "philox", "files"];

/// What each room may name, itself and the ground aside. Host rooms never name device, tensor or ops.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("math", &[]),
    ("philox", &["math"]),
    ("files", &["error"]),
    ("observe", &[]),
    ("config", &[]),
    ("client", &["config"]),
    ("device", &["config"]),
    ("tensor", &["config", "device"]),
    ("ops", &["config", "device", "tensor"]),
    ("text", &["config"]),
    ("image", &["config"]),
    ("reward", &["config", "client"]),
    ("task", &["config", "observe", "text", "image", "reward", "data"]),
    ("data", &["config", "observe", "client", "text", "image", "reward", "task"]),
    ("model", &["config", "device", "tensor", "ops", "image", "text"]),
    ("optim", &["config", "device", "tensor", "ops", "model"]),
    ("checkpoint", &["config", "device", "tensor", "ops", "model", "optim"]),
    ("engine", &["device", "tensor", "ops", "model", "text", "image"]),
    ("rollout", &["device", "ops", "model", "engine", "text", "image", "reward", "task", "data"]),
    (
        "train",
        &[
            "config",
            "observe",
            "device",
            "tensor",
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
            "observe",
            "device",
            "tensor",
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
            "config", "observe", "device", "tensor", "ops", "model", "engine", "rollout", "text", "image", "reward",
            "task", "data",
        ],
    ),
    ("report", &["config", "observe", "eval", "text", "image", "reward", "task", "data", "train::metrics"]),
    (
        "recipe",
        &[
            "config", "observe", "device", "tensor", "model", "text", "reward", "task", "data", "train", "rl", "eval",
            "report",
        ],
    ),
    ("cli", &["*"]),
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The paths after each `crate::` in code; unit tests at a file's end and comments are left out.
fn named(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let code: String = code.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let (mut depth, mut item) = (1, String::new());
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => out.push(std::mem::take(&mut item)),
                        _ if depth >= 1 && !c.is_whitespace() => item.push(c),
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                out.push(item);
            }
            None => out.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()),
        }
    }
    out
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let inner = file.strip_prefix(&src).unwrap();
        let room = inner.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room} has no place in the order", inner.display()));
            continue;
        };
        for path in named(&fs::read_to_string(file).unwrap()) {
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
    let text = "use crate::{error::Result, ops::{rope, linear}};\nlet x = crate::device::Pool::new(1); // crate::cli";
    assert_eq!(named(text), ["error::Result", "ops::rope,linear", "device::Pool::new"]);
}

#[test]
fn unsafe_stands_only_where_it_is_meant_to() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let meant = [
        "device/",
        "ops/matmul/",
        "ops/attention",
        "ops/paged_attention",
        "ops/linear_logprob",
        "ops/sample",
        "ops/tile.rs",
    ];
    for file in files {
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

    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops"), &mut files);
    let mut found = Vec::new();
    for file in files {
        found.extend(without_kernel(&fs::read_to_string(file).unwrap()));
    }
    found.sort();
    assert_eq!(found, omr::ops::CPU_ONLY);
}
