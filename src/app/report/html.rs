//! Renders the pages of this module from templates.

use std::collections::HashMap;
use std::sync::LazyLock;

use minijinja::{HtmlEscape, Value, context};
use regex::Regex;
use serde::Serialize;

use super::{RecipeReport, browser};
use omr_base::error::Result;
use omr_base::frame::{self, Scripts};

/// The templates of this module.
const TEMPLATES: [(&str, &str); 9] = [
    ("parts.html", include_str!("parts.html")),
    ("report.html", include_str!("report.html")),
    ("inspect.html", include_str!("inspect.html")),
    ("inspect.css", include_str!("inspect.css")),
    ("preview.html", include_str!("preview.html")),
    ("rescore.html", include_str!("rescore.html")),
    ("evaluation.html", include_str!("evaluation/evaluation.html")),
    ("evaluation.css", include_str!("evaluation/evaluation.css")),
    ("browser.css", include_str!("browser/browser.css")),
];

/// Renders the template `name` of this module as a page with `scripts`.
pub(super) fn render(name: &str, scripts: &[&str], context: impl Serialize) -> Result<String> {
    render_page(name, Scripts { texts: scripts, is_live: false }, context)
}

fn render_page(name: &str, scripts: Scripts, context: impl Serialize) -> Result<String> {
    let mut templates = frame::templates(&TEMPLATES)?;
    templates.add_filter("strong_figures", strong_figures);
    templates.add_filter("stage_name", stage_name);
    templates.add_filter("grouped", grouped);
    frame::render(&templates, name, scripts, context)
}

/// Returns the page. It needs no network and no other file.
pub fn page(report: &RecipeReport) -> Result<String> {
    page_of(report, false)
}

/// Returns the page. A live page requests its new version from its server while the run continues.
pub fn page_of(report: &RecipeReport, is_live: bool) -> Result<String> {
    let RecipeReport { curves, changed, .. } = report;
    let data = frame::data(&serde_json::json!({"curves": curves, "changed": changed}))?;
    let scripts = [include_str!("live.js"), browser::SCRIPT, include_str!("page.js")];
    let texts = if is_live { &scripts[..] } else { &scripts[1..] };
    let index: HashMap<&str, usize> = curves.iter().enumerate().map(|(i, curve)| (curve.title.as_str(), i)).collect();
    let questions = report.stages.iter().filter_map(|s| s.acc.or(s.acc_t1)).map(|e| e.n).max().unwrap_or(0);
    let context = context! { data, questions, index, is_live, ..Value::from_serialize(report) };
    render_page("report.html", Scripts { texts, is_live }, context)
}

/// Marks numbers such as `12.3 %` and `+4.5 points` as strong text.
fn strong_figures(text: &str) -> Value {
    static FIGURE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(^| )([+-]?[0-9]+\.?[0-9]*) (%|points)").expect("a fixed pattern"));
    let text = HtmlEscape(text).to_string();
    Value::from_safe_string(FIGURE.replace_all(&text, "$1<strong>$2\u{a0}$3</strong>").into_owned())
}

/// Returns the name of a stage for readers.
pub(super) fn stage_name(name: &str) -> String {
    match name {
        "sft" | "rl" => name.to_uppercase(),
        "base" => "Base".to_owned(),
        "control" => "Control".to_owned(),
        other => other.to_owned(),
    }
}

/// Formats an integer with a narrow space between its thousands.
pub(super) fn grouped(value: usize) -> String {
    separated(value, "\u{202f}")
}

/// Formats an integer with `separator` between its thousands.
pub(super) fn separated(value: usize, separator: &str) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 12, 999, 1000, 1234567].map(grouped),
            ["0", "12", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }

    #[test]
    fn figures_of_a_headline_are_strong() {
        let text = "RL takes it from 50.0 % to 80.0 % greedily: +2 points (<b>).";
        let strong = "RL takes it from <strong>50.0\u{a0}%</strong> to <strong>80.0\u{a0}%</strong> greedily: \
                      <strong>+2\u{a0}points</strong> (&lt;b&gt;).";
        assert_eq!(strong_figures(text).to_string(), strong);
    }
}
