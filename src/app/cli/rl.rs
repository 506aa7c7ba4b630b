//! `omr rl`: GSPO, GRPO and DAPO with the built-in sampler.

use super::args::JobArgs;
use super::{Context, training};
use omr_base::answers::RunStore;
use omr_base::config::RlConfig;
use omr_base::error::Result;
use omr_train::eval::validation;
use omr_train::rl::run::RlJob;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    training::run(args, context, |session, config: &RlConfig| {
        let (dir, reward) = (&session.args.out, &config.reward);
        let store = RunStore::of_rank(dir, session.ranks.rank(), session.ranks.size());
        let scorer =
            context.scorer(reward.mode, config.judge.as_ref(), &reward.scorer, &config.rewards, Some(store))?;
        let judge = scorer.describe();
        let mut job = RlJob::open(dir, config.clone(), scorer.clone(), session.args.fresh)?;
        job.common.ranks = session.place();
        job.common.validation = validation::rl(config, &job.common, scorer, None)?;
        let (steps, questions) = (job.common.total_steps, job.common.index.len());
        let (prompts, n) = (config.train_batch_size, config.rollout.n);
        let what = format!("rl: {steps} steps of {prompts} prompts x {n} rollouts over {questions} questions; {judge}");
        Ok((Box::new(job), what))
    })
}
