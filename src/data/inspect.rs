//! What is in a data set: rows, faults, pictures, lengths, and a few rows to look at.

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::config::DatasetConfig;
use crate::data::{Row, prompt, read, sft_sample, text_of};
use crate::error::{Error, Result};
use crate::image::Processor;
use crate::text::{Chat, Part};

/// Faults quoted in full; further ones are counted.
const QUOTED: usize = 5;
/// Characters of a message shown.
const SHOWN: usize = 400;

/// What was found in one data set.
pub struct Inspection {
    /// The data set's name.
    pub name: String,
    /// Rows in the file, those that cannot be read included.
    pub rows: usize,
    /// Rows that end with an assistant's answer: SFT form.
    pub answered: usize,
    /// Rows with a label.
    pub labelled: usize,
    /// Ids that more than one row has.
    pub shared_ids: usize,
    /// Pictures.
    pub images: usize,
    /// Widths and heights of the pictures.
    pub image_sizes: [Spread; 2],
    /// Characters of the messages of a row.
    pub characters: Spread,
    /// Tokens of a row with its pictures expanded, when a model was given: the training sample of an answered row, the
    /// prompt of another.
    pub tokens: Option<Spread>,
    /// The first faults, naming row and cause.
    pub faults: Vec<String>,
    /// Rows that cannot be used: unreadable, a broken picture, not encodable.
    pub faulty: usize,
    /// The first rows, as text.
    pub samples: Vec<String>,
}

/// Smallest, median, 90th and 99th percentile and largest of some numbers; all 0 of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// In the order named above.
    pub quantiles: [usize; 5],
    /// Their sum.
    pub sum: usize,
}

impl Spread {
    fn of(mut values: Vec<usize>) -> Spread {
        values.sort_unstable();
        let Some(last) = values.len().checked_sub(1) else { return Spread::default() };
        let at = |share: f64| values[(last as f64 * share).round() as usize];
        Spread { quantiles: [0.0, 0.5, 0.9, 0.99, 1.0].map(at), sum: values.iter().sum() }
    }

    fn line(&self) -> String {
        let [min, median, p90, p99, max] = self.quantiles;
        format!("min {min}, median {median}, p90 {p90}, p99 {p99}, max {max}")
    }

    fn json(&self) -> Value {
        let [min, median, p90, p99, max] = self.quantiles;
        json!({"min": min, "median": median, "p90": p90, "p99": p99, "max": max, "sum": self.sum})
    }
}

struct Looked {
    characters: usize,
    sizes: Vec<[usize; 2]>,
    tokens: Option<usize>,
}

