//! From a [`RecipeReport`] to one HTML file.

use std::fmt::Write;

use super::browser;
use super::{Contrast, RecipeReport, Stage, Table};
use crate::error::Result;
use crate::eval::stats::{Estimate, Interval};
use crate::page::{data, escape, frame};

const SCRIPT: &str = include_str!("page.js");

/// The page. It needs no network and no other file.
pub fn page(report: &RecipeReport) -> Result<String> {
    let mut body = header(report);
    if !report.stages.is_empty() {
        body.push_str(&accuracy(report));
    }
    if let Some(columns) = &report.columns {
        let said = "Published scores are those of OpenMMReasoner's README and paper; they were not measured here.";
        body.push_str(&format!(
            "<section class=\"scores\"><h2>Scores by task</h2><p class=\"sub\">{said}</p>{}</section>",
            rows(columns)
        ));
    }
    if let Some(table) = &report.table {
        body.push_str(&format!("<section><h2>Side by side</h2>{}</section>", rows(table)));
    }
    if !report.curves.is_empty() {
        body.push_str(&curves(report));
    }
    if !report.examples.is_empty() {
        body.push_str(EXAMPLES);
    }
    if let Some(rollouts) = &report.rollouts {
        body.push_str(&browser::section(rollouts)?);
    }
    let data = data(" id=\"data\"", &serde_json::json!({"curves": report.curves, "examples": report.examples}))?;
    let mut scripts = format!("{data}\n<script>\n{SCRIPT}</script>");
    if report.rollouts.is_some() {
        scripts += &format!("\n<script>\n{}</script>", browser::SCRIPT);
    }
    let style = if report.rollouts.is_some() { browser::STYLE } else { "" };
    Ok(frame(&report.title, style, &body, &scripts))
}

fn header(report: &RecipeReport) -> String {
    let mut out = format!(
        "<header><p class=\"brand\">omr</p><h1>{}</h1><p class=\"headline\">{}</p>",
        escape(&report.title),
        strong_figures(&escape(&report.headline))
    );
    for remark in &report.remarks {
        let _ = write!(out, "<p class=\"remark\">{}</p>", escape(remark));
    }
    if !report.tiles.is_empty() {
        out.push_str("<dl class=\"tiles\">");
        for (label, value) in &report.tiles {
            let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label), escape(value));
        }
        out.push_str("</dl>");
    }
    out.push_str("</header>\n");
    out.push_str(&about(report));
    out
}

/// What it is of: the same place on every page.
fn about(report: &RecipeReport) -> String {
    let mut out = String::new();
    if report.facts.is_empty() {
        return out;
    }
    let heading = if report.table.is_some() { "What the runs have in common" } else { "The run" };
    let _ = write!(out, "<section><h2>{heading}</h2><dl class=\"facts\">");
    for (label, value) in &report.facts {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label), escape(value));
    }
    out.push_str("</dl>");
    if !report.config.is_empty() {
        let config = escape(&report.config);
        let _ =
            write!(out, "<details class=\"config\"><summary>Config, resolved</summary><pre>{config}</pre></details>");
    }
    out.push_str("</section>\n");
    out
}

/// Sets `12.3 %` and `+4.5 points` in the headline in strong type.
fn strong_figures(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out = String::new();
    let mut i = 0;
    while i < words.len() {
        let unit = words.get(i + 1).is_some_and(|next| next.starts_with('%') || next.starts_with("points"));
        if i > 0 {
            out.push(' ');
        }
        if unit && words[i].trim_start_matches(['+', '-']).parse::<f64>().is_ok() {
            let next = words[i + 1];
            let tail = next.find([',', '.', ':', ';']).unwrap_or(next.len());
            let _ = write!(out, "<strong>{}\u{a0}{}</strong>{}", words[i], &next[..tail], &next[tail..]);
            i += 1;
        } else {
            out.push_str(words[i]);
        }
        i += 1;
    }
    out
}

fn accuracy(report: &RecipeReport) -> String {
    let n = report.stages.iter().filter_map(|s| s.acc.or(s.acc_t1)).map(|e| e.n).max().unwrap_or(0);
    let mut out = format!(
        "<section id=\"accuracy\"><h2>Accuracy on held-out questions</h2>\
         <p class=\"sub\">{n} questions on pictures no training saw. Whiskers are 95 % intervals.</p>\
         <p class=\"legend\"><span class=\"key greedy\"></span>greedy <span class=\"key t1\"></span>temperature 1 <span class=\"last\">format kept</span></p>\
         <ul class=\"bars\">"
    );
    for stage in &report.stages {
        out.push_str(&stage_bars(stage));
    }
    out.push_str("</ul><div class=\"scale\" aria-hidden=\"true\"><span>0</span><span>25</span><span>50</span><span>75</span><span>100\u{a0}%</span></div>");
    if !report.contrasts.is_empty() {
        out.push_str(&contrasts(&report.contrasts));
    }
    out.push_str("</section>\n");
    out
}

