//! Adapters in files, as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`. The weights are written as
//! f32 masters, because S would not come back from bf16. Tensors are found by name: by the path of their module in
//! memory, which PEFT writes, or by its name in the files of the base.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};

use super::attach::{Masters, module, scale};
use crate::nn::config::Family;
use crate::nn::family::names::{path_in_memory, released_name};
use crate::nn::weights::linear_layer::{A, B};
use crate::nn::weights::outgoing::{OutFile, Outgoing, Part};
use crate::nn::weights::params::Piece;
use crate::nn::weights::{ADAPTER, StoredTensor, WeightFiles, is_float};
use crate::nn::{Model, ModelConfig, OutModel, ParamLayout};
use omr_base::error::{Error, Result};
use omr_base::hub::base_model::ADAPTER_CONFIG as CONFIG;
use omr_base::{files, identity};
use omr_runtime::device::Device;
use omr_runtime::tensor::{DType, Tensor};

/// Key in the header of the tensors with [`AdapterConfig::base_weights`].
const BASE_WEIGHTS: &str = "base_weights";
/// Start of the names of all tensors.
const PREFIX: &str = "base_model.model.";

/// Returns true if the directory contains an adapter.
pub fn exist_in(dir: &Path) -> bool {
    dir.join(CONFIG).exists()
}

/// The settings of an adapter that its result depends on.
#[derive(Clone, PartialEq, Debug)]
pub struct AdapterConfig {
    /// Name or path of the base model.
    pub base: String,
    /// Rows of each A.
    pub rank: usize,
    /// The product of B and A is scaled by alpha / rank, or by alpha / sqrt(rank) with `use_rslora`.
    pub alpha: f64,
    /// Scaling of rsLoRA.
    pub use_rslora: bool,
    /// Hash of the base's weights, if the adapter records it ([`identity::base_weights`]).
    pub base_weights: Option<String>,
}

impl AdapterConfig {
    /// Returns the factor of the product of B and A.
    pub fn scale(&self) -> f32 {
        scale(self.rank, self.alpha, self.use_rslora)
    }

    /// Reads `adapter_config.json` in `dir`. Errors name a setting that would change the result and is not supported.
    pub fn read(dir: &Path) -> Result<AdapterConfig> {
        let path = dir.join(CONFIG);
        let value: Value = files::json::read(&path)?;
        let is_unset = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        let wrong = |key: &str, expected: &str| {
            Err(Error::format(&path, format!("{key} is {}, expected {expected}", value[key])))
        };
        let map = value.as_object().ok_or_else(|| Error::format(&path, "expected an object"))?;
        let is_known =
            |key: &String| READ.split_whitespace().chain(HARMLESS.split_whitespace()).any(|known| known == key);
        if let Some((key, _)) = map.iter().find(|(key, value)| !is_unset(value) && !is_known(key)) {
            return wrong(key, "none: omr computes plain adapters of linear layers");
        }
        let starts: [Value; 5] = [Value::Null, json!(true), json!(false), json!("gaussian"), json!("orthogonal")];
        if !starts.contains(&value["init_lora_weights"]) {
            return wrong("init_lora_weights", "true or gaussian: others change the weights of the base");
        }
        if value["peft_type"] != "LORA" {
            return wrong("peft_type", "LORA");
        }
        if !(is_unset(&value["bias"]) || value["bias"] == "none") {
            return wrong("bias", "none");
        }
        let Some(rank) = value["r"].as_u64().filter(|rank| (1..=MAX_RANK).contains(rank)) else {
            return wrong("r", &format!("a whole number from 1 to {MAX_RANK}"));
        };
        if !value["use_rslora"].is_null() && !value["use_rslora"].is_boolean() {
            return wrong("use_rslora", "true or false");
        }
        let Some(alpha) = value["lora_alpha"].as_f64().filter(|alpha| *alpha > 0.0) else {
            return wrong("lora_alpha", "a positive number");
        };
        let base = value["base_model_name_or_path"].as_str().unwrap_or_default().to_owned();
        let use_rslora = value["use_rslora"] == true;
        Ok(AdapterConfig { base, rank: rank as usize, alpha, use_rslora, base_weights: None })
    }

