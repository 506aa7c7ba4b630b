//! The page of `omr data inspect`: columns, counts, lengths and kinds of answers of each data set, and rows drawn at
//! random.

use std::fmt::Write;

use super::browser::{self, Answer, Browser};
use crate::data::inspect::{DrawnRow, Inspection, Spread, kind};
use crate::data::read::Column;
use crate::error::Result;
use crate::page::{escape, frame};
use crate::text::{Message, Part};

const STYLE: &str = include_str!("inspect.css");

/// The page. It needs no network and no other file. `place` is what was looked at, `seed` drew the rows.
pub fn page(place: &str, found: &[Inspection], seed: u64) -> Result<String> {
    let mut body = format!(
        "<header><p class=\"brand\">omr data inspect</p><h1>{}</h1><dl class=\"tiles\">{}</dl></header>\n",
        escape(place),
        tiles(found)
    );
    found.iter().for_each(|set| body.push_str(&section(set)));
    let rows: Vec<browser::Row> =
        found.iter().flat_map(|set| set.drawn.iter().map(|row| shown(&set.name, row))).collect();
    let all: usize = found.iter().map(|set| set.rows).sum();
    let note = format!("{} of {} rows, drawn at random by seed {seed}.", rows.len(), all);
    body.push_str(&browser::section(&Browser { title: "Rows".to_owned(), note, rows })?);
    let style = format!("{STYLE}{}", browser::STYLE);
    Ok(frame(place, &style, &body, &format!("<script>\n{}</script>", browser::SCRIPT)))
}

fn tiles(found: &[Inspection]) -> String {
    let sum = |count: fn(&Inspection) -> usize| found.iter().map(count).sum::<usize>();
    let tiles = [
        ("data sets", found.len()),
        ("rows", sum(|set| set.rows)),
        ("with an answer", sum(|set| set.answered)),
        ("with a label", sum(|set| set.labelled)),
        ("pictures", sum(|set| set.images.sum)),
        ("rows at fault", sum(Inspection::faulty)),
    ];
    tiles.iter().map(|(label, value)| format!("<div><dt>{label}</dt><dd>{}</dd></div>", grouped(*value))).collect()
}

/// A whole number with its thousands apart.
fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join("\u{202f}")
}

