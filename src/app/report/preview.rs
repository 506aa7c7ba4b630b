//! The page of `omr data preview`: rows as a model sees them, with the trained tokens shaded.

use minijinja::{Value, context};

use super::html::{grouped, render};
use omr_base::error::Result;
use omr_data::rows::inspect::Preview;

/// Returns the page. It needs no network and no other file. `place` names the data.
pub fn page(place: &str, rows: &[Preview]) -> Result<String> {
    let row = |row: &Preview| {
        context! {
            id => row.id,
            facts => facts(row),
            images => row.images.iter().flatten().collect::<Vec<_>>(),
            pieces => row.pieces.iter().map(|piece| (piece.trained, &piece.text)).collect::<Vec<_>>(),
        }
    };
    render("preview.html", &[], context! { title => place, rows => rows.iter().map(row).collect::<Vec<Value>>() })
}

/// Describes a row in one line.
pub fn facts(row: &Preview) -> String {
    let mut facts = vec![row.place.clone(), format!("form: {}", row.form)];
    facts.push(match row.targets {
        0 => format!("{} tokens of a prompt, no answer to train on", grouped(row.tokens)),
        targets => format!("{} tokens, {} trained", grouped(row.tokens), grouped(targets)),
    });
    if row.targets > 0 && !row.ends {
        facts.push("the token that ends an answer is not trained".to_owned());
    }
    if !row.tags.is_empty() {
        facts.push(format!("special tokens that are trained: {}", row.tags.join(" ")));
    }
    facts.push(format!("images: {}", row.images.len()));
    facts.extend(row.ground_truth.as_ref().map(|truth| format!("label: {truth}")));
    facts.extend(row.reward.iter().map(|(field, value)| format!("{field}: {value}")));
    facts.join(" · ")
}
