//! Reads logs of other frameworks and recognises their format by content: lmms-eval's `--log_samples` and VLMEvalKit's
//! tables.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::row::{Framework, Row};
use super::tsv;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::rows::forms::fields::plain;
use omr_data::rows::readers::json::jsonl;

/// Depth of subfolders that are searched. lmms-eval writes one folder per model.
const DEPTH: usize = 2;

/// Kind of a file or folder of recorded answers.
pub enum Log {
    /// Lines `{"task", "index", "responses"}`.
    Ours,
    /// Log files of other frameworks, each with its framework.
    Theirs(Vec<(PathBuf, Framework)>),
}

/// Recognises the format of `path`. In a folder, every jsonl and tsv file is a candidate. Returns an error if the
/// folder contains no logs.
pub fn recognise(path: &Path) -> Result<Log> {
    if !path.is_dir() {
        return Ok(framework(path)?.map_or(Log::Ours, |framework| Log::Theirs(vec![(path.to_owned(), framework)])));
    }
    let mut files = files::below(path, &mut |inner, is_folder| {
        let is_log = inner.extension().is_some_and(|kind| kind == "jsonl" || kind == "tsv");
        Ok(if is_folder { inner.components().count() <= DEPTH } else { is_log })
    })?;
    files.sort();
    let files = files.iter().map(|inner| path.join(inner));
    let known = files.map(|file| Ok(framework(&file)?.map(|framework| (file, framework))));
    let known: Vec<_> = known.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    if known.is_empty() {
        let expected = "a folder with *_samples_*.jsonl files of lmms-eval or *.tsv files of VLMEvalKit";
        return Err(Error::input(path, "a folder without logs", expected));
    }
    Ok(Log::Theirs(known))
}

fn framework(path: &Path) -> Result<Option<Framework>> {
    let file = files::open(path).map_err(Error::io(path))?;
    let mut first = String::new();
    BufReader::new(file).read_line(&mut first).map_err(Error::io(path))?;
    let first = first.trim_start_matches('\u{feff}').trim();
    let named = |column: &str| first.split('\t').any(|name| name.trim_matches('"') == column);
    if first.contains('\t') && named("prediction") {
        return Ok(Some(Framework::VlmEvalKit));
    }
    let fields = serde_json::from_str::<Map<String, Value>>(first).unwrap_or_default();
    let lmms_eval = fields.contains_key("filtered_resps") || fields.contains_key("resps");
    Ok(lmms_eval.then_some(Framework::LmmsEval))
}

/// Reads `logs`, one after another. If several are about the same task, each is named after its file. Errors name file
/// and line.
pub fn read(logs: &[(PathBuf, Framework)]) -> Result<Vec<Row>> {
    let mut all = logs.iter().map(|(path, framework)| rows(path, *framework)).collect::<Result<Vec<_>>>()?;
    let task = |rows: &[Row]| rows.first().map(|row| (row.framework, row.task.clone()));
    let tasks: Vec<_> = all.iter().map(|rows| task(rows)).collect();
    for (rows, (path, _)) in all.iter_mut().zip(logs) {
        // Logs of several models or runs are not one measurement.
        if tasks.iter().filter(|other| **other == task(rows)).count() > 1 {
            rows.iter_mut().for_each(|row| row.task = path.with_extension("").display().to_string());
        }
    }
    Ok(all.into_iter().flatten().collect())
}

/// Reads the rows of a log. Errors name the file and the line or row. No question may stand twice.
fn rows(path: &Path, framework: Framework) -> Result<Vec<Row>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let rows = match framework {
        Framework::LmmsEval => lmms_eval(path, stem.rsplit_once("samples_").map_or(&*stem, |(_, task)| task)),
        Framework::VlmEvalKit => vlm_eval_kit(path, &stem),
    }?;
    let mut places = HashMap::new();
    for row in &rows {
        if let Some(earlier) = places.insert((&row.index, &row.filter), &row.place) {
            let found = format!("the index {}, which is also that of {earlier}", row.index);
            return Err(Error::input(&row.place, found, "each question once"));
        }
    }
    Ok(rows)
}

/// Fields of a row in lmms-eval's log that are not metrics.
const LMMS_FIELDS: &str = "doc_id doc target input arguments resps filtered_resps filter metrics doc_hash prompt_hash \
                           target_hash token_counts submission";

/// Metrics that state whether an answer is correct, the most direct first.
const LMMS_METRICS: [&str; 6] = ["acc_score", "exact_match", "accuracy", "acc", "correct", "score"];

fn lmms_eval(path: &Path, task: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    jsonl(path, usize::MAX, |at, fields| {
        let place = format!("{} line {}", path.display(), at.number);
        let fields = fields?;
        // The framework scores the filtered response. The complete response is preferred here, because filters may have
        // removed parts.
        let response = ["resps", "filtered_resps"].iter().find_map(|name| first_text(fields.get(*name)?));
        let wrong = |found: &str| Error::input(&place, found, "a line of lmms-eval's --log_samples");
        let response = response.ok_or_else(|| wrong("no text in resps or filtered_resps"))?;
        let target = fields.get("target").ok_or_else(|| wrong("no target"))?;
        // A list of texts has one right answer in each. A list of numbers is one answer, such as a box.
        let right_answers: Vec<String> = serde_json::from_value(target.clone()).unwrap_or_default();
        let (theirs, theirs_why) = lmms_verdict(&fields);
        rows.push(Row {
            framework: Framework::LmmsEval,
            task: task.to_owned(),
            index: fields.get("doc_id").map_or_else(|| at.number.to_string(), plain),
            filter: fields.get("filter").map(plain).unwrap_or_default(),
            question: fields.get("input").and_then(first_text),
            gold: plain(target),
            right_answers,
            response,
            theirs,
            theirs_why,
            place,
        });
        Ok(())
    })?;
    Ok(rows)
}