    /// Returns the text of `adapter_config.json` for adapters of `modules`, of all modules in `known` (released names).
    fn text(&self, family: &Family, modules: &[&str], known: &[&str]) -> String {
        let alpha = if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) };
        let value = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "target_modules": target_modules(family, modules, known),
            "use_rslora": self.use_rslora,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "use_dora": false,
        });
        format!("{value:#}\n")
    }
}

/// Largest rank: more than any layer is wide.
const MAX_RANK: u64 = 1 << 16;

/// Settings that are read here. Those of a list may be absent, but they never change the result in silence.
const READ: &str = "peft_type base_model_name_or_path r lora_alpha use_rslora bias init_lora_weights target_modules \
    exclude_modules layers_to_transform";
/// Settings of PEFT and of programs that use it that change the training of an adapter, and not its result.
const HARMLESS: &str = "task_type inference_mode lora_dropout auto_mapping revision peft_version megatron_core \
    megatron_config loftq_config eva_config corda_config lora_ga_config runtime_config qalora_group_size \
    ensure_weight_tying unsloth_fixed";

/// Modules, as a setting of PEFT names them.
enum Modules {
    /// In no form that is known here.
    Unknown,
    /// Paths, or their last parts.
    Names(Vec<String>),
    /// A regular expression of whole paths.
    Pattern(Regex),
}

impl Modules {
    /// Returns true if the module at `path` in memory is one of them, or `unknown` if the form is not known.
    fn contain(&self, path: &str, unknown: bool) -> bool {
        let ends =
            |name: &String| path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        match self {
            Modules::Unknown => unknown,
            Modules::Names(names) => names.iter().any(ends),
            Modules::Pattern(pattern) => pattern.is_match(path),
        }
    }
}

/// The modules that have adapters according to the settings.
struct Targets {
    targets: Modules,
    excluded: Modules,
    /// Pattern of the paths in the layers that have adapters.
    layers: Option<Regex>,
}

impl Targets {
    fn read(path: &Path) -> Result<Targets> {
        let value: Value = files::json::read(path)?;
        let wrong =
            |key: &str, expected: &str| Error::format(path, format!("{key} is {}, expected {expected}", value[key]));
        let modules = |key: &str| match &value[key] {
            Value::Null if key == "exclude_modules" => Ok(Modules::Names(Vec::new())),
            Value::String(text) if text == "all-linear" => Ok(Modules::Unknown),
            // Python's look-arounds have no counterpart here.
            Value::String(text) => Ok(Regex::new(&format!("^(?:{text})$")).map_or(Modules::Unknown, Modules::Pattern)),
            list => serde_json::from_value(list.clone())
                .map_or_else(|_| Err(wrong(key, "a list of names or a pattern")), |names| Ok(Modules::Names(names))),
        };
        let numbers = match &value["layers_to_transform"] {
            Value::Null => String::new(),
            numbers => numbers.to_string().replace(['[', ']'], "").replace(',', "|"),
        };
        if numbers.contains(|c: char| !c.is_ascii_digit() && c != '|') {
            return Err(wrong("layers_to_transform", "numbers of layers"));
        }
        // As in PEFT, the number follows the name of a list of layers.
        let layers = Regex::new(&format!(r"\.[^.]*\.(?:{numbers})\.")).ok().filter(|_| !numbers.is_empty());
        Ok(Targets { targets: modules("target_modules")?, excluded: modules("exclude_modules")?, layers })
    }

    /// Returns true if the module at `path` in memory has an adapter, or `of_file` if the settings do not say it.
    fn contain(&self, path: &str, of_file: bool) -> bool {
        let is_in_layer = self.layers.as_ref().is_none_or(|layers| layers.is_match(path));
        self.targets.contain(path, of_file) && !self.excluded.contain(path, !of_file) && is_in_layer
    }
}

