//! `omr recipe`: data, SFT, RL, control, evaluation and report.

use serde_json::{Value, json};

use super::run_dir::RunDir;
use super::{Context, JobArgs, training};
use crate::config::{Config, Place, RecipeConfig, deciding};
use crate::device::Plan;
use crate::error::Result;
use crate::ranks::{self, Ranks};
use crate::recipe::{Means, Recipe};

/// Runs what is left of the recipe and prints the report's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<RecipeConfig>()? else { return Ok(()) };
    let args = args.of_restart(context)?;
    training::over(context.ranks(&args.run.out, &config.dist)?, |ranks| cooked(&args, (context, ranks), config))
}

fn cooked(args: &JobArgs, (context, ranks): (&Context, &mut dyn Ranks), mut config: RecipeConfig) -> Result<()> {
    let RecipeConfig { dtype, sft, rl, eval, .. } = &mut config;
    for dtype in [dtype, &mut sft.dtype, &mut rl.dtype, &mut eval.dtype] {
        *dtype = context.dtype(*dtype);
    }
    let (run, size) = (&args.run, ranks.size());
    sft.gradient_lanes =
        training::lanes(run, sft.gradient_lanes, size, |began: &RecipeConfig| began.sft.gradient_lanes)?;
    rl.gradient_lanes = training::lanes(run, rl.gradient_lanes, size, |began: &RecipeConfig| began.rl.gradient_lanes)?;
    config.validate(&Place::default())?;
    training::same_config(ranks, &deciding(&config))?;
    let means = Means {
        target: context.target(),
        place: context.place(),
        device: &|plan: &Plan| context.device(plan),
        runtime: &|| Ok(context.runtime()?.handle().clone()),
        observer: context.observer(),
    };
    let recipe = Recipe::new(&run.out, config, means)?;
    if context.leads() {
        recipe.announce();
        recipe.try_commands()?;
    }
    if run.dry_run {
        return run.planned(context, || plan(recipe.config()));
    }
    let dir = context.leads().then(|| RunDir::open(run, recipe.config(), context)).transpose()?;
    training::same_folder(run, ranks)?;
    if ranks::first_finds(ranks, "whether the recipe is finished", || recipe.is_finished())? {
        context.say(&format!("{} is finished: nothing to do", run.out.display()));
    } else {
        dir.iter().try_for_each(|dir| dir.begin(recipe.config(), context))?;
        recipe.run(ranks)?;
    }
    match context.leads() {
        true => super::print(&format!("{}\n", recipe.page().display())),
        false => Ok(()),
    }
}

/// What a dry run says in JSON.
fn plan(config: &RecipeConfig) -> Value {
    let RecipeConfig { task, data, sft, rl, control, .. } = config;
    json!({
        "job": "recipe", "seed": config.seed, "dtype": config.dtype.name(),
        "data": { "questions": task.num_sft_questions, "num_rollouts": data.num_rollouts },
        "sft": { "updates": sft.max_steps }, "control": control.enable,
        "rl": { "updates": rl.total_training_steps, "prompts": rl.train_batch_size, "rollouts": rl.rollout.n },
        "eval": { "questions": task.num_heldout_questions },
    })
}
