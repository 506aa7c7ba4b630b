//! `omr score`: the reward alone.

use serde::{Deserialize, Serialize};

use super::{Context, jsonl};
use crate::error::Result;
use crate::reward::{self, Mode};

/// Arguments of `omr score`.
#[derive(clap::Args)]
#[command(after_help = "Prints {\"score\",\"acc_score\",\"format_reward_score\",\"predict_str\",\"why\",\"judge\"}, \
    one line for each response. judge is null: no judge is asked.")]
pub struct Args {
    /// Read {"response","ground_truth","question"?} lines on stdin
    #[arg(long, required = true)]
    jsonl: bool,
    /// strict, or compat: the published scorer
    #[arg(long, default_value = "strict", value_name = "MODE")]
    mode: Mode,
}

#[derive(Deserialize)]
struct Response {
    response: String,
    ground_truth: String,
    #[serde(default)]
    question: Option<String>,
}

#[derive(Serialize)]
struct Line {
    score: f64,
    acc_score: f64,
    format_reward_score: f64,
    predict_str: String,
    why: &'static str,
    judge: Option<i64>,
}

/// Prints the scores to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let expected = "{\"response\": text, \"ground_truth\": text, \"question\"?: text}";
    jsonl::answer(expected, |r: Response| {
        let s = reward::score(&r.response, &r.ground_truth, r.question.as_deref(), args.mode);
        Line {
            score: s.score,
            acc_score: s.acc_score,
            format_reward_score: s.format_reward_score,
            predict_str: s.predict_str,
            why: s.why,
            judge: None,
        }
    })
}
