//! Detects keys of verl and lmms-engine in a config and reports the omr key to use instead.
//!
//! Most answers come from the declarations of the omr keys, because a declaration also contains the key's name in the
//! other system. The table `INSTEAD` below covers the keys that have no direct counterpart.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::setting::{Key, Place};
use super::table::join;
use super::{Config, RlConfig, SftConfig, keys};
use crate::error::{Error, Result};

/// First parts of the keys of other systems, each with the name of the system.
const ROOTS: [(&str, &str); 12] = [
    ("actor_rollout_ref", "verl"),
    ("algorithm", "verl"),
    ("critic", "verl"),
    ("custom_reward_function", "verl"),
    ("data", "verl"),
    ("reward_model", "verl"),
    ("ray_kwargs", "verl"),
    ("trainer", "verl"),
    ("dataset_config", "lmms-engine"),
    ("model_config", "lmms-engine"),
    ("processor_config", "lmms-engine"),
    ("trainer_args", "lmms-engine"),
];

/// Keys that have no omr key with the same meaning, each with what to use instead. `.*` stands for all keys of a group.
const INSTEAD: [(&str, &str); 56] = [
    ("data.prompt_key", "train_files=[{path: FILE, columns: {question: NAME}}]"),
    ("data.image_key", "train_files=[{path: FILE, columns: {images: NAME}}]"),
    ("data.reward_fn_key", "train_files=[{path: FILE, columns: {data_source: NAME}}]"),
    ("data.truncation", "nothing (longer prompts are left out and named in rejected.jsonl)"),
    ("data.filter_overlong_prompts", "nothing (longer prompts are left out and named in rejected.jsonl)"),
    ("data.return_multi_modal_inputs", "nothing (pictures go with their prompts)"),
    ("data.val_batch_size", "rollout.max_num_seqs"),
    ("actor_rollout_ref.nccl_timeout", "dist.timeout_s"),
    ("actor_rollout_ref.model.use_remove_padding", "nothing (there is no padding)"),
    ("actor_rollout_ref.model.enable_gradient_checkpointing", "max_memory_gib (decides which activations are stored)"),
    ("actor_rollout_ref.model.lora_rank", "nothing (omr trains all weights: LoRA is not supported)"),
    ("actor_rollout_ref.actor.clip_ratio", "clip_ratio_low and clip_ratio_high"),
    ("actor_rollout_ref.actor.use_dynamic_bsz", "nothing (micro-batches are cut by micro_batch_tokens)"),
    ("actor_rollout_ref.ref.log_prob_use_dynamic_bsz", "nothing (micro-batches are cut by micro_batch_tokens)"),
    ("actor_rollout_ref.rollout.log_prob_use_dynamic_bsz", "nothing (micro-batches are cut by micro_batch_tokens)"),
    ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", "micro_batch_tokens (in tokens)"),
    ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", "micro_batch_tokens (in tokens)"),
    ("actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", "nothing (sampled log-probs equal the trainer's)"),
    ("actor_rollout_ref.ref.log_prob_max_token_len_per_gpu", "micro_batch_tokens"),
    ("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu", "nothing (sampled log-probs equal the trainer's)"),
    ("actor_rollout_ref.actor.entropy_checkpointing", "nothing (entropy takes no additional memory)"),
    ("actor_rollout_ref.actor.ulysses_sequence_parallel_size", "nothing (one GPU computes a whole sequence)"),
    ("actor_rollout_ref.ref.ulysses_sequence_parallel_size", "nothing (one GPU computes a whole sequence)"),
    ("actor_rollout_ref.actor.fsdp_config.*", "optim=adamw_8bit (uses less memory; offloading is not supported)"),
    ("actor_rollout_ref.ref.fsdp_config.*", "nothing (a reference model exists only with a KL term)"),
    ("actor_rollout_ref.rollout.name", "nothing (omr has its own sampler, which uses the trainer's weights directly)"),
    ("actor_rollout_ref.rollout.mode", "nothing (omr has its own sampler, which uses the trainer's weights directly)"),
    ("actor_rollout_ref.rollout.tensor_model_parallel_size", "nothing (each GPU has all weights)"),
    ("actor_rollout_ref.rollout.gpu_memory_utilization", "max_memory_gib or rollout.num_kv_blocks"),
    ("actor_rollout_ref.rollout.enable_chunked_prefill", "nothing (prompts are always prefilled in chunks)"),
    ("actor_rollout_ref.rollout.val_kwargs.do_sample", "val_kwargs.temperature (0 is greedy)"),
    ("critic.*", "nothing (advantages are relative to a group: there is no critic)"),
    ("reward_model.reward_manager", "overlong_buffer.enable (the penalty of the manager `dapo`)"),
    ("reward_model.reward_kwargs.max_resp_len", "max_response_length"),
    ("reward_model.reward_kwargs.overlong_buffer_cfg.log", "nothing (critic/rewards and critic/score are both logged)"),
    ("custom_reward_function.name", "reward.command"),
    ("ray_kwargs.*", "torchrun, srun or mpirun, one process per GPU"),
    ("trainer.n_gpus_per_node", "--gpus N"),
    ("trainer.nnodes", "torchrun, srun or mpirun, one process per GPU"),
    ("trainer.default_local_dir", "--out DIR"),
    ("trainer.project_name", "--out DIR"),
    ("trainer.experiment_name", "--out DIR"),
    ("dataset_config.packing", "nothing (rows are always packed)"),
    ("dataset_config.packing_strategy", "nothing (rows are packed in their order, as lmms-engine's iterable set does)"),
    ("dataset_config.filter_overlong", "nothing (longer rows are left out and named in rejected.jsonl)"),
    ("dataset_config.dataset_path", "datasets"),
    ("dataset_config.video_*", "nothing (a row lists the frames of its videos)"),
    ("model_config.attn_implementation", "nothing (omr has its own attention kernels)"),
    ("processor_config.*", "model (its directory contains the tokenizer and the preprocessor config)"),
    ("trainer_args.output_dir", "--out DIR"),
    ("trainer_args.run_name", "--out DIR"),
    ("trainer_args.freeze_modules", "freeze_vision_tower, freeze_multi_modal_projector, freeze_language_model"),
    ("trainer_args.gradient_checkpointing", "max_memory_gib (decides which activations are stored)"),
    ("trainer_args.use_liger_kernel", "nothing (omr has its own kernels)"),
    ("trainer_args.use_rmpad", "nothing (there is no padding)"),
    ("trainer_args.fsdp*", "nothing (each GPU has all weights and a shard of the optimizer state)"),
];

