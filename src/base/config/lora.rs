//! Config keys of LoRA: training small adapters of linear layers instead of the model's weights.

use serde_json::Value;

use super::{Place, Rule, Setting};
use crate::error::{Error, Result};

/// Value of `target_modules` that takes every linear layer.
const ALL: &str = "all-linear";

settings! {
    /// Settings of LoRA. Only adapters are trained; the weights of the model stay as they are.
    pub struct LoraConfig {
        /// Number of columns of B and of rows of A.
        rank: usize = 16, rule: Rule::Within(1.0, 256.0),
            name: "verl actor_rollout_ref.model.lora_rank; verl actor_rollout_ref.model.lora.rank; \
                LLaMA-Factory lora_rank; TRL lora_r; PEFT r";
        /// The product of B and A is scaled by alpha / rank.
        alpha: f64 = 32.0, rule: Rule::Above(0.0),
            name: "verl actor_rollout_ref.model.lora_alpha; verl actor_rollout_ref.model.lora.alpha; \
                PEFT lora_alpha";
        /// Linear layers with an adapter: `all-linear`, or names such as q_proj.
        target_modules: TargetModules = TargetModules::default(),
            name: "verl actor_rollout_ref.model.target_modules; verl actor_rollout_ref.model.lora.target_modules; \
                LLaMA-Factory lora_target; TRL lora_target_modules; PEFT target_modules";
        /// Scale by alpha / sqrt(rank) instead.
        use_rslora: bool = false, name: "PEFT use_rslora";
        /// Also adapt the vision tower and its merger. `all-linear` of PEFT includes them.
        vision: bool = false;
        /// Dropout of the input of A. Only 0 is supported.
        dropout: f64 = 0.0, rule: Rule::Within(0.0, 0.0), name: "PEFT lora_dropout";
    }
}

/// Names of linear layers, or `all-linear`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetModules(Vec<String>);

impl Default for TargetModules {
    fn default() -> TargetModules {
        TargetModules(vec![ALL.to_owned()])
    }
}

impl TargetModules {
    /// Returns true if the linear layer with this name (`model.layers.0.self_attn.q_proj`) is named.
    pub fn takes(&self, module: &str) -> bool {
        self.0.iter().any(|name| name == ALL || is_named(module, name))
    }

    /// Returns the first name that none of the linear layers `modules` has.
    pub fn unknown<'a>(&self, modules: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let is_known = |name: &str| name == ALL || modules.clone().any(|module| is_named(module, name));
        self.0.iter().map(String::as_str).find(|name| !is_known(name))
    }
}

fn is_named(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

impl Setting for TargetModules {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let entries = match value {
            Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        let wrong = |entry: &Value| Error::input(place.of(path), crate::config::describe::inline(entry), self.kind());
        let name = |entry: &Value| {
            let text = entry.as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| wrong(entry))
        };
        self.0 = entries.into_iter().map(name).collect::<Result<_>>()?;
        if self.0.is_empty() {
            return Err(Error::input(place.of(path), "an empty list", "at least one layer"));
        }
        Ok(())
    }
    fn write(&self) -> Value {
        if *self == TargetModules::default() { ALL.into() } else { self.0.clone().into() }
    }
    fn kind(&self) -> String {
        format!("{ALL}, or a list of names of linear layers")
    }
}