/// Returns a regular expression that matches the paths in memory of `modules` completely, and of no other module in
/// `known`: without layer numbers if all layers have the same adapters, and otherwise with every path.
fn target_modules(family: &Family, modules: &[&str], known: &[&str]) -> String {
    let any_layer = |module: &str| {
        let parts: Vec<String> = path_in_memory(family, module).split('.').map(str::to_owned).collect();
        let is_layer = |i: usize| i > 0 && ["layers", "blocks"].contains(&parts[i - 1].as_str());
        let pattern = parts.iter().enumerate().map(|(i, part)| if is_layer(i) { "\\d+" } else { part.as_str() });
        pattern.collect::<Vec<_>>().join("\\.")
    };
    let mut patterns: Vec<String> = modules.iter().map(|module| any_layer(module)).collect();
    patterns.sort();
    patterns.dedup();
    let matched = known.iter().filter(|module| patterns.contains(&any_layer(module))).count();
    if matched != modules.len() {
        patterns = modules.iter().map(|module| path_in_memory(family, module).replace('.', "\\.")).collect();
    }
    patterns.join("|")
}

/// Returns the name in PEFT's file of a tensor of A or B.
fn stored_name(family: &Family, piece: &Piece) -> String {
    let module = module(piece);
    format!("{PREFIX}{}{}", path_in_memory(family, module), &piece.name[module.len()..])
}

/// An adapter in a directory.
pub struct StoredAdapter {
    /// Its settings.
    pub config: AdapterConfig,
    targets: Targets,
    files: WeightFiles,
    /// Names in the file by released name (`model.layers.0.self_attn.q_proj.lora_A.weight`).
    names: BTreeMap<String, String>,
}

impl StoredAdapter {
    /// Opens the adapter in `dir`. Errors name a missing file, an unsupported setting or a tensor with an unknown name,
    /// type or value.
    pub fn open(dir: &Path) -> Result<StoredAdapter> {
        let mut config = AdapterConfig::read(dir)?;
        let path = dir.join(ADAPTER);
        let files = WeightFiles::open_files(dir, std::slice::from_ref(&path))?;
        config.base_weights = files.note(BASE_WEIGHTS).map(str::to_owned);
        let mut names = BTreeMap::new();
        for name in files.names() {
            let released = name.strip_prefix(PREFIX).map(released_name);
            let released = released.filter(|name| name.ends_with(A) || name.ends_with(B));
            let Some(released) = released else {
                let expected = format!("{PREFIX}PATH{A} or {B}");
                return Err(Error::format(&path, format!("the tensor {name}, expected names such as {expected}")));
            };
            if let Some(other) = names.insert(released, name.to_owned()) {
                return Err(Error::format(&path, format!("{name} and {other} are the same tensor")));
            }
        }
        Ok(StoredAdapter { config, targets: Targets::read(&dir.join(CONFIG))?, files, names })
    }

    /// Errors if the adapter records that its base has other weights than those in `base`.
    pub fn check_base(&self, base: &Path) -> Result<()> {
        let Some(recorded) = &self.config.base_weights else { return Ok(()) };
        if identity::base_weights(base)? == *recorded {
            return Ok(());
        }
        let found = format!("an adapter of other weights than those in {}", base.display());
        let hint = "base_model_name_or_path in its adapter_config.json names the directory of the base";
        Err(Error::input_hint(&self.files.dir, found, "the base that it was trained with", hint))
    }

    /// Adds this adapter to `model` and sets its weights. Errors if a tensor finds no layer or has another shape, or if
    /// the file lacks a tensor of a module that `target_modules` names.
    pub fn attach(&self, dev: &mut Device, model: &mut Model) -> Result<()> {
        let family = model.config.family;
        let takes = |module: &str, _| {
            let of_file = [A, B].iter().any(|end| self.names.contains_key(&format!("{module}{end}")));
            self.targets.contain(&path_in_memory(family, module), of_file)
        };
        model.attach(dev, self.config.rank, self.config.scale(), &takes)?;
        self.check(family, &model.layout)?;
        model.set_adapters(dev, self)
    }

