//! `--dry-run`: describes a run and its duration, from its config and its rows if they exist.

use std::path::Path;

use serde_json::json;

use super::args::fetched_by;
use super::run_dir::RunDir;
use super::session::Session;
use omr_base::config::Config;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::Kind;
use omr_base::observe::bytes;
use omr_data::text::Chat;
use omr_model::nn::{ModelConfig, weights};
use omr_runtime::device::Plan;
use omr_train::plan::{GpuSet, H200, Page, Rows, Training, memory, parameters};
use omr_train::training::job::{Start, TrainingJob};

/// Describes a run whose rows are not complete, and returns an error about what is `missing`. It is planned for a GPU, as
/// `omr plan` does.
pub fn without_rows<C: Training>(session: &Session, mut missing: Vec<Error>, mut config: C) -> Result<()> {
    let (asked, context) = (config.clone(), session.context);
    let keys = config.keys();
    let model = Start::directory(keys.model.map(|model| model.as_path()))?;
    let model_config =
        ModelConfig::load(&model.join("config.json"))?.quantized(keys.optimizer.quantization.as_ref())?;
    Chat::load(model, &model_config.chat())?;
    let gpus = GpuSet { gpu_options: &H200, count: session.ranks.size() };
    let page = asked.page(gpus, &Rows::default(), model_config);
    let count =
        keys.steps.map_or("the number of updates depends on the rows".to_owned(), |steps| format!("{steps} updates"));
    context.say(&format!("{}: {count}", C::NAME));
    missing.extend(without_weights(model));
    let named = H200.named(session.ranks.size());
    match &page {
        Ok(page) => {
            if !context.kind().is_gpu() {
                let beginning = "the memory on this machine depends on the rows; the rest is the plan for";
                context.say(&format!("{beginning} {named}:"));
            }
            page.text().lines().for_each(|line| context.say(line));
            keys.steps.iter().for_each(|&steps| context.say(&page.time(steps)));
        }
        // What is missing is the first error of the job.
        Err(error) => context.say(&format!("on {named}: {error}")),
    }
    session.args.planned(context, || {
        let lines: Vec<String> = missing.iter().map(Error::to_string).collect();
        json!({
            "job": C::NAME, "updates": keys.steps, "missing": lines, "has_weights": weights::exist_in(model),
            (key(gpus.count)): page.ok().map(|page| page.json()),
        })
    })?;
    let list: String = missing.iter().map(|error| format!("\n- {error}")).collect();
    match missing.len() {
        0 | 1 => missing.pop().map_or(Ok(()), Err),
        count => Err(Error::input("the inputs", format!("{count} that are missing"), format!("all of them:{list}"))),
    }
}

/// Prints the parts of a dry run besides the memory plan: stored activations, disk space and time. Ends with an error about
/// missing weights.
pub fn rest<C: Config>(
    session: &Session,
    settings: &C,
    what: &str,
    plan: &Plan,
    job: &dyn TrainingJob,
    page: impl FnOnce(ModelConfig) -> Result<Page>,
) -> Result<()> {
    let (context, gpus, trainer) = (session.context, session.ranks.size(), job.trainer_config());
    let config = ModelConfig::load(&trainer.run.model.join("config.json"))?
        .quantized(trainer.optimizer.quantization.as_ref())?;
    memory::ladder(&job.common().ladder, &config).iter().for_each(|line| context.say(line));
    let checkpoint = memory::checkpoint(plan, parameters(&config, &trainer.optimizer)?[1]);
    let free = session.args.out.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let free = bytes(files::free(free)?);
    context.say(&format!("disk {}; {free} are free", memory::disk(checkpoint, trainer.checkpoints())));
    // The time is only predicted for GPUs.
    let page = context.kind().is_gpu().then(|| page(config));
    match &page {
        Some(Ok(page)) => context.say(&page.time(trainer.run.total_steps)),
        // A model that does not fit into this GPU's memory may still run on this machine.
        Some(Err(error)) => context.say(&format!("on {}: {error}", H200.named(gpus))),
        None => {}
    }
    RunDir::planned(session.args, settings, context, || {
        json!({
            "job": C::NAME, "what": what, "updates": trainer.run.total_steps, "missing": [],
            "has_weights": weights::exist_in(&trainer.run.model), "memory": memory::json(plan),
            "disk": trainer.checkpoints().map(|count| memory::on_disk(checkpoint, count)), (key(gpus)): page.and_then(Result::ok).map(|page| page.json()),
        })
    })?;
    without_weights(&trainer.run.model).map_or(Ok(()), Err)
}

/// Returns the JSON key for a plan with this number of GPUs.
fn key(gpus: usize) -> &'static str {
    if gpus == 1 { "one_card" } else { "cards" }
}

/// Returns an error if a model directory has no weights.
fn without_weights(model: &Path) -> Option<Error> {
    let found = || format!("{}, which has no weights{}", model.display(), fetched_by(model, Kind::Model));
    (!weights::exist_in(model)).then(|| Error::input("model", found(), "a model directory with weights"))
}
