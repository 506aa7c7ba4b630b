//! The page of `omr data inspect`: columns, counts, lengths and kinds of answers of each data set, and randomly drawn
//! rows.

use minijinja::{Value, context};

use super::browser::{self, Answer, Browser};
use super::html::{grouped, render};
use omr_base::error::Result;
use omr_data::rows::Reason;
use omr_data::rows::inspect::{DrawnRow, Inspection, Spread, kind};
use omr_data::text::{Message, Part};

/// Returns the page. It needs no network and no other file. `place` names the inspected data, and `seed` is the seed of
/// the drawn rows.
pub fn page(place: &str, found: &[Inspection], seed: u64) -> Result<String> {
    let rows: Vec<browser::Row> =
        found.iter().flat_map(|set| set.drawn.iter().map(|row| shown(&set.name, row))).collect();
    let sum = |count: fn(&Inspection) -> usize| found.iter().map(count).sum::<usize>();
    let note = format!("{} of {} rows, drawn at random by seed {seed}.", rows.len(), sum(|set| set.rows));
    let tiles = [
        ("data sets", found.len()),
        ("rows", sum(|set| set.rows)),
        ("with an answer", sum(|set| set.answered)),
        ("with a label", sum(|set| set.labelled)),
        ("images", sum(|set| set.images.sum)),
        ("faulty rows", sum(Inspection::faulty)),
    ];
    let sets: Vec<Value> = found.iter().map(section).collect();
    let browser = Browser { title: "Rows".to_owned(), note, rows };
    render("inspect.html", &[browser::SCRIPT], context! { title => place, tiles, sets, browser })
}

/// Returns the values that the template shows for a data set.
fn section(set: &Inspection) -> Value {
    let reason = |(why, n): (&Reason, &usize)| format!("{} {}", grouped(*n), why.name());
    let [width, height] = &set.image_sizes;
    let spreads = [
        ("Tokens per row", set.tokens.as_ref()),
        ("Characters per row", Some(&set.characters)),
        ("Characters per answer", Some(&set.answer_characters)),
        ("Images per row", Some(&set.images).filter(|images| images.sum > 0)),
        ("Width of images", Some(width)),
        ("Height of images", Some(height)),
    ];
    let drawn = |(title, spread): (&str, Option<&Spread>)| {
        let Spread { quantiles, bars, .. } = spread.filter(|spread| spread.count > 0)?;
        let bars: Vec<_> = bars.iter().map(|bar| (bar.range[0], bar.range[1], bar.count)).collect();
        Some(context! { title, quantiles => quantiles.map(grouped), bars })
    };
    context! {
        name => set.name,
        counts => counts(set),
        reasons => set.reasons.iter().map(reason).collect::<Vec<_>>().join(", "),
        faults => set.faults,
        raw => set.raw,
        mapping => set.mapping,
        columns => set.columns.iter().map(|c| (&c.name, c.read_as.unwrap_or("–"), &c.kind)).collect::<Vec<_>>(),
        spreads => spreads.into_iter().filter_map(drawn).collect::<Vec<Value>>(),
        kinds => set.kinds,
    }
}

fn counts(set: &Inspection) -> String {
    let mut parts = vec![format!("{} rows", grouped(set.rows))];
    if set.files > 1 {
        parts.push(format!("in {} files (with the columns of the first file)", set.files));
    }
    parts.push(format!("{} end with an answer", grouped(set.answered)));
    parts.push(format!("{} have a label", grouped(set.labelled)));
    if set.shared_ids > 0 {
        parts.push(format!("{} ids occur in several rows", grouped(set.shared_ids)));
    }
    parts.join(", ") + "."
}

/// Converts a row for the browser. Its last answer is separated from the question.
fn shown(set: &str, DrawnRow { row, images }: &DrawnRow) -> browser::Row {
    let answered = row.messages.last().filter(|message| message.role == "assistant");
    let asked = &row.messages[..row.messages.len() - usize::from(answered.is_some())];
    let text = |message: &Message| -> String {
        let parts = message.content.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Image => "[image] ",
            Part::Video { .. } => "[video] ",
        });
        let text: String = parts.collect();
        if asked.len() == 1 { text } else { format!("{}: {text}", message.role) }
    };
    let asked: Vec<String> = asked.iter().map(text).collect();
    // The inspection did not decode the images after a broken one.
    let others = row.images[images.len()..].iter().map(|image| browser::image(&image.bytes(&row.place).ok()?));
    let images = images.iter().cloned().chain(others).flatten().collect();
    let mut facets = vec![("data set".to_owned(), set.to_owned()), ("source".to_owned(), row.data_source.clone())];
    facets.extend(row.ground_truth.as_deref().map(|label| ("label".to_owned(), kind(label).to_owned())));
    facets.push(("images".to_owned(), row.images.len().to_string()));
    browser::Row {
        id: format!("{} · {}", row.id, row.place),
        question: asked.join("\n\n"),
        images,
        gold: row.ground_truth.clone(),
        answers: answered.iter().map(|message| Answer::of("answer", &omr_data::rows::text_of(message))).collect(),
        facets,
        facts: Vec::new(),
    }
}