/// Returns an error if `tree` contains keys of another system. The error contains the omr counterpart of each.
pub(super) fn refuse<C: Config>(place: &Place, tree: &Map<String, Value>) -> Result<()> {
    let own = keys::<C>();
    let mut leaves = Vec::new();
    collect("", tree, &mut leaves);
    let is_own = |path: &str| {
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        own.iter().any(|key| key.path.strip_prefix(path).is_some_and(below))
    };
    leaves.retain(|path| !is_own(path));
    let others = LazyLock::new(|| [("sft", keys::<SftConfig>()), ("rl", keys::<RlConfig>())]);
    let answers = leaves.iter().filter_map(|path| {
        let theirs = path.trim_start_matches('+');
        let root = theirs.split('.').next().unwrap_or_default();
        // `data` is also a group of omr, in the config of another command.
        let is_foreign = || root != "data" && ROOTS.iter().any(|(name, _)| *name == root) && !is_own(root);
        let ours = answer(theirs, &own, &*others).or_else(|| is_foreign().then(|| "nothing in omr".to_owned()))?;
        Some((path, root, format!("instead of {theirs}: {ours}")))
    });
    let answers: Vec<(&String, &str, String)> = answers.collect();
    let Some((path, root, _)) = answers.first() else { return Ok(()) };
    let system = ROOTS.iter().find(|(name, _)| name == root).map_or("another trainer", |(_, system)| system);
    let found = match answers.len() {
        1 => format!("a key of {system}"),
        n => format!("{n} keys of {system}"),
    };
    let expected: Vec<&str> = answers.iter().map(|(.., answer)| answer.as_str()).collect();
    let hint = format!("`omr config {}` lists every key with its name there", C::NAME);
    Err(Error::input_hint(place.of(path), found, expected.join("; "), hint))
}

