//! `omr score`: computes the reward of responses, or their log-probs under a model.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Context;
use super::args::{Overrides, repository};
use super::jsonl::{self, Line};
use super::stdout::print;
use omr_base::config::{GenerateConfig, ScoreConfig};
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_base::hub::Kind;
use omr_data::reward::judge::{Ruling, Summary};
use omr_data::reward::{Item, Judged, Score};
use omr_train::eval;

/// Arguments of `omr score`.
#[derive(clap::Args)]
#[command(after_help = "Prints {\"score\",\"acc_score\",\"format_reward_score\",\"predict_str\",\"why\",\"judge\"}, \
    one line per response. score and acc_score are null for a response without a score. judge is the judge's verdict, 1 or 0, if the rules score 0 and a judge is configured, \
    \"unjudged\" if the judge gave no usable reply, otherwise null. Configure a judge with USE_LLM_JUDGE=true, \
    OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL_NAME, or with judge.base_url=URL judge.model=NAME. \
    Use your own reward with reward.command='[python3, my_reward.py]'.")]
pub struct Args {
    /// Read from stdin JSON lines {"response","ground_truth","question"?,"data_source"?,"extra_info"?,
    /// "columns"?}
    #[arg(long, required_unless_present_any = ["print_config", "logprobs"])]
    jsonl: bool,
    /// Compute the log-probs of responses instead: a file of JSON lines as `omr generate` reads or writes them, each
    /// with one response ("token_ids" or "response"). Prints each line with "token_ids" and "logprobs". Settings are those of
    /// `omr generate`. Log-probs that a line already has, of omr, TRL or verl, are compared: the last line is the
    /// verdict, and the exit status is 1 if they do not agree (docs/user/mismatch.md). A terminal shows a table
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with_all = ["jsonl", "mode"])]
    logprobs: Option<PathBuf>,
    /// Model directory for --logprobs
    #[arg(long, value_name = "DIR", requires = "logprobs")]
    model: Option<PathBuf>,
    /// File to write the lines of --logprobs to, instead of stdout
    #[arg(long, value_name = "FILE", requires = "logprobs")]
    out: Option<PathBuf>,
    /// Replace an existing file of --out
    #[arg(long, requires = "out")]
    overwrite: bool,
    /// Scoring rules: strict (the default), or compat to reproduce the published scorer
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Serialize)]
struct Scored {
    score: Option<f64>,
    acc_score: Option<f64>,
    format_reward_score: f64,
    predict_str: String,
    why: Cow<'static, str>,
    judge: Option<Ruling>,
    #[serde(flatten)]
    further: BTreeMap<String, f64>,
}

/// Prints the scores, or the lines of --logprobs, to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if let (Some(file), Some(model)) = (&args.logprobs, &args.model) {
        return logprobs(args, file, model, context);
    }
    if let Some(file) = args.overrides.overrides.iter().find(|text| args.jsonl && !text.contains('=')) {
        let expected = format!("key=value; --jsonl reads standard input: omr score --jsonl < {file}");
        return Err(Error::input("omr score --jsonl", format!("{file:?}"), expected));
    }
    let mut overrides = args.overrides.clone();
    overrides.overrides.extend(args.mode.iter().map(|mode| format!("mode={mode}")));
    let Some(config) = overrides.load::<ScoreConfig>(None, None)? else { return Ok(()) };
    let scorer = context.scorer(config.mode, config.judge.as_ref(), &config.reward, &config.rewards, None)?;
    context.say(&format!("score: {}; {}", config.mode.name(), scorer.describe()));
    let mut summary = scorer.judge().map(Summary::new);
    let expected = "{\"response\": text, \"ground_truth\": text or any label of a program, \"question\"?: text}";
    let done = jsonl::answer(expected, |lines: Vec<Line<Item>>| {
        let items = lines.into_iter().map(|Line { place, value }| Item { place, ..value.labelled() });
        let judged = scorer.score_all(items.collect());
        if let Some(summary) = &mut summary {
            judged.iter().flatten().for_each(|judged| summary.count(judged.judge.as_ref()));
        }
        judged.into_iter().map(|judged| judged.map(scored)).collect()
    });
    if let Some(summary) = summary {
        context.say(&summary.line());
    }
    done
}

fn logprobs(args: &Args, file: &Path, model: &Path, context: &Context) -> Result<()> {
    let Some(mut config) = args.overrides.load::<GenerateConfig>(None, None)? else { return Ok(()) };
    let dir = repository(model, Kind::Model, "--model")?;
    let open = |out: &PathBuf| Output::open(out, args.overwrite, &[file, &dir]);
    let out = args.out.as_ref().map(open).transpose()?.filter(|out| !out.is_stdout());
    config.dtype = context.dtype(config.dtype, Some(&dir));
    let table = out.is_none() && std::io::stdout().is_terminal();
    let mut row = 0;
    let put = |line: &Map<String, Value>| {
        row += 1;
        let difference = line.get("logprobs_diff_max").and_then(Value::as_f64).filter(|_| table);
        match (difference, line.get("fault").and_then(Value::as_str)) {
            (Some(difference), fault) => {
                print(&format!("row {row:>5}  difference {difference:>7.1e}  {}\n", fault.unwrap_or_default()))
            }
            (None, _) => print(&format!("{}\n", json!(line))),
        }
    };
    context.with_machine(|machine| {
        let mut found = None;
        match &out {
            Some(out) => out.write_with(|to| {
                let put = |line: &Map<String, Value>| writeln!(to, "{}", json!(line)).map_err(Error::io("--out"));
                found = eval::score(&dir, file, &config, machine, put)?;
                Ok(())
            })?,
            None => found = eval::score(&dir, file, &config, machine, put)?,
        }
        match found {
            Some(found) if !found.agrees => return Err(Error::Failed(format!("score: {}", found.verdict))),
            Some(found) => machine.observer.note(&format!("score: {}", found.verdict)),
            None => (),
        }
        Ok(())
    })
}

fn scored(judged: Judged) -> Scored {
    let Judged { score, judge, .. } = judged;
    let acc_score = score.accuracy();
    let Score { score, format_reward_score, predict_str, why, further, .. } = score;
    Scored { score, acc_score, format_reward_score, predict_str, why, judge, further }
}
