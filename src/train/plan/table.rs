//! A table that compares plans for several numbers of GPUs.

use serde_json::{Value, json};

use super::page::{Page, millions};
use super::{fits, floor};
use omr_base::config::OptimizerName;
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;

/// Numbers of GPUs that are compared with the requested number, if they are smaller.
pub const BESIDE: [usize; 2] = [1, 8];

/// A column of the table.
pub struct Column {
    /// Number of GPUs.
    pub gpus: usize,
    /// Plan for this number of GPUs, or the reason why there is none.
    pub page: Result<Page>,
    /// Error that states why the config's own rows do not fit. If it is present, the plan is for the longest rows that
    /// fit.
    pub short: Option<Error>,
    /// Tokens of the longest row that fits with each optimizer.
    pub longest: Vec<(OptimizerName, usize)>,
}

impl Column {
    /// Formats the plan and the rows that fit as text.
    pub fn text(&self) -> String {
        let page = self.page.as_ref().map_or_else(Error::to_string, Page::text);
        let short = self.short.as_ref().map_or(String::new(), |error| {
            format!("The rows of the config do not fit: {error}.\nThe plan is for the longest rows that fit.\n")
        });
        format!("{short}{page}{}", fits::text(&self.longest))
    }

    /// Formats the column as JSON. Returns `None` without a plan.
    pub fn json(&self) -> Option<Value> {
        let mut json = self.page.as_ref().ok()?.json();
        let longest = self.longest.iter().map(|(optim, tokens)| (optim.name().to_owned(), json!(tokens)));
        json["longest_row"] = Value::Object(longest.collect());
        json["as_configured"] = json!(self.short.is_none());
        Some(json)
    }
}

type Row = (&'static str, fn(&Page) -> String);

const ROWS: [Row; 8] = [
    ("tokens per row", |page| page.row_tokens.to_string()),
    ("memory per GPU", |page| bytes(page.planned.memory.total() as u64)),
    ("host per process", |page| bytes(page.host.iter().map(|(_, count)| *count as u64).sum())),
    ("sent per update", |page| bytes(page.handed_per_update().sent)),
    ("communication", |page| floor::seconds(page.links_seconds())),
    ("step", |page| floor::seconds(page.step())),
    ("tokens per day", |page| millions(page.per_day(page.step())[0])),
    ("bound", |page| page.bound().split(',').next().unwrap_or_default().to_owned()),
];

/// Formats the table as text. Missing plans are explained below it.
pub fn text(columns: &[Column]) -> String {
    let line = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|cell| format!("{cell:>16}")).collect();
        format!("{name:<16}{cells}\n")
    };
    let is_predicted = |column: &Column| column.page.as_ref().is_ok_and(|page| page.predicted_step().is_some());
    let head = if columns.iter().any(is_predicted) { "Predicted" } else { "Lower bounds" };
    let mut out = format!("\n{head}, not measured:\n");
    out.push_str(&line("GPUs", &mut columns.iter().map(|column| column.gpus.to_string())));
    let cell_text = |column: &Column, cell: fn(&Page) -> String| column.page.as_ref().map_or("-".to_owned(), cell);
    for (name, cell) in ROWS {
        out.push_str(&line(name, &mut columns.iter().map(|column| cell_text(column, cell))));
    }
    for column in columns {
        if let Err(error) = &column.page {
            out.push_str(&format!("{} GPU(s): {}\n", column.gpus, without_hint(error)));
        }
    }
    out
}

/// Formats an error without its hint.
pub fn without_hint(error: &Error) -> String {
    match error {
        Error::Input { place, found, expected, .. } => format!("{place}: found {found}, expected {expected}"),
        error => error.to_string(),
    }
}
