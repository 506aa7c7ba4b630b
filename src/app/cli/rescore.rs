//! `omr eval --responses` with the log of another framework: compares its verdicts with omr's.

use std::path::PathBuf;

use serde_json::json;

use super::Context;
use super::args::RunArgs;
use super::run_dir::RunDir;
use super::stdout::print;
use crate::report;
use omr_base::config::{EvalConfig, Mode};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::reward::{Scorer, judge};
use omr_train::eval::rescore::{Framework, UNKNOWN_OPENED, compare, read, table, verdict_counts};
use omr_verify::extract;

/// Scores the answers of `logs` and writes `referee.jsonl`, `summary.json` and `report.html`. Prints the table of
/// compared verdicts and the path of the page to stdout.
pub fn run(
    logs: &[(PathBuf, Framework)],
    config: &EvalConfig,
    scorer: &Scorer,
    run: &RunArgs,
    context: &Context,
) -> Result<()> {
    let names: Vec<String> = logs.iter().map(|(path, of)| format!("{} ({})", path.display(), of.name())).collect();
    context.say(&format!("eval: the verdicts of {}; {}", names.join(", "), scorer.describe()));
    if run.dry_run {
        return RunDir::planned(
            run,
            config,
            context,
            || json!({ "job": "eval", "logs": names, "judge": scorer.describe() }),
        );
    }
    let rows = read(logs)?;
    if config.mode == Mode::Strict && rows.iter().all(|row| extract::opening(&row.response).is_none()) {
        context.say(UNKNOWN_OPENED);
    }
    let dir = RunDir::open(run, config, context)?;
    let (summary, page) = (dir.out.join("summary.json"), dir.out.join("report.html"));
    if summary.exists() {
        context.say(&format!("{} is finished: nothing to do", dir.out.display()));
        return print(&format!("{}\n", page.display()));
    }
    dir.begin(config, context)?;
    let compared = compare(&rows, scorer, config.mode, config.strip_thinking)?;
    let verdict_counts = verdict_counts(&compared);
    let line = |row| serde_json::to_string(row).map_err(|error| Error::Failed(format!("referee.jsonl: {error}")));
    let lines = compared.iter().map(|row| Ok(line(row)? + "\n")).collect::<Result<String>>()?;
    files::write(dir.out.join("referee.jsonl"), lines.as_bytes())?;
    let thinking = if config.strip_thinking { ", thinking removed" } else { "" };
    let rules = format!("Verdicts of omr: {} rules{thinking}; {}", config.mode.name(), scorer.describe());
    files::write(&page, report::rescore(&verdict_counts, &compared, &rules)?.as_bytes())?;
    let judge = scorer.judge().map(|name| {
        let mut judge = judge::Summary::new(name);
        compared.iter().for_each(|row| judge.count(row.judge.as_ref()));
        judge
    });
    let text = json!({
        "mode": config.mode.name(),
        "strip_thinking": config.strip_thinking,
        "judge": judge,
        "referee": verdict_counts,
    });
    files::write(&summary, format!("{text:#}\n").as_bytes())?;
    if let Some(judge) = judge {
        context.say(&judge.line());
    }
    print(&format!("{}{}\n", table(&verdict_counts), page.display()))
}
