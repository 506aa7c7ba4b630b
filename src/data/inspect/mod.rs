//! What is in a data set: columns, rows, faults, pictures, lengths, kinds of answers, and a few rows to look at. Rows pass
//! by; a few numbers of each are kept.

mod kinds;
mod spread;

use std::collections::{BTreeMap, BinaryHeap};

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::config::DatasetConfig;
use crate::data::bad::{Bad, Read, Reason};
use crate::data::read::{Column, Left, RowFile};
use crate::data::stamp::short;
use crate::data::{Row, prompt, read, sft_sample, text_of};
use crate::error::{Error, Result};
use crate::image::Processor;
use crate::philox::{Purpose, Random};
use crate::text::{Chat, Part};

pub use kinds::kind;
pub use spread::{Bar, Spread};

/// Faults quoted in full; further ones are counted.
const QUOTED: usize = 5;
/// Characters of a message shown.
const SHOWN: usize = 400;
/// Rows looked at together, and bytes of their embedded pictures.
const CHUNK_ROWS: usize = 512;
const CHUNK_BYTES: usize = 32 << 20;

/// How to look.
pub struct Options<'a> {
    /// Counts tokens with it.
    pub model: Option<&'a (Chat, Processor)>,
    /// Rows from the beginning that are kept as text.
    pub first: usize,
    /// Rows drawn at random that are kept whole.
    pub random: usize,
    /// Decides which.
    pub seed: u64,
}

/// What was found in one data set.
pub struct Inspection {
    /// The data set's name.
    pub name: String,
    /// Its files; 0 where the rows are not a data set's.
    pub files: usize,
    /// Columns of the first file.
    pub columns: Vec<Column>,
    /// Rows, those that cannot be read included.
    pub rows: usize,
    /// Rows that end with an assistant's answer: SFT form.
    pub answered: usize,
    /// Rows with a label.
    pub labelled: usize,
    /// Ids that more than one row has.
    pub shared_ids: usize,
    /// Pictures a row.
    pub images: Spread,
    /// Widths and heights of the pictures.
    pub image_sizes: [Spread; 2],
    /// Characters of the messages of a row.
    pub characters: Spread,
    /// Characters of the answers of those rows that have one.
    pub answer_characters: Spread,
    /// Tokens of a row with its pictures expanded, when a model was given: the training sample of an answered row, the
    /// prompt of another.
    pub tokens: Option<Spread>,
    /// Labels by kind, the most frequent first.
    pub kinds: Vec<(&'static str, usize)>,
    /// The first faults, naming row and cause.
    pub faults: Vec<String>,
    /// Rows that cannot be used, by why: unreadable, a broken picture, not encodable.
    pub reasons: BTreeMap<Reason, usize>,
    /// The first rows, as text.
    pub samples: Vec<String>,
    /// Rows drawn at random, in their order.
    pub drawn: Vec<Row>,
}

/// Looks at every row of a data set: decodes each picture and, with a model, encodes each row. Rows at fault are
/// counted; errors are for files that cannot be read at all.
pub fn inspect(entry: &DatasetConfig, options: &Options) -> Result<Inspection> {
    let files = RowFile::open(std::slice::from_ref(entry))?;
    let mut left = Left::default();
    let found = of_rows(read::name(entry), options, |take| {
        files.iter().try_for_each(|file| {
            file.for_each(left.of(file), |_, row| {
                left.take(file);
                take(row)
            })
        })
    })?;
    let columns = files.first().map_or(Ok(Vec::new()), RowFile::columns)?;
    Ok(Inspection { files: files.len(), columns, ..found })
}

/// Looks at the rows that `each` gives, of whatever source.
pub fn of_rows(
    name: String,
    options: &Options,
    each: impl FnOnce(&mut dyn FnMut(Read<Row>) -> Result<()>) -> Result<()>,
) -> Result<Inspection> {
    let mut found = Found::new(options);
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    each(&mut |row| {
        bytes += row.as_ref().map_or(0, |row| row.images.iter().map(|image| image.embedded()).sum());
        chunk.push(row);
        if chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
            bytes = 0;
            found.take(std::mem::take(&mut chunk));
        }
        Ok(())
    })?;
    found.take(chunk);
    Ok(found.inspection(name))
}

/// What one row shows.
struct Looked {
    characters: u32,
    answer: Option<u32>,
    sizes: Vec<[u32; 2]>,
    tokens: Option<u32>,
}

struct Found<'a> {
    options: &'a Options<'a>,
    rows: usize,
    answered: usize,
    labelled: usize,
    /// The beginnings of the ids' hashes.
    ids: Vec<u64>,
    images: Vec<u32>,
    sides: [Vec<u32>; 2],
    characters: Vec<u32>,
    answers: Vec<u32>,
    tokens: Vec<u32>,
    kinds: BTreeMap<&'static str, usize>,
    faults: Vec<String>,
    reasons: BTreeMap<Reason, usize>,
    samples: Vec<String>,
    drawn: BinaryHeap<Drawn>,
}

