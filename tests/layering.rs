//! Tests that dependencies point in one direction: every `crate::X` under `src/` is checked against the order of the
//! top modules of src.

mod circles;
mod families;
mod imports;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Module;

/// The module that may use every other module: commands.
const TOP: &str = "cli";

/// Modules that every module above them may use.
const GROUND: &[&str] = &["error", "choice", "math", "philox", "files", "bounds", "secrets"];

/// The top modules from the bottom up, and the lower ones that each may use in addition to `GROUND`. Host modules never use
/// device, tensor or ops.
const MODULES: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("choice", &[]),
    ("math", &[]),
    ("philox", &["math"]),
    ("files", &["error"]),
    ("bounds", &[]),
    ("secrets", &[]),
    ("observe", &[]),
    ("config", &[]),
    ("client", &["config", "observe"]),
    ("answers", &["client"]),
    ("hub", &["config", "observe", "client"]),
    ("identity", &["hub::base_model", "config"]),
    ("device", &["observe"]),
    ("machine", &["observe", "device"]),
    ("tensor", &["device"]),
    ("ranks", &["config", "device", "tensor"]),
    ("ops", &["device", "tensor"]),
    ("image", &["hub::base_model", "config"]),
    ("text", &["hub::base_model", "image"]),
    ("reward", &["config", "client", "answers", "identity"]),
    ("data", &["hub::base_model", "config", "identity", "observe", "hub::local", "text", "image", "reward"]),
    ("task", &["config", "text", "image", "reward", "data"]),
    ("model", &["hub::base_model", "config", "identity", "observe", "device", "tensor", "ops", "image", "text"]),
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
            "hub::base_model",
            "hub::local",
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
            "text",
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
            "hub::base_model",
            "identity",
            "tensor",
            "train::job",
            "train::metrics",
            "train::saving",
            "train::step",
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
            "report::frame",
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
            "hub::base_model",
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
        "serve",
        &[
            "hub::base_model",
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
            "llm",
        ],
    ),
    (
        "bench",
        &[
            "report::frame",
            "config",
            "observe",
            "hub",
            "device",
            "machine",
            "tensor",
            "ops",
            "image",
            "data",
            "model",
            "optim",
            "engine",
            "train",
            "rollout",
            "rl",
            "plan",
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

/// Returns the modules in a source folder by path, such as `ops::linear`. A crate's root (`lib.rs`, `main.rs`,
/// `runtime.rs`) is left out.
fn modules(src: &Path) -> BTreeMap<String, Module> {
    let read = |file: PathBuf| {
        let inner = file.strip_prefix(src).unwrap().with_extension("");
        let parts: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
        let name = parts.join("::");
        let module = Module::read(&fs::read_to_string(&file).unwrap());
        (!["lib", "main", "runtime"].contains(&name.as_str())).then_some((name, module))
    };
    sources(src).into_iter().filter_map(read).collect()
}

/// Returns the top module of a path.
fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

#[test]
fn modules_name_only_the_modules_below_them() {
    let files = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let floor = |name: &str| MODULES.iter().position(|(own, _)| *own == name);
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<(&str, &str)> =
        MODULES.iter().flat_map(|(own, below)| below.iter().map(move |b| (*own, *b))).collect();
    for (name, module) in &files {
        let Some((own, below)) = MODULES.iter().find(|(known, _)| *known == top(name)) else {
            wrong.push(format!("{name}: its top module has no place in the order"));
            continue;
        };
        let exports = module.exports.values().map(String::as_str);
        for path in module.uses.iter().map(String::as_str).chain(exports) {
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let target = self::top(path);
            let Some(at) = floor(target).filter(|_| target != *own) else { continue };
            let permission = below.iter().find(|b| path == **b || path.starts_with(&format!("{b}::")));
            permission.iter().for_each(|b| {
                unused.remove(&(*own, **b));
            });
            let is_ground = GROUND.contains(&target) || *own == TOP;
            if Some(at) >= floor(own) || (permission.is_none() && !is_ground) {
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
        "ops/quantized/vectors.rs",
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