fn stage_bars(stage: &Stage) -> String {
    let name = escape(&stage.name);
    let mut out = format!(
        "<li class=\"{name}\"><div class=\"who\"><b>{}</b> <span>{}</span></div><div class=\"tracks\">",
        stage_name(&stage.name),
        escape(&stage.note)
    );
    for (kind, label, estimate) in [("greedy", "greedy", &stage.acc), ("t1", "temperature 1", &stage.acc_t1)] {
        if let Some(Estimate { mean, ci95: Interval { lo, hi }, .. }) = estimate {
            let _ = write!(
                out,
                "<div class=\"track {kind}\" style=\"--v:{v:.2};--lo:{lo:.2};--hi:{hi:.2}\"><i class=\"bar\"></i>\
                 <i class=\"whisker\"></i></div><p class=\"value\"><span class=\"sr\">{label} </span><b>{v:.1} %</b> \
                 <small>{lo:.1} to {hi:.1}</small></p>",
                v = mean * 100.0,
                lo = lo * 100.0,
                hi = hi * 100.0,
            );
        }
    }
    if let Some(format) = stage.format {
        let _ = write!(out, "<p class=\"format\"><span class=\"sr\">format kept in </span>{:.1} %</p>", format * 100.0);
    }
    out.push_str("</div></li>");
    out
}

/// Paired differences on a common scale.
pub(super) fn contrasts(contrasts: &[Contrast]) -> String {
    let ends = |pick: fn(&Interval) -> f64| contrasts.iter().map(move |c| pick(&c.estimate.ci95) * 100.0);
    let low = (ends(|i| i.lo).fold(0.0, f64::min) / 5.0).floor() * 5.0;
    let high = (ends(|i| i.hi).fold(5.0, f64::max) / 5.0).ceil() * 5.0;
    let at = |points: f64| (points - low) / (high - low) * 100.0;
    let mut out = format!(
        "<h3>Differences on the same questions</h3><p class=\"sub\">Points, with paired 95 % intervals. An interval \
         right of zero means the gain is more than chance.</p><ul class=\"contrasts\" style=\"--zero:{:.2}\">",
        at(0.0)
    );
    for contrast in contrasts {
        let Estimate { mean, ci95: Interval { lo, hi }, .. } = contrast.estimate;
        let (mean, lo, hi) = (mean * 100.0, lo * 100.0, hi * 100.0);
        let _ = write!(
            out,
            "<li><div class=\"who\"><b>{}</b> <span>{}</span></div><div class=\"track\" style=\"--v:{:.2};--lo:{:.2};\
             --hi:{:.2}\"><i class=\"zero\"></i><i class=\"whisker\"></i><i class=\"dot\"></i></div><p class=\"value\"><b>{mean:+.1}</b> \
             <small>{lo:+.1} to {hi:+.1}</small></p></li>",
            escape(&contrast.label),
            escape(&contrast.what),
            at(mean),
            at(lo),
            at(hi),
        );
    }
    out.push_str("</ul>");
    out
}

fn curves(report: &RecipeReport) -> String {
    let mut out = String::from("<section><h2>Course of training</h2><div class=\"charts\">");
    for (i, curve) in report.curves.iter().enumerate() {
        let _ = write!(
            out,
            "<figure><figcaption><b>{}</b><span>{}</span></figcaption><div class=\"chart\" data-curve=\"{i}\"></div></figure>",
            escape(&curve.title),
            escape(&curve.caption)
        );
    }
    out.push_str("</div><noscript><p class=\"sub\">The curves are drawn by a script; metrics.jsonl has the figures.</p></noscript></section>\n");
    out
}

/// A table's markup.
pub(super) fn rows(table: &Table) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for cell in &table.head {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
    }
    out.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let (open, close) = if i == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
            let _ = write!(out, "{open}{}{close}", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

const EXAMPLES: &str = "<section id=\"examples\"><h2>The answers, before and after RL</h2>\
<div class=\"controls\"><div class=\"chips\" role=\"group\" aria-label=\"Which questions\"></div>\
<div class=\"chips\" role=\"group\" aria-label=\"Which answers\" id=\"how\"></div>\
<input type=\"search\" placeholder=\"Search questions and answers\" aria-label=\"Search questions and answers\"></div>\
<p class=\"sub\" role=\"status\"></p><div class=\"cards\"></div><button class=\"more\" hidden>Show more</button>\
<noscript><p class=\"sub\">The examples are shown by a script; eval/*/samples.jsonl has them.</p></noscript></section>\n";

/// The name a reader knows a stage by.
pub(super) fn stage_name(name: &str) -> String {
    match name {
        "sft" | "rl" => name.to_uppercase(),
        "base" => "Base".to_owned(),
        "control" => "Control".to_owned(),
        other => escape(other),
    }
}