    /// Returns the tensor with this released name, if there is one. Errors if its shape is not `shape`.
    pub(crate) fn tensor(&self, released: &str, shape: &[usize]) -> Option<Result<StoredTensor<'_>>> {
        self.names.get(released).map(|name| self.files.tensor(name, shape))
    }

    /// Errors unless the file has exactly the tensors of the adapters of `layout`, with finite values.
    pub fn check(&self, family: &Family, layout: &ParamLayout) -> Result<()> {
        let path = self.files.dir.join(ADAPTER);
        let mut unknown = self.names.clone();
        for (_, _, piece) in layout.pieces().filter(|(id, ..)| layout.params[*id].is_adapter) {
            let Some(name) = unknown.remove(&piece.name) else {
                return Err(Error::format(&path, format!("no tensor {}", stored_name(family, piece))));
            };
            let tensor = self.files.tensor(&name, &piece.shape)?;
            if !is_float(tensor.dtype) {
                return Err(Error::format(&path, format!("{name} is {:?}, expected F32, BF16 or F16", tensor.dtype)));
            }
            let mut values = vec![0.0; piece.num_elements()];
            tensor.row(0, &mut values);
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::format(&path, format!("{name} contains {value}, expected finite weights")));
            }
        }
        let Some(name) = unknown.into_values().next() else { return Ok(()) };
        Err(Error::format(&path, format!("{name} belongs to no linear layer that the settings of {CONFIG} name")))
    }
}

impl Masters for StoredAdapter {
    fn row(&self, piece: &Piece, r: usize, out: &mut [f32]) {
        // `check` has found every tensor.
        if let Some(Ok(tensor)) = self.tensor(&piece.name, &piece.shape) {
            tensor.row(r, out);
        }
    }
}

impl Model {
    /// Does the same as [`Model::empty`], with the adapter if `dir` contains one. A counting device computes nothing, so
    /// this is the model of `dir` for a plan.
    pub fn empty_of(dev: &mut Device, dir: &Path, config: ModelConfig, dtype: DType) -> Result<Model> {
        let mut model = Model::empty(dev, config, dtype)?;
        if exist_in(dir) {
            StoredAdapter::open(dir)?.attach(dev, &mut model)?;
        }
        Ok(model)
    }

    /// Plans the files of the model's adapters. `low_half` returns the low halves of the masters of a parameter, in the
    /// range `own` of the parameter that this process writes.
    pub fn outgoing_adapters(
        &self,
        layout: &Arc<ParamLayout>,
        config: &AdapterConfig,
        low_half: impl Fn(usize) -> Option<Tensor>,
        own: &[Range<usize>],
    ) -> OutModel {
        let (mut tensors, mut modules, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (id, number, piece) in layout.pieces() {
            let param = &layout.params[id];
            if !param.is_adapter {
                known.extend(param.is_matrix.then(|| module(piece)));
                continue;
            }
            modules.extend(piece.name.ends_with(A).then(|| module(piece)));
            let own = &own[id];
            let tensor = param.tensor.slice(own.start, own.end);
            let part = Part { layout, param: id, piece: number, tensor, own };
            tensors.push(Outgoing::master(stored_name(self.config.family, piece), part, low_half(id)));
        }
        let notes = config.base_weights.iter().map(|hash| (BASE_WEIGHTS.to_owned(), hash.clone())).collect();
        let weights = vec![OutFile { name: ADAPTER.to_owned(), tensors, notes }];
        // Commands read `config.json` in the directory of a model, although the weights of the base are elsewhere.
        let configs = vec![(CONFIG, config.text(self.config.family, &modules, &known)), self.config_file(layout.dtype)];
        OutModel { configs, weights }
    }
}