fn section(set: &Inspection) -> String {
    let mut out = format!("<section><h2>{}</h2><p class=\"sub\">{}</p>", escape(&set.name), escape(&counts(set)));
    if set.faulty() > 0 {
        let reasons: Vec<String> =
            set.reasons.iter().map(|(why, n)| format!("{} {}", grouped(*n), why.name())).collect();
        let _ = write!(out, "<h3>Rows at fault</h3><p class=\"sub\">{}</p><ul class=\"faults\">", reasons.join(", "));
        set.faults.iter().for_each(|fault| out.push_str(&format!("<li>{}</li>", escape(fault))));
        out.push_str("</ul>");
    }
    if !set.columns.is_empty() {
        out.push_str(&columns(&set.columns));
    }
    out.push_str("<h3>Lengths</h3><div class=\"spreads\">");
    let [width, height] = &set.image_sizes;
    let spreads = [
        ("Tokens of a row", set.tokens.as_ref()),
        ("Characters of a row", Some(&set.characters)),
        ("Characters of an answer", Some(&set.answer_characters)),
        ("Pictures of a row", Some(&set.images).filter(|images| images.sum > 0)),
        ("Width of a picture", Some(width)),
        ("Height of a picture", Some(height)),
    ];
    for (title, spread) in spreads {
        out.extend(spread.filter(|spread| spread.count > 0).map(|spread| histogram(title, spread)));
    }
    out.push_str("</div>");
    if !set.kinds.is_empty() {
        out.push_str("<h3>Right answers</h3><ul class=\"kinds\">");
        let most = set.kinds.iter().map(|(_, count)| *count).max().unwrap_or(1);
        for (kind, count) in &set.kinds {
            let share = *count as f64 / most as f64 * 100.0;
            let count = grouped(*count);
            let _ = write!(out, "<li><span>{kind}</span><i style=\"--v:{share:.1}\"></i><b>{count}</b></li>");
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>\n");
    out
}

fn columns(columns: &[Column]) -> String {
    let mut out =
        "<h3>Columns</h3><div class=\"scroll\"><table class=\"columns\"><thead><tr><th scope=\"col\">name</th>\
        <th scope=\"col\">read as</th><th scope=\"col\">type</th></tr></thead><tbody>"
            .to_owned();
    for column in columns {
        let read_as = column.read_as.unwrap_or("–");
        let (name, kind) = (escape(&column.name), escape(&column.kind));
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th><td>{read_as}</td><td>{kind}</td></tr>");
    }
    out + "</tbody></table></div>"
}

fn counts(set: &Inspection) -> String {
    let mut parts = vec![format!("{} rows", grouped(set.rows))];
    if set.files > 1 {
        parts.push(format!("in {} files, the columns those of the first", set.files));
    }
    parts.push(format!("{} end with an answer", grouped(set.answered)));
    parts.push(format!("{} have a label", grouped(set.labelled)));
    if set.shared_ids > 0 {
        parts.push(format!("{} ids are those of several rows", grouped(set.shared_ids)));
    }
    parts.join(", ") + "."
}

fn histogram(title: &str, spread: &Spread) -> String {
    let [min, median, p90, p99, max] = spread.quantiles.map(grouped);
    let most = spread.bars.iter().map(|bar| bar.count).max().unwrap_or(1).max(1);
    let said = format!("{title}: from {min} to {max}, median {median}");
    let mut out = format!(
        "<figure><figcaption><b>{title}</b></figcaption><div class=\"histogram\" role=\"img\" aria-label=\"{said}\">"
    );
    for bar in &spread.bars {
        let height = bar.count as f64 / most as f64 * 100.0;
        let [low, high] = bar.range.map(grouped);
        let range = if low == high { low } else { format!("{low} to {high}") };
        let _ = write!(out, "<i style=\"--v:{height:.1}\" title=\"{range}: {}\"></i>", grouped(bar.count));
    }
    let _ = write!(
        out,
        "</div><p class=\"ends\"><span>{min}</span><span>{max}</span></p>\
         <p class=\"sub\">median {median}, 90 % up to {p90}, 99 % up to {p99}</p></figure>"
    );
    out
}

/// A row for the browser: its last answer apart from what was asked.
fn shown(set: &str, DrawnRow { row, pictures }: &DrawnRow) -> browser::Row {
    let answered = row.messages.last().filter(|message| message.role == "assistant");
    let asked = &row.messages[..row.messages.len() - usize::from(answered.is_some())];
    let said = |message: &Message| -> String {
        let text: String = message
            .content
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Image => "[picture] ",
                Part::Video { .. } => "[video] ",
            })
            .collect();
        if asked.len() == 1 { text } else { format!("{}: {text}", message.role) }
    };
    let asked: Vec<String> = asked.iter().map(said).collect();
    // Those behind a broken one were not looked at.
    let others = row.images[pictures.len()..].iter().map(|image| browser::picture(&image.bytes(&row.place).ok()?));
    let pictures = pictures.iter().cloned().chain(others).flatten().collect();
    let mut facets = vec![("data set".to_owned(), set.to_owned()), ("source".to_owned(), row.data_source.clone())];
    facets.extend(row.ground_truth.as_deref().map(|label| ("label".to_owned(), kind(label).to_owned())));
    facets.push(("pictures".to_owned(), row.images.len().to_string()));
    browser::Row {
        id: format!("{} · {}", row.id, row.place),
        question: asked.join("\n\n"),
        pictures,
        gold: row.ground_truth.clone(),
        answers: answered.iter().map(|message| Answer::of("answer", &crate::data::text_of(message))).collect(),
        facets,
        facts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 12, 999, 1000, 1234567].map(grouped),
            ["0", "12", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }
}
