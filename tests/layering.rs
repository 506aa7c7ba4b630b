//! Tests that dependencies point in one direction: every `crate::X` under `src/` is checked against the order of the
//! rooms (top folders).

mod circles;
mod families;
mod imports;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Module;

/// The room that may use every other room: commands.
const TOP: &str = "cli";

/// Modules that every room above them may use.
const GROUND: &[&str] = &["error", "math", "philox", "files", "bounds", "secrets"];

/// The rooms from the bottom up, and the lower rooms that each may use in addition to `GROUND`. Host rooms never use
/// device, tensor or ops.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("math", &[]),
    ("philox", &["math"]),
    ("files", &["error"]),
    ("bounds", &[]),
    ("secrets", &[]),
    ("observe", &[]),
    ("config", &[]),
    ("client", &["config"]),
    ("answers", &["client"]),
    ("hub", &["config", "observe", "client"]),
    ("base_model", &["hub"]),
    ("identity", &["base_model", "config"]),
    ("device", &["observe"]),
    ("machine", &["observe", "device"]),
    ("tensor", &["config", "device"]),
    ("ranks", &["config", "device", "tensor"]),
    ("ops", &["config", "device", "tensor"]),
    ("image", &["base_model"]),
    ("text", &["base_model", "image"]),
    ("page", &[]),
    ("reward", &["config", "client", "answers"]),
    ("data", &["base_model", "config", "identity", "observe", "hub::local", "text", "image", "reward"]),
    ("task", &["config", "text", "image", "reward", "data"]),
    ("model", &["base_model", "config", "identity", "observe", "device", "tensor", "ops", "image", "text"]),
    ("optim", &["config", "device", "tensor", "ranks", "ops", "model"]),
    ("checkpoint", &["identity"]),
    ("engine", &["device", "tensor", "ops", "model", "text", "image"]),
    (
        "llm",
        &[
            "config", "client", "identity", "observe", "device", "machine", "tensor", "model", "engine", "text",
            "image", "data",
        ],
    ),
    ("rollout", &["device", "ranks", "model", "engine", "text", "reward", "task", "data", "llm"]),
    (
        "train",
        &[
            "base_model",
            "config",
            "identity",
            "observe",
            "device",
            "tensor",
            "ranks",
            "ops",
            "model",
            "optim",
            "checkpoint",
            "image",
            "data",
        ],
    ),
    (
        "rl",
        &[
            "config", "observe", "device", "tensor", "ranks", "ops", "model", "optim", "engine", "rollout", "train",
            "text", "image", "reward", "task", "data", "llm",
        ],
    ),
    (
        "eval",
        &[
            "config",
            "observe",
            "client",
            "answers",
            "device",
            "machine",
            "ranks",
            "ops",
            "model",
            "engine",
            "rollout",
            "text",
            "image",
            "reward",
            "task",
            "data",
            "train::job",
            "train::metrics",
            "train::trainer_config",
            "train::val_loss",
            "train::validation",
            "llm",
        ],
    ),
    (
        "replay",
        &[
            "config",
            "identity",
            "observe",
            "answers",
            "device",
            "machine",
            "reward",
            "checkpoint",
            "rollout",
            "train",
            "rl",
            "eval",
        ],
    ),
    (
        "report",
        &[
            "page",
            "config",
            "observe",
            "hub::local",
            "eval",
            "text",
            "image",
            "reward",
            "task",
            "data",
            "rollout::file",
            "train::metrics",
            "train::timeline",
        ],
    ),
    (
        "pipeline",
        &[
            "config",
            "identity",
            "observe",
            "answers",
            "client",
            "device",
            "machine",
            "tensor",
            "ranks",
            "ops",
            "model",
            "engine",
            "text",
            "image",
            "reward",
            "data",
            "page",
            "train::val_loss",
            "llm",
        ],
    ),
    (
        "recipe",
        &[
            "answers", "config", "identity", "device", "machine", "tensor", "ranks", "model", "text", "image",
            "reward", "task", "data", "train", "rl", "eval", "report", "pipeline",
        ],
    ),
    (
        "plan",
        &[
            "base_model",
            "config",
            "engine",
            "image",
            "device",
            "ranks",
            "model",
            "tensor",
            "ops",
            "optim",
            "rollout",
            "train",
            "rl",
            "data",
            "observe",
        ],
    ),
    (
        "generate",
        &[
            "base_model",
            "config",
            "device",
            "machine",
            "tensor",
            "text",
            "image",
            "data",
            "model",
            "engine",
            "identity",
            "train::saving",
            "train::step",
            "llm::fits",
        ],
    ),
    (
        "serve",
        &[
            "base_model",
            "client",
            "config",
            "identity",
            "observe",
            "device",
            "machine",
            "tensor",
            "ops",
            "text",
            "image",
            "data",
            "model",
            "engine",
            "generate",
            "llm",
        ],
    ),
    (
        "bench",
        &[
            "page", "config", "observe", "hub", "device", "machine", "tensor", "ops", "image", "data", "model",
            "optim", "engine", "train", "rollout", "rl", "plan",
        ],
    ),
    ("cli", &[]),
];

/// Returns the Rust files in `dir` and its subfolders.
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

/// Returns the modules in a source folder by path, such as `ops::linear`. A crate's `lib.rs` and `main.rs` are left
/// out.
fn modules(src: &Path) -> BTreeMap<String, Module> {
    let read = |file: PathBuf| {
        let inner = file.strip_prefix(src).unwrap().with_extension("");
        let parts: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
        let name = parts.join("::");
        let module = Module::read(&fs::read_to_string(&file).unwrap());
        (!["lib", "main"].contains(&name.as_str())).then_some((name, module))
    };
    sources(src).into_iter().filter_map(read).collect()
}

/// Returns the first name of a module path.
fn room(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let files = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let floor = |name: &str| ROOMS.iter().position(|(room, _)| *room == name);
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<(&str, &str)> =
        ROOMS.iter().flat_map(|(room, below)| below.iter().map(move |b| (*room, *b))).collect();
    for (name, module) in &files {
        let Some((room, below)) = ROOMS.iter().find(|(known, _)| *known == room(name)) else {
            wrong.push(format!("{name}: its room has no place in the order"));
            continue;
        };
        let exports = module.exports.values().map(String::as_str);
        for path in module.uses.iter().map(String::as_str).chain(exports) {
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let target = self::room(path);
            let Some(at) = floor(target).filter(|_| target != *room) else { continue };
            let permission = below.iter().find(|b| path == **b || path.starts_with(&format!("{b}::")));
            permission.iter().for_each(|b| {
                unused.remove(&(*room, **b));
            });
            let is_ground = GROUND.contains(&target) || *room == TOP;
            if Some(at) >= floor(room) || (permission.is_none() && !is_ground) {
                wrong.push(format!("{name} may not name {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unused.is_empty(), "permitted, and not used: {unused:?}");
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
