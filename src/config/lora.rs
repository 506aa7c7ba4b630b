//! Config keys of LoRA: training small adapters of linear layers instead of the model's weights.

use serde_json::Value;

use super::{Place, Rule, Setting};
use crate::error::{Error, Result};

/// Value of `target_modules` that takes every linear layer.
const ALL: &str = "all-linear";
/// Linear layers of the language model. Those of the vision tower's MLP have the same names.
const LANGUAGE: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// Further linear layers of the vision tower and of its merger.
const VISION: [&str; 4] = ["qkv", "attn.proj", "mlp.0", "mlp.2"];
/// Layers that no adapter supports.
const REFUSED: [&str; 4] = ["lm_head", "embed_tokens", "patch_embed", "patch_embed.proj"];

settings! {
    /// Settings of LoRA. Only adapters are trained; the weights of the model stay as they are.
    #[derive(Copy)]
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

impl LoraConfig {
    /// Returns true if the module with this released name (`model.layers.0.self_attn.q_proj`) gets an adapter.
    pub fn takes(&self, module: &str) -> bool {
        let is_named = |name: &&str| module.strip_suffix(*name).is_some_and(|rest| rest.ends_with('.'));
        let known = TargetModules::names().position(|name| is_named(&name));
        (self.vision || !module.starts_with("visual.")) && known.is_some_and(|i| self.target_modules.0 >> i & 1 == 1)
    }

    /// Returns an error if no layer is left, because `vision` is false.
    pub(super) fn check(&self, place: &Place, path: &str) -> Result<()> {
        if self.vision || self.target_modules.0 & ((1 << LANGUAGE.len()) - 1) != 0 {
            return Ok(());
        }
        let key = place.of(&super::table::join(path, "target_modules"));
        Err(Error::input(key, "layers of the vision tower", "a layer of the language model, or vision=true"))
    }
}

/// A set of linear layers, as a bit for each name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetModules(u32);

impl Default for TargetModules {
    fn default() -> TargetModules {
        TargetModules((1 << TargetModules::names().count()) - 1)
    }
}

impl TargetModules {
    fn names() -> impl Iterator<Item = &'static str> {
        LANGUAGE.into_iter().chain(VISION)
    }

    /// Returns the bits of one entry of a list.
    fn bits(text: &str) -> Option<u32> {
        let name = if text == "proj" { "attn.proj" } else { text };
        if name == ALL {
            return Some(TargetModules::default().0);
        }
        TargetModules::names().position(|known| known == name).map(|i| 1 << i)
    }
}

impl Setting for TargetModules {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let entries = match value {
            Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        self.0 = 0;
        for entry in entries {
            let text = entry.as_str().unwrap_or_default();
            self.0 |= TargetModules::bits(text).ok_or_else(|| {
                let found = crate::config::describe::inline(entry);
                let names = TargetModules::names().collect::<Vec<_>>().join(", ");
                match REFUSED.contains(&text) {
                    true => Error::input(
                        place.of(path),
                        found,
                        "a linear layer inside the model: adapters of the token \
                        table, the output matrix and the patch embedding are not supported",
                    ),
                    false => Error::input(place.of(path), found, format!("{ALL}, or names among {names}")),
                }
            })?;
        }
        if self.0 == 0 {
            return Err(Error::input(place.of(path), "an empty list", "at least one layer"));
        }
        Ok(())
    }
    fn write(&self) -> Value {
        if *self == TargetModules::default() {
            return ALL.into();
        }
        TargetModules::names().enumerate().filter(|(i, _)| self.0 >> i & 1 == 1).map(|(_, name)| name).collect()
    }
    fn kind(&self) -> String {
        format!("{ALL}, or a list of names of linear layers")
    }
}
