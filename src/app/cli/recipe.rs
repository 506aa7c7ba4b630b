//! `omr recipe`: data, SFT, RL, control, evaluation and report.

use serde_json::{Value, json};

use super::args::JobArgs;
use super::run_dir::RunDir;
use super::session::Session;
use super::{Context, grace, start};
use crate::recipe::Recipe;
use omr_base::config::{Config, Dtype, Place, RecipeConfig};
use omr_base::error::Result;

/// Runs the remaining stages of the recipe and prints the report's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config::<RecipeConfig>()? else { return Ok(()) };
    let dist = config.dist.clone();
    Session::over(&args.run, context, &dist, |session| run_recipe(session, config))
}

fn run_recipe(session: &mut Session, mut config: RecipeConfig) -> Result<()> {
    let (args, context) = (session.args, session.context);
    let RecipeConfig { base, dtype, sft, rl, eval, .. } = &mut config;
    let model = base.model.as_deref();
    let began = session.began::<RecipeConfig>()?;
    let began = began.as_ref();
    *dtype = session.dtype(*dtype, model, began.map(|began| began.dtype));
    for stage in [&mut sft.dtype, &mut rl.dtype, &mut eval.dtype] {
        *stage = if *stage == Dtype::Auto { *dtype } else { *stage };
    }
    let (sft, rl) = (&mut sft.training.gradient_lanes, &mut rl.training.gradient_lanes);
    *sft = session.lanes(*sft, began.map(|began| began.sft.training.gradient_lanes));
    *rl = session.lanes(*rl, began.map(|began| began.rl.training.gradient_lanes));
    config.validate(&Place::default())?;
    session.same_config(&config)?;
    context.with_machine(|machine| {
        let recipe = Recipe::new(&args.out, config, machine)?;
        if context.leads() {
            recipe.announce();
            recipe.try_commands()?;
        }
        if args.dry_run {
            return RunDir::planned(args, &recipe.config, context, || plan(&recipe.config));
        }
        let dir = session.open(&recipe.config)?;
        ["sft", "rl"].iter().try_for_each(|stage| grace::warn(&args.out.join(stage), context))?;
        session.finish(dir, &recipe.config, &recipe.page(), || recipe.is_finished(), |ranks| recipe.run(ranks))?;
        if context.leads() {
            let command = |words: Vec<String>| start::command(std::env::args().take(1).chain(words));
            if let Some(words) = recipe.example_command() {
                context.say(&format!("to ask the trained model a question: {}", command(words)));
            }
            context.say(&format!("to talk to it in a browser: {}", command(recipe.serve_command())));
        }
        Ok(())
    })
}

/// Returns the JSON output of a dry run.
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
