//! Tests that dependencies inside a crate point in one direction: every `crate::X` is checked against the order of the
//! crate's modules. Cargo keeps the order between the crates.

pub mod circles;
pub mod families;
pub mod imports;
pub mod reached;
pub mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Module;

use crate::sources;

/// The crates, by the folders of their sources.
const CRATES: &[(&str, &str)] = &[
    ("base", "src/base"),
    ("runtime", "src/runtime"),
    ("data", "src/data"),
    ("model", "src/model"),
    ("train", "src/train"),
    ("app", "src/app"),
    ("bench", "bench/src"),
    ("verify", "verifier/src"),
];

/// Modules of `base` that every module above them may use.
const GROUND: &[&str] = &["error", "choice", "math", "philox", "files", "bounds", "secrets"];

/// A module, and the lower ones that it may use.
type Allowed = (&'static str, &'static [&'static str]);

/// The modules of each crate from the bottom up, and the lower ones of the same crate that each may use in addition to
/// `GROUND`. The order between crates is kept by cargo.
const MODULES: &[(&str, &[Allowed])] = &[
    (
        "base",
        &[
            ("error", &[]),
            ("choice", &[]),
            ("math", &[]),
            ("philox", &["math"]),
            ("files", &["error"]),
            ("bounds", &[]),
            ("secrets", &[]),
            ("observe", &[]),
            ("signal", &[]),
            ("config", &[]),
            ("client", &["config", "observe"]),
            ("answers", &["client"]),
            ("hub", &["config", "observe", "client"]),
            ("identity", &["hub::base_model", "config"]),
            ("frame", &[]),
        ],
    ),
    (
        "runtime",
        &[
            ("device", &[]),
            ("machine", &["device"]),
            ("tensor", &["device"]),
            ("ranks", &["device", "tensor"]),
            ("ops", &["device", "tensor"]),
        ],
    ),
    (
        "data",
        &[
            ("image", &[]),
            ("text", &["image"]),
            ("reward", &[]),
            ("rows", &["text", "image", "reward"]),
            ("task", &["text", "image", "reward", "rows"]),
        ],
    ),
    (
        "model",
        &[
            ("nn", &[]),
            ("optim", &["nn"]),
            ("checkpoint", &[]),
            ("engine", &["nn"]),
            ("llm", &["nn", "engine"]),
            ("rollout", &["nn", "engine", "llm"]),
        ],
    ),
    (
        "train",
        &[
            ("training", &[]),
            ("rl", &["training"]),
            (
                "eval",
                &[
                    "training::job",
                    "training::metrics",
                    "training::plan",
                    "training::saving",
                    "training::step",
                    "training::trainer_config",
                    "training::val_loss",
                    "training::validation",
                ],
            ),
            ("replay", &["training", "rl", "eval"]),
            ("plan", &["training", "rl"]),
        ],
    ),
    (
        "app",
        &[
            ("report", &[]),
            ("pipeline", &[]),
            ("recipe", &["report", "pipeline"]),
            ("serve", &[]),
            ("cli", &["report", "pipeline", "recipe", "serve"]),
        ],
    ),
];

/// Returns the modules of a crate by path, such as `runtime::ops::linear`. The crate's root is left out.
fn modules_of(name: &str, src: &Path) -> BTreeMap<String, Module> {
    let read = |file: PathBuf| {
        let inner = file.strip_prefix(src).unwrap().with_extension("");
        let parts: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
        let module = Module::read(&fs::read_to_string(&file).unwrap());
        (!["lib", "main", "build"].contains(&parts[0])).then(|| (format!("{name}::{}", parts.join("::")), module))
    };
    sources(src).into_iter().filter_map(read).collect()
}

/// Returns the modules of all crates.
fn modules() -> BTreeMap<String, Module> {
    CRATES.iter().flat_map(|(name, folder)| modules_of(name, &crate::root().join(folder))).collect()
}

/// Returns what is wrong with the order of these modules, and the permissions of [`MODULES`] that none of them uses.
fn check(files: &BTreeMap<String, Module>) -> (Vec<String>, BTreeSet<String>) {
    let mut wrong = Vec::new();
    let permissions = |(name, order): &(&str, &[(&str, &[&str])])| -> Vec<String> {
        order.iter().flat_map(|(own, below)| below.iter().map(move |b| format!("{name}::{own}: {b}"))).collect()
    };
    let mut unused: BTreeSet<String> = MODULES.iter().flat_map(permissions).collect();
    for (path, module) in files {
        let (name, inner) = path.split_once("::").unwrap();
        let own = inner.split("::").next().unwrap();
        let Some((_, order)) = MODULES.iter().find(|(known, _)| *known == name) else { continue };
        let floor = |module: &str| order.iter().position(|(known, _)| *known == module);
        let Some(at) = floor(own) else {
            wrong.push(format!("{path}: {own} has no place in the order"));
            continue;
        };
        let exports = module.exports.values().map(String::as_str);
        for used in module.uses.iter().map(String::as_str).chain(exports).filter_map(|u| u.strip_prefix("crate::")) {
            let target = used.split("::").next().unwrap();
            let Some(below) = floor(target).filter(|_| target != own) else { continue };
            let permission = order[at].1.iter().find(|b| used == **b || used.starts_with(&format!("{b}::")));
            if let Some(permission) = permission {
                unused.remove(&format!("{name}::{own}: {permission}"));
            }
            if below >= at || (permission.is_none() && !GROUND.contains(&target)) {
                wrong.push(format!("{path} may not name {used}"));
            }
        }
    }
    (wrong, unused)
}

#[test]
fn modules_name_only_the_modules_below_them() {
    let (wrong, unused) = check(&modules());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unused.is_empty(), "permitted, and not used: {unused:?}");
}

#[test]
fn an_arrow_that_points_up_is_found() {
    for (path, text) in [
        ("model::nn::params", "use crate::engine::Engine;"),
        ("model::checkpoint::store", "fn save(of: &crate::nn::Model) {}"),
        ("base::identity::model", "pub use crate::hub::{base_model, settings};"),
        ("train::training", "mod a { use crate::{rl::run, eval}; }"),
        ("app::new::file", ""),
    ] {
        let (wrong, _) = check(&BTreeMap::from([(path.to_owned(), Module::read(text))]));
        assert!(!wrong.is_empty() && wrong.iter().all(|line| line.starts_with(path)), "{path}: {wrong:?}");
    }
}

#[test]
fn unsafe_stands_only_where_it_is_meant_to() {
    let meant = [
        "device/",
        "ops/matmul/",
        "ops/attention",
        "ops/paged_attention",
        "ops/quantized/vectors.rs",
        "ops/linear_logprob",
        "ops/sample",
        "ops/tile.rs",
    ]
    .map(|place| format!("src/runtime/{place}"));
    for file in ["src", "bench/src"].iter().flat_map(|folder| sources(&crate::root().join(folder))) {
        let inner = file.strip_prefix(crate::root()).unwrap().to_str().unwrap().to_owned();
        let code: String = fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n")
            .collect();
        let found = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        assert!(!found || meant.iter().any(|m| inner.starts_with(m.as_str())), "{inner} holds unsafe code");
    }
}