/// Returns the first text in nested lists. If a question has several answers, the first one counts.
fn first_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => list.iter().find_map(first_text),
        _ => None,
    }
}

fn lmms_verdict(fields: &Map<String, Value>) -> (Option<bool>, String) {
    let known = LMMS_METRICS.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields.iter().filter(|(name, _)| {
        let is_field = LMMS_FIELDS.split(' ').any(|field| field == *name);
        !is_field && !["format", "length", "token"].iter().any(|word| name.contains(word))
    });
    let mut found = known.chain(others).filter_map(|(name, value)| Some((name, value, right(value)?)));
    let Some((name, value, right)) = found.next() else {
        return (None, "no metric with a verdict".to_owned());
    };
    let taken =
        ["parsed_pred", "extraction", "prediction", "pred", "predict_str"].iter().find_map(|key| value.get(*key));
    let taken = taken.or_else(|| fields.get("extracted_answers")).and_then(first_text);
    let taken = taken.map_or_else(String::new, |taken| format!("; it read {taken:?}"));
    (Some(right), format!("{name} {}{taken}", f64::from(right)))
}

/// Interprets the value of a metric: a number from 0 to 1, a truth value, or a record that contains one.
fn right(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(right) => Some(*right),
        Value::Number(number) => number.as_f64().filter(|share| (0.0..=1.0).contains(share)).map(|share| share >= 0.5),
        Value::String(word) => verdict_word(word),
        Value::Array(list) => right(list.first()?),
        Value::Object(record) => {
            let keys = ["true_false", "is_correct", "correct", "hit", "scores", "score", "acc_score", "acc", "result"];
            let found = keys.iter().find_map(|key| right(record.get(*key)?));
            // MMMU's record contains only the extracted answer, or a list of candidates, so it is compared with the correct
            // one. Numbers in open answers are compared by a rule of their own.
            let is_open = record.get("question_type").is_some_and(|of| of == "open");
            let taken = record.get("parsed_pred").filter(|_| !is_open);
            let compared =
                |taken: &Value, answer| taken == answer || taken.as_array().is_some_and(|t| t.contains(answer));
            found.or_else(|| Some(compared(taken?, record.get("answer")?)))
        }
        Value::Null => None,
    }
}

fn verdict_word(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "1" | "1.0" | "true" => Some(true),
        "0" | "0.0" | "false" => Some(false),
        _ => None,
    }
}

/// Columns of VLMEvalKit's tables with the verdict, and columns with its reason.
const KIT_VERDICTS: [&str; 4] = ["hit", "score", "correct", "match"];
const KIT_REASONS: [&str; 7] = ["log", "log_score", "extract_answer", "extract", "res", "parse", "pred"];

fn vlm_eval_kit(path: &Path, task: &str) -> Result<Vec<Row>> {
    let text = files::read_to_string(path).map_err(Error::io(path))?;
    let open = |line| Error::format(path, format!("line {line}: an unterminated quote"));
    let mut lines = tsv::rows(&text).map_err(open)?.into_iter();
    let (_, head) = lines.next().unwrap_or_default();
    for column in ["index", "answer", "prediction"] {
        if !head.iter().any(|name| name == column) {
            let found = format!("the columns {}", head.join(", "));
            return Err(Error::input(path, found, format!("a column `{column}`")));
        }
    }
    let row = |(line, fields): (usize, Vec<String>)| {
        let place = format!("{} line {line}", path.display());
        if fields.len() != head.len() {
            return Err(Error::input(place, format!("{} fields", fields.len()), format!("{} columns", head.len())));
        }
        let at = |column: &str| head.iter().position(|name| name == column).map(|i| fields[i].as_str());
        let filled = |column: &str| at(column).filter(|field| !field.is_empty());
        let verdict = KIT_VERDICTS.iter().find_map(|column| Some((column, verdict_word(at(column)?)?)));
        let reason = KIT_REASONS.iter().find_map(|column| Some(format!("; {column}: {}", filled(column)?)));
        let none = || "no column hit, score, correct or match".to_owned();
        let theirs_why = verdict.map_or_else(none, |(column, right)| format!("{column} {}", f64::from(right)));
        Ok(Row {
            framework: Framework::VlmEvalKit,
            task: task.to_owned(),
            index: at("index").unwrap_or_default().to_owned(),
            filter: String::new(),
            question: filled("question").map(|question| {
                let options =
                    ('A'..='Z').filter_map(|letter| Some(format!("\n{letter}. {}", filled(&letter.to_string())?)));
                question.to_owned() + &options.collect::<String>()
            }),
            gold: at("answer").unwrap_or_default().to_owned(),
            right_answers: Vec::new(),
            response: at("prediction").unwrap_or_default().to_owned(),
            theirs: verdict.map(|(_, right)| right),
            theirs_why: theirs_why + &reason.unwrap_or_default(),
            place,
        })
    };
    lines.map(row).collect()
}
