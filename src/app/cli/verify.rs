//! `omr verify`: runs the answer verifier on its own.

use omr_verify::{Mode, Verdict, verify};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::stdout::print;
use super::{Context, jsonl};
use omr_base::config::choose;
use omr_base::error::{Error, Result};
use omr_data::reward::text;

/// Arguments of `omr verify`.
#[derive(clap::Args)]
#[command(after_help = "Prints {\"equal\",\"gold_parsed\",\"answer_parsed\",\"why\"}, one line per pair.")]
pub struct Args {
    /// The correct answer
    #[arg(value_name = "GOLD", allow_hyphen_values = true, requires = "second")]
    #[arg(required_unless_present_any = ["jsonl", "gold"])]
    first: Option<String>,
    /// The answer to check, alone or within a text
    #[arg(value_name = "ANSWER", allow_hyphen_values = true)]
    second: Option<String>,
    /// The same as GOLD
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "answer", conflicts_with = "first")]
    gold: Option<String>,
    /// The same as ANSWER
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "gold")]
    answer: Option<String>,
    /// Read JSON lines {"gold","answer"} from stdin
    #[arg(long, conflicts_with_all = ["first", "gold"])]
    jsonl: bool,
    /// Equality rules: strict, or compat to reproduce the published scorer
    #[arg(long, default_value = "strict", value_name = "MODE", value_parser = choose::<Mode>)]
    mode: Mode,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(deserialize_with = "text")]
    gold: String,
    #[serde(deserialize_with = "text")]
    answer: String,
}

#[derive(Serialize)]
struct Line {
    equal: bool,
    gold_parsed: String,
    answer_parsed: String,
    why: &'static str,
}

fn line(gold: &str, answer: &str, mode: Mode) -> Line {
    let Verdict { equal, gold_parsed, answer_parsed, why, .. } = verify(gold, answer, mode);
    Line { equal, gold_parsed, answer_parsed, why }
}

/// Prints the verdicts to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    match (args.first.as_ref().or(args.gold.as_ref()), args.second.as_ref().or(args.answer.as_ref())) {
        (Some(gold), Some(answer)) => {
            let text = serde_json::to_string(&line(gold, answer, args.mode));
            print(&format!("{}\n", text.map_err(|e| Error::Failed(e.to_string()))?))
        }
        _ => jsonl::answer("{\"gold\": text, \"answer\": text}", |pairs: Vec<jsonl::Line<Pair>>| {
            pairs.into_par_iter().map(|pair| Ok(line(&pair.value.gold, &pair.value.answer, args.mode))).collect()
        }),
    }
}