fn collect(path: &str, group: &Map<String, Value>, out: &mut Vec<String>) {
    for (name, value) in group {
        let path = join(path, name);
        match value {
            Value::Object(below) if !below.is_empty() => collect(&path, below, out),
            _ => out.push(path),
        }
    }
}

/// Returns the omr counterpart of the key `theirs`. Searches the keys of this config first, then the table, then the
/// keys of the other commands.
fn answer(theirs: &str, own: &[Key], others: &[(&str, Vec<Key>)]) -> Option<String> {
    let named = |keys: &[Key]| {
        let is_it = |key: &&Key| elsewhere(key) == Some(theirs);
        let paths: Vec<&str> = keys.iter().filter(is_it).map(|key| key.path.as_str()).collect();
        (!paths.is_empty()).then(|| paths.join(" or "))
    };
    let instead = || {
        let is_it = |(key, _): &&(&str, &str)| key.strip_suffix('*').map_or(*key == theirs, |s| theirs.starts_with(s));
        INSTEAD.iter().find(is_it).map(|(_, ours)| (*ours).to_owned())
    };
    let others = || others.iter().find_map(|(command, keys)| Some(format!("{} of `omr {command}`", named(keys)?)));
    named(own).or_else(instead).or_else(others)
}

/// Returns the name of a key in verl or lmms-engine.
fn elsewhere(key: &Key) -> Option<&'static str> {
    let name = key.meta.name;
    name.strip_prefix("verl ").or_else(|| name.strip_prefix("lmms-engine "))?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<C: Config>(text: &str) -> String {
        let Value::Object(tree) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        refuse::<C>(&Place::default(), &tree).expect_err(text).to_string()
    }

    #[test]
    fn keys_of_verl_and_lmms_engine_are_answered_with_ours() {
        let pasted = r#"{"actor_rollout_ref": {"rollout": {"n": 16, "gpu_memory_utilization": 0.8}, "x": {"y": 1}},
            "data": {"prompt_key": "q", "num_rollouts": 4}, "+reward_model": {"reward_kwargs": {"overlong_buffer_cfg": {"len": 4096}}},
            "trainer": {"n_gpus_per_node": 8, "total_epochs": 15}, "seed": 1}"#;
        let message = refused::<RlConfig>(pasted);
        for part in [
            "7 keys of verl",
            "actor_rollout_ref.rollout.n: rollout.n;",
            "actor_rollout_ref.rollout.gpu_memory_utilization: max_memory_gib or",
            "instead of actor_rollout_ref.x.y: nothing",
            "data.prompt_key: train_files=[{",
            "reward_model.reward_kwargs.overlong_buffer_cfg.len: overlong_buffer.len",
            "trainer.n_gpus_per_node: --gpus N",
            "trainer.total_epochs: total_epochs",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let recipe = refused::<super::super::RecipeConfig>(r#"{"data": {"train_batch_size": 8}}"#);
        assert!(recipe.contains("data.train_batch_size: rl.train_batch_size"), "{recipe}");
        let sft = refused::<SftConfig>(r#"{"trainer_args": {"learning_rate": 1, "fsdp2": true}}"#);
        assert!(sft.contains("trainer_args.learning_rate: learning_rate; instead of trainer_args.fsdp2"), "{sft}");
        let rl = refused::<RlConfig>(r#"{"dataset_config": {"packing_length": 1}}"#);
        assert!(rl.contains("packing_length of `omr sft`"), "{rl}");
    }

    #[test]
    fn no_line_says_again_what_a_key_says_and_each_begins_with_a_root() {
        let own: Vec<Key> = keys::<RlConfig>().into_iter().chain(keys::<SftConfig>()).collect();
        for (theirs, _) in INSTEAD {
            assert!(!own.iter().any(|key| elsewhere(key) == Some(theirs)), "{theirs}");
            assert!(ROOTS.iter().any(|(root, _)| theirs.split('.').next() == Some(root)), "{theirs}");
        }
    }
}