/// A row with its lot: those with the smallest are kept.
struct Drawn {
    lot: u64,
    number: usize,
    row: Row,
}

impl PartialEq for Drawn {
    fn eq(&self, other: &Drawn) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Drawn {}

impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Drawn) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Drawn {
    fn cmp(&self, other: &Drawn) -> std::cmp::Ordering {
        (self.lot, self.number).cmp(&(other.lot, other.number))
    }
}

impl<'a> Found<'a> {
    fn new(options: &'a Options<'a>) -> Found<'a> {
        Found {
            options,
            rows: 0,
            answered: 0,
            labelled: 0,
            ids: Vec::new(),
            images: Vec::new(),
            sides: Default::default(),
            characters: Vec::new(),
            answers: Vec::new(),
            tokens: Vec::new(),
            kinds: BTreeMap::new(),
            faults: Vec::new(),
            reasons: BTreeMap::new(),
            samples: Vec::new(),
            drawn: BinaryHeap::new(),
        }
    }

    /// Looks at rows on all cores and counts them in their order.
    fn take(&mut self, rows: Vec<Read<Row>>) {
        let looked: Vec<_> = rows
            .into_par_iter()
            .map(|row| match row {
                Ok(row) => {
                    let looked = look(&row, self.options.model);
                    (Some(row), looked)
                }
                Err(bad) => (None, Err(bad)),
            })
            .collect();
        for (row, looked) in looked {
            self.rows += 1;
            match looked {
                Ok(looked) => {
                    self.characters.push(looked.characters);
                    self.answers.extend(looked.answer);
                    self.tokens.extend(looked.tokens);
                    self.sides[0].extend(looked.sizes.iter().map(|size| size[0]));
                    self.sides[1].extend(looked.sizes.iter().map(|size| size[1]));
                }
                Err(Bad { reason, error, .. }) => {
                    *self.reasons.entry(reason).or_default() += 1;
                    if self.faults.len() < QUOTED {
                        self.faults.push(error.to_string());
                    }
                }
            }
            if let Some(row) = row {
                self.count(row);
            }
        }
    }

    fn count(&mut self, row: Row) {
        self.answered += usize::from(answered(&row));
        self.labelled += usize::from(row.ground_truth.is_some());
        self.ids.push(short(&blake3::hash(row.id.as_bytes())));
        self.images.push(row.images.len() as u32);
        if let Some(label) = &row.ground_truth {
            *self.kinds.entry(kind(label)).or_default() += 1;
        }
        if self.samples.len() < self.options.first {
            self.samples.push(show_row(&row));
        }
        let number = self.rows;
        let lot = Random::new(self.options.seed, Purpose::Shuffle, number as u64).next_u64();
        let full = self.drawn.len() >= self.options.random;
        if full && self.drawn.peek().is_none_or(|last| lot >= last.lot) {
            return;
        }
        self.drawn.push(Drawn { lot, number, row });
        if full {
            self.drawn.pop();
        }
    }

    fn inspection(mut self, name: String) -> Inspection {
        self.ids.sort_unstable();
        let shared_ids = self.ids.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).count();
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let mut drawn = self.drawn.into_vec();
        drawn.sort_by_key(|drawn| drawn.number);
        Inspection {
            name,
            files: 0,
            columns: Vec::new(),
            rows: self.rows,
            answered: self.answered,
            labelled: self.labelled,
            shared_ids,
            images: Spread::of(self.images),
            image_sizes: self.sides.map(Spread::of),
            characters: Spread::of(self.characters),
            answer_characters: Spread::of(self.answers),
            tokens: self.options.model.map(|_| Spread::of(self.tokens)),
            kinds,
            faults: self.faults,
            reasons: self.reasons,
            samples: self.samples,
            drawn: drawn.into_iter().map(|drawn| drawn.row).collect(),
        }
    }
}

fn answered(row: &Row) -> bool {
    row.messages.last().is_some_and(|m| m.role == "assistant")
}

