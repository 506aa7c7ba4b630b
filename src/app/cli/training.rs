//! Common steps of `omr sft` and `omr rl`: config, plan, run directory and run.

use std::path::{Path, PathBuf};

use super::args::JobArgs;
use super::session::Session;
use super::{Context, dry_run, grace};
use crate::report;
use omr_base::config::{MicroBatchTokens, Place};
use omr_base::error::Result;
use omr_base::{answers, files};
use omr_model::checkpoint::Store;
use omr_model::nn::ModelConfig;
use omr_runtime::ranks::Ranks;
use omr_train::plan::{GpuSet, H200, Keys, Rows, Training};
use omr_train::training::job::TrainingJob;
use omr_train::training::loading::RESUMED;
use omr_train::training::reporters;

/// Runs the job that `open` makes from the command's config and describes for the user. Prints the model's path to
/// stdout. A dry run ends after the plan.
pub fn run<C: Training>(
    args: &JobArgs,
    context: &Context,
    open: impl FnOnce(&Session, &C) -> Result<(Box<dyn TrainingJob>, String)>,
) -> Result<()> {
    let Some((mut config, missing)) = args.load::<C>()? else { return Ok(()) };
    let dist = config.keys().training.dist.clone();
    Session::over(&args.run, context, &dist, |session| {
        if !missing.is_empty() {
            return dry_run::without_rows(session, missing, config);
        }
        let asked = config.clone();
        let Keys { model, dtype, training, micro_batch_tokens, .. } = config.keys();
        let mut began = session.began::<C>()?;
        let began = began.as_mut().map(C::keys);
        *dtype = session.dtype(*dtype, model.map(PathBuf::as_path), began.as_ref().map(|began| *began.dtype));
        let chosen = began.as_ref().and_then(|began| began.micro_batch_tokens.as_deref().copied());
        if let (Some(own @ MicroBatchTokens::Auto), Some(chosen)) = (micro_batch_tokens, chosen) {
            *own = chosen;
        }
        let lanes = began.as_ref().map(|began| began.training.gradient_lanes);
        training.gradient_lanes = session.lanes(training.gradient_lanes, lanes);
        // The last start had this `resume` and loaded that checkpoint. The same command then continues its own run.
        let was = began.map(|began| std::mem::take(&mut began.training.resume));
        let loaded = files::read_to_string(session.args.out.join(RESUMED)).ok();
        let has_own = Store::of(&session.args.out, 1).latest()?.is_some();
        let continues = has_own && was.as_ref() == Some(&training.resume) && loaded == was;
        config.validate(&Place::default())?;
        session.same_config(&config)?;
        let mut resumed = config.clone();
        if continues {
            let from = std::mem::replace(&mut resumed.keys().training.resume, "auto".to_owned());
            context.say(&format!("continues this run (resume={from} applied to its first start)"));
        }
        let (mut job, what) = open(session, &resumed)?;
        if let (Some(own), Some(chosen)) = (config.keys().micro_batch_tokens, job.micro_batch_tokens()) {
            *own = chosen;
            // GPUs of different sizes may choose different numbers.
            session.same_config(&config)?;
        }
        if session.args.dry_run {
            let common = job.common();
            common.data.notes().iter().for_each(|note| context.say(note));
            common.validation.iter().for_each(|validation| context.say(&validation.describe()));
        }
        if context.leads() {
            reporters::check(&job.trainer_config().training.report_to)?;
        }
        job.same_at(session.ranks)?;
        let plan = job.plan(context.target())?;
        context.say(&format!("{what}; {}", plan.line()));
        if config.keys().optimizer.optimizer_offload && !context.kind().is_gpu() {
            context.say("optimizer_offload changes nothing: on the CPU the optimizer state is in host memory anyway");
        }
        context.check_host(&plan)?;
        if session.args.dry_run {
            let gpus = GpuSet { gpu_options: &H200, count: session.ranks.size() };
            let page = |model: ModelConfig| asked.page(gpus, &Rows::mean(&job.common().index, &model), model);
            return dry_run::rest(session, &config, &what, &plan, &*job, page);
        }
        let dir = session.open(&config)?;
        grace::warn(&session.args.out, context)?;
        if context.leads() && !continues {
            let _ = std::fs::remove_file(session.args.out.join(RESUMED));
        }
        if context.leads() && session.ranks.size() > 1 {
            answers::gather(&session.args.out)?;
        }
        let out = session.args.out.clone();
        let model = out.join("model");
        let work = |ranks: &mut dyn Ranks| {
            let mut device = context.device(&plan)?;
            job.run_over(ranks, &mut device, context.observer())?;
            if context.leads() { write_report(&out, context) } else { Ok(()) }
        };
        session.finish(dir, &config, &model, || job.is_finished(), work)
    })
}

/// Writes `report.html` of the finished run in `dir`.
fn write_report(dir: &Path, context: &Context) -> Result<()> {
    let page = dir.join("report.html");
    files::write(&page, report::page(&report::report(dir)?)?.as_bytes())?;
    context.say(&format!("report: {}", page.display()));
    Ok(())
}
