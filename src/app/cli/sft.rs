//! `omr sft`: supervised fine-tuning.

use super::args::JobArgs;
use super::{Context, training};
use omr_base::config::SftConfig;
use omr_base::error::Result;
use omr_train::eval::validation;
use omr_train::plan::choose_micro_batch_tokens;
use omr_train::training::sft::SftJob;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    training::run(args, context, |session, config: &SftConfig| {
        let mut job = SftJob::open(&session.args.out, config.clone(), session.args.fresh)?;
        job.common.ranks = session.place();
        choose_micro_batch_tokens(&mut job, session.context.target())?;
        job.common.validation = validation::sft(&job.config, &job.common, None)?;
        let what = format!("sft: {} updates over {} rows", job.common.total_steps, job.common.index.len());
        Ok((Box::new(job), what))
    })
}
