//! `--dry-run`: what a run would be and how long it would take, from its config and, where they are there, its rows.

use std::path::Path;

use serde_json::json;

use super::args::fetched_by;
use super::{Context, RunArgs};
use crate::device::Plan;
use crate::error::Result;
use crate::hub::Kind;
use crate::model::{Levels, ModelConfig, weights};
use crate::plan::memory;
use crate::plan::{H200, Page};
use crate::text::Chat;
use crate::train::job::Start;
use crate::train::trainer_config::TrainerConfig;

/// A run whose rows are not all there, as `missing` says: planned for a card as `omr plan` does. `name` is its command's,
/// `steps` are its updates where the config says how many.
pub fn without_rows(
    (args, context): (&RunArgs, &Context),
    (name, steps): (&str, Option<u64>),
    missing: &[String],
    model: Option<&Path>,
    page: impl FnOnce(ModelConfig) -> Result<Page>,
) -> Result<()> {
    let model = Start::directory(model)?;
    let config = ModelConfig::load(&model.join("config.json"))?;
    Chat::load(model)?;
    let page = page(config)?;
    let count = steps.map_or("as many updates as the rows make".to_owned(), |steps| format!("{steps} updates"));
    context.say(&format!("{name}: {count}"));
    missing.iter().for_each(|line| context.say(line));
    weights_missing(context, model);
    page.text().lines().for_each(|line| context.say(line));
    steps.iter().for_each(|&steps| context.say(&page.time(steps)));
    args.planned(context, || {
        json!({
            "job": name, "updates": steps, "missing": missing, "has_weights": weights::are_in(model),
            (key(page.cards())): page.json(),
        })
    })
}

/// What a dry run says besides the plan: what passes keep, the disk, weights that are missing, and the time.
pub fn rest(
    (args, context): (&RunArgs, &Context),
    (name, what, cards): (&str, &str, usize),
    plan: &Plan,
    kept: &Levels,
    trainer: &TrainerConfig,
    page: impl FnOnce(ModelConfig) -> Result<Page>,
) -> Result<()> {
    let config = ModelConfig::load(&trainer.model.join("config.json"))?;
    context.say(&memory::levels(kept, &config));
    context.say(&format!("disk {}", memory::disk(plan, trainer.checkpoints())));
    weights_missing(context, &trainer.model);
    // A model that no such card has room for still runs here.
    let page = page(config);
    context.say(&match &page {
        Ok(page) => page.time(trainer.total_steps),
        Err(error) => format!("on {}: {error}", H200.named(cards)),
    });
    args.planned(context, || {
        json!({
            "job": name, "what": what, "updates": trainer.total_steps, "missing": [],
            "has_weights": weights::are_in(&trainer.model), "memory": memory::json(plan),
            "disk": memory::on_disk(plan, trainer.checkpoints()), (key(cards)): page.ok().map(|page| page.json()),
        })
    })
}

/// What a plan of so many cards is under.
fn key(cards: usize) -> &'static str {
    if cards == 1 { "one_card" } else { "cards" }
}

/// Says so where a model directory has no weights.
fn weights_missing(context: &Context, model: &Path) {
    if !weights::are_in(model) {
        let command = fetched_by(model, Kind::Model);
        context.say(&format!("model: {} has no weights{command}", model.display()));
    }
}
