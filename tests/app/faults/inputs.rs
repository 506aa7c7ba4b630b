//! Tests what happens if an input of a recipe changes between a kill and the next start.

use std::path::Path;

use omr_app::recipe::Recipe;
use omr_base::config::{self, RecipeConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_runtime::device::{Device, Isa, Target};
use omr_runtime::machine::Machine;
use omr_runtime::ranks::OneRank;
use omr_train_tests::faults::inputs::Change::*;
use omr_train_tests::faults::inputs::{HELDOUT, Killed, LONGER, StopAt, folder};

fn recipe(dir: &Path, observer: &dyn Observer) -> Result<()> {
    let keys = ["sft.max_steps=2", "rl.total_training_steps=2", "rl.save_freq=1", "control.enable=false"];
    let small =
        ["task.num_sft_questions=12", "task.num_heldout_questions=3", "rl.train_batch_size=4", "rl.rollout.n=2"];
    let more = ["rl.ppo_mini_batch_size=4", "eval.max_new_tokens=4", "data.num_rollouts=1"];
    let keys: Vec<String> = keys.iter().chain(&small).chain(&more).map(|key| (*key).to_owned()).collect();
    let config: RecipeConfig = config::load(Some(Path::new(RECIPE)), &keys, &|_| None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let machine = Machine {
        target: Target::cpu(1),
        threads: 1,
        place: "cpu".to_owned(),
        device: &|plan| Device::cpu(plan, 1, Isa::detect()),
        runtime: &|| Ok(runtime.handle().clone()),
        observer,
    };
    let mut alone = OneRank::ALONE;
    Recipe::new(dir, config, &machine)?.run(&mut alone)
}

#[test]
fn an_input_of_a_recipe_that_changed_is_refused_by_name() {
    let folder = folder();
    let work = folder.path().join("work");
    let stopped = recipe(&work, &StopAt(work.join("rl/metrics.jsonl"), 1));
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let (weights, rl) = ("sft/model/model.safetensors", "data/rl.parquet");
    let count = Killed::new(&work, "recipe", recipe, "rl").cases(&[
        ("model.safetensors", &[(weights, Flipped)]),
        ("generation_config.json (missing)", &[("sft/model/generation_config.json", Removed)]),
        (rl, &[(rl, Flipped)]),
        ("metrics.jsonl", &[("rl/metrics.jsonl", Lines(Vec::clear))]),
        ("heldout.parquet", &[("data/heldout.parquet", Flipped)]),
        ("base/model/tokenizer_config.json", &[("base/model/tokenizer_config.json", LONGER)]),
        // RL has not started.
        (weights, &[("rl", Removed), (weights, Flipped)]),
        ("tokenizer_config.json (missing)", &[("rl", Removed), ("sft/model/tokenizer_config.json", Removed)]),
        (rl, &[("rl", Removed), (rl, HELDOUT)]),
        ("", &[("rl/index", Removed)]),
    ]);
    assert!(count >= 10);
}

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cli/recipe.yaml");