/// Looks at every row of a data set: decodes each picture and, with a model, encodes each row. `show` rows are kept
/// as text. Rows at fault are counted; errors are for files that cannot be read at all.
pub fn inspect(entry: &DatasetConfig, model: Option<&(Chat, Processor)>, show: usize) -> Result<Inspection> {
    let (mut rows, mut faults, mut total) = (Vec::new(), Vec::new(), 0);
    read::for_each(entry, |row| {
        total += 1;
        match row {
            Ok(row) => rows.push(row),
            Err(error) => faults.push(Error::from(error).to_string()),
        }
        Ok(())
    })?;
    let looked: Vec<Result<Looked>> = rows.par_iter().map(|row| look(row, model)).collect();
    let (mut characters, mut sides, mut tokens) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
    for looked in looked {
        match looked {
            Ok(looked) => {
                characters.push(looked.characters);
                for [width, height] in looked.sizes {
                    sides[0].push(width);
                    sides[1].push(height);
                }
                tokens.extend(looked.tokens);
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    let mut ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
    ids.sort_unstable();
    let shared_ids = ids.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).count();
    let faulty = faults.len();
    faults.truncate(QUOTED);
    Ok(Inspection {
        name: read::name(entry),
        rows: total,
        answered: rows.iter().filter(|r| answered(r)).count(),
        labelled: rows.iter().filter(|r| r.ground_truth.is_some()).count(),
        shared_ids,
        images: rows.iter().map(|r| r.images.len()).sum(),
        image_sizes: sides.map(Spread::of),
        characters: Spread::of(characters),
        tokens: model.map(|_| Spread::of(tokens)),
        faults,
        faulty,
        samples: rows.iter().take(show).map(show_row).collect(),
    })
}

fn answered(row: &Row) -> bool {
    row.messages.last().is_some_and(|m| m.role == "assistant")
}

fn look(row: &Row, model: Option<&(Chat, Processor)>) -> Result<Looked> {
    let mut sizes = Vec::with_capacity(row.images.len());
    for image in &row.images {
        let rgb = image.decode(&row.place)?;
        sizes.push([rgb.width as usize, rgb.height as usize]);
    }
    let tokens = match model {
        None => None,
        Some((chat, processor)) if answered(row) => Some(sft_sample(row, chat, processor)?.input_ids.len()),
        Some((chat, processor)) => Some(prompt(row, chat, processor)?.ids.len()),
    };
    Ok(Looked { characters: row.messages.iter().map(|m| text_of(m).chars().count()).sum(), sizes, tokens })
}

fn show_row(row: &Row) -> String {
    let mut out = format!("  {} ({})\n", row.id, row.place);
    for message in &row.messages {
        let text: String = message
            .content
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Image => "[image]",
                Part::Video => "[video]",
            })
            .collect();
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push_str(" ...");
        }
        out.push_str(&format!("    {}: {}\n", message.role, shown.replace('\n', "\n      ")));
    }
    if let Some(truth) = &row.ground_truth {
        out.push_str(&format!("    ground truth: {truth}\n"));
    }
    out
}

impl Inspection {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {} rows", self.name, self.rows);
        let mut counts = vec![format!("{} with an answer", self.answered), format!("{} with a label", self.labelled)];
        if self.shared_ids > 0 {
            counts.push(format!("{} ids shared by several rows", self.shared_ids));
        }
        out.push_str(&format!(" ({})\n", counts.join(", ")));
        out.push_str(&format!("  images: {}\n", self.images));
        if self.images > 0 {
            out.push_str(&format!("    width: {}\n", self.image_sizes[0].line()));
            out.push_str(&format!("    height: {}\n", self.image_sizes[1].line()));
        }
        out.push_str(&format!("  characters a row: {}\n", self.characters.line()));
        if let Some(tokens) = &self.tokens {
            out.push_str(&format!("  tokens a row: {}, {} in all\n", tokens.line(), tokens.sum));
        }
        if self.faulty > 0 {
            out.push_str(&format!("  rows at fault: {}\n", self.faulty));
            out.extend(self.faults.iter().map(|fault| format!("    {fault}\n")));
            if self.faulty > self.faults.len() {
                out.push_str(&format!("    and {} more\n", self.faulty - self.faults.len()));
            }
        }
        out.extend(self.samples.iter().map(String::as_str));
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "in": self.rows, "kept": self.rows - self.faulty,
            "answered": self.answered, "labelled": self.labelled, "shared_ids": self.shared_ids, "images": self.images,
            "width": self.image_sizes[0].json(), "height": self.image_sizes[1].json(),
            "characters": self.characters.json(), "tokens": self.tokens.map(|t| t.json()), "faults": self.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_quantiles() {
        assert_eq!(Spread::of((0..=100).rev().collect()).quantiles, [0, 50, 90, 99, 100]);
        assert_eq!(Spread::of(vec![7]).quantiles, [7; 5]);
        assert_eq!(Spread::of(vec![]), Spread::default());
    }

    #[test]
    fn faults_are_counted_beside_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let good =
            r#"{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#;
        let broken = r#"{"problem": "x", "images": [{"bytes": "AAAA"}]}"#;
        std::fs::write(&path, format!("{good}\n{{\n{good}\n{broken}\n")).unwrap();
        let found = inspect(&read::entry(&path), None, 1).unwrap();
        assert_eq!((found.rows, found.faulty, found.answered, found.shared_ids), (4, 2, 2, 1));
        let text = found.text();
        assert!(text.contains("line 2") && text.contains("rows.jsonl row 4") && text.contains("user: hi"), "{text}");
    }
}
