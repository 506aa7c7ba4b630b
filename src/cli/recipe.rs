//! `omr recipe`: data, SFT, RL, control, evaluation and report.

use super::run_dir::RunDir;
use super::{Context, JobArgs};
use crate::config::RecipeConfig;
use crate::device::Plan;
use crate::error::Result;
use crate::recipe::{Means, Recipe};

/// Runs what is left of the recipe and prints the report's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<RecipeConfig>()? else { return Ok(()) };
    let RecipeConfig { dtype, sft, rl, eval, .. } = &mut config;
    for dtype in [dtype, &mut sft.dtype, &mut rl.dtype, &mut eval.dtype] {
        *dtype = context.dtype(*dtype);
    }
    let means = Means {
        target: context.target(),
        place: context.place(),
        device: &|plan: &Plan| context.device(plan),
        runtime: &|| Ok(context.runtime()?.handle().clone()),
        observer: context.observer(),
    };
    let recipe = Recipe::new(&args.run.out, config, means)?;
    recipe.announce();
    recipe.try_commands()?;
    if args.run.dry_run {
        return Ok(());
    }
    let dir = RunDir::open(&args.run, recipe.config(), context)?;
    if recipe.is_finished() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(recipe.config(), context)?;
        recipe.run()?;
    }
    super::print(&format!("{}\n", recipe.page().display()))
}