fn look(row: &Row, model: Option<&(Chat, Processor)>) -> Read<Looked> {
    let mut sizes = Vec::with_capacity(row.images.len());
    for image in &row.images {
        let rgb = image.decode(&row.place).map_err(Bad::of(Reason::BrokenImage))?;
        sizes.push([rgb.width, rgb.height]);
    }
    let tokens = match model {
        None => Ok(None),
        Some((chat, processor)) if answered(row) => {
            sft_sample(row, chat, processor).map(|sample| Some(sample.input_ids.len() as u32))
        }
        Some((chat, processor)) => prompt(row, chat, processor).map(|prompt| Some(prompt.ids.len() as u32)),
    };
    let characters = |message| text_of(message).chars().count() as u32;
    Ok(Looked {
        characters: row.messages.iter().map(characters).sum(),
        answer: row.messages.last().filter(|_| answered(row)).map(characters),
        sizes,
        tokens: tokens.map_err(Bad::of(Reason::WrongText))?,
    })
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
    /// Rows that cannot be used.
    pub fn faulty(&self) -> usize {
        self.reasons.values().sum()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {} rows", self.name, self.rows);
        let mut counts = vec![format!("{} with an answer", self.answered), format!("{} with a label", self.labelled)];
        if self.shared_ids > 0 {
            counts.push(format!("{} ids shared by several rows", self.shared_ids));
        }
        if self.files > 1 {
            counts.push(format!("in {} files", self.files));
        }
        out.push_str(&format!(" ({})\n", counts.join(", ")));
        if !self.columns.is_empty() {
            let columns: Vec<String> = self.columns.iter().map(|c| format!("{} ({})", c.name, c.kind)).collect();
            out.push_str(&format!("  columns: {}\n", columns.join(", ")));
        }
        out.push_str(&format!("  images: {}\n", self.images.sum));
        if self.images.sum > 0 {
            out.push_str(&format!("    width: {}\n", self.image_sizes[0].line()));
            out.push_str(&format!("    height: {}\n", self.image_sizes[1].line()));
        }
        out.push_str(&format!("  characters a row: {}\n", self.characters.line()));
        if let Some(tokens) = &self.tokens {
            out.push_str(&format!("  tokens a row: {}, {} in all\n", tokens.line(), tokens.sum));
        }
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            out.push_str(&format!("  labels: {}\n", kinds.join(", ")));
        }
        if self.faulty() > 0 {
            out.push_str(&format!("  rows at fault: {}\n", self.faulty()));
            out.extend(self.faults.iter().map(|fault| format!("    {fault}\n")));
            if self.faulty() > self.faults.len() {
                out.push_str(&format!("    and {} more\n", self.faulty() - self.faults.len()));
            }
        }
        out.extend(self.samples.iter().map(String::as_str));
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let columns: Vec<Value> =
            self.columns.iter().map(|c| json!({"name": c.name, "type": c.kind, "read_as": c.read_as})).collect();
        let rejected: BTreeMap<&str, usize> = self.reasons.iter().map(|(why, count)| (why.name(), *count)).collect();
        json!({
            "name": self.name, "in": self.rows, "kept": self.rows - self.faulty(), "rejected": rejected,
            "files": self.files, "columns": columns,
            "answered": self.answered, "labelled": self.labelled, "shared_ids": self.shared_ids,
            "images": self.images.sum, "images_a_row": self.images.json(),
            "width": self.image_sizes[0].json(), "height": self.image_sizes[1].json(),
            "characters": self.characters.json(), "answer_characters": self.answer_characters.json(),
            "tokens": self.tokens.as_ref().map(Spread::json),
            "labels": self.kinds.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "faults": self.faults,
        })
    }
}

/// The first of the sets' faults, as an error: rows at fault are the user's to mend.
pub fn refuse_faults(place: &str, found: &[Inspection]) -> Result<()> {
    let faulty: usize = found.iter().map(Inspection::faulty).sum();
    match found.iter().find(|found| found.faulty() > 0) {
        None => Ok(()),
        Some(first) => {
            let found = format!("{faulty} rows at fault, the first: {}", first.faults.join(" ").trim());
            Err(Error::input(place, found, "rows that can be used"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Options = Options { model: None, first: 1, random: 3, seed: 1 };

    #[test]
    fn faults_are_counted_beside_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let good =
            r#"{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#;
        let broken = r#"{"problem": "x", "images": [{"bytes": "AAAA"}]}"#;
        std::fs::write(&path, format!("{good}\n{{\n{good}\n{broken}\n")).unwrap();
        let found = inspect(&read::entry(&path), &LOOK).unwrap();
        assert_eq!((found.rows, found.faulty(), found.answered, found.shared_ids), (4, 2, 2, 1));
        assert_eq!(found.reasons, [(Reason::BrokenRow, 1), (Reason::BrokenImage, 1)].into());
        let text = found.text();
        assert!(text.contains("line 2") && text.contains("rows.jsonl row 4") && text.contains("user: hi"), "{text}");
        let columns: Vec<_> = found.columns.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.read_as)).collect();
        assert!(columns.contains(&("problem", "a string", Some("problem"))), "{columns:?}");
    }

    #[test]
    fn the_rows_drawn_depend_on_the_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let lines: Vec<String> = (0..2000).map(|i| format!("{{\"problem\": \"{i}\", \"answer\": {i}}}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let drawn = |seed| {
            let found = inspect(&read::entry(&path), &Options { seed, ..LOOK }).unwrap();
            found.drawn.into_iter().map(|row| row.question().parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let first = drawn(1);
        assert!(first.len() == 3 && first.is_sorted() && first == drawn(1) && first != drawn(2), "{first:?}");
    }
}
