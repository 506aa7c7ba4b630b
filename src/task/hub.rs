//! Rows of published data sets: the hub's parquet files in the user's folder, read one after another, and what the
//! benchmarks make of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Asked, Checked, Crash, Source, Stage, Take, TaskSpec};
use crate::config::Mode;
use crate::data::columns::{self, Columns};
use crate::data::form::RawImage;
use crate::data::sample::SYSTEM_PROMPT;
use crate::data::{ImageSource, Row};
use crate::error::{Error, Result};
use crate::text::{Message, Part, repr};

/// A data set of the hub: one split of it, and the columns a task needs.
pub struct Hub {
    /// Its address.
    pub repo: &'static str,
    /// Its config, where it has several.
    pub config: Option<&'static str>,
    /// The split, by the names its files may have.
    pub split: &'static [&'static str],
    /// Columns that must be there.
    pub columns: &'static [&'static str],
    /// Columns that may be.
    pub optional: &'static [&'static str],
    /// Columns with one picture a row.
    pub pictures: &'static [&'static str],
    /// Where a row says what its question is about; the column may be missing.
    pub subject: Subject,
}

/// Where a row says what its question is about.
#[derive(Clone, Copy)]
pub enum Subject {
    /// Nowhere.
    Unsaid,
    /// In a column, as a text or a list of texts.
    Column(&'static str),
    /// In a member of a column of structs.
    Member(&'static str, &'static str),
    /// In the middle of an id: `validation_Art_Theory_12`.
    Id(&'static str),
}

impl Subject {
    /// The column it stands in.
    fn column(self) -> Option<&'static str> {
        match self {
            Subject::Unsaid => None,
            Subject::Column(column) | Subject::Member(column, _) | Subject::Id(column) => Some(column),
        }
    }

    /// The subject of a row with these columns.
    fn of(self, fields: &Map<String, Value>) -> Option<String> {
        let value = fields.get(self.column()?)?;
        let text = match self {
            Subject::Member(_, member) => value.get(member)?,
            _ => value,
        };
        match (self, text) {
            (Subject::Id(_), Value::String(id)) => Some(id.split_once('_')?.1.rsplit_once('_')?.0.replace('_', " ")),
            (_, Value::String(text)) => Some(text.clone()),
            (_, Value::Array(several)) => Some(several.iter().map(written).collect::<Vec<_>>().join(", ")),
            _ => None,
        }
        .filter(|subject| !subject.trim().is_empty())
    }
}

/// The key of `extra` that names a question's cluster.
pub const CLUSTER: &str = "cluster";

/// The key of `extra` that names a question's subject.
pub const SUBJECT: &str = "subject";

/// How deep below the task's folder files are looked for.
const DEEPEST: usize = 3;

impl Hub {
    /// Address, config and split, for people.
    pub fn describe(&self) -> String {
        let config = self.config.map(|config| format!(" {config}")).unwrap_or_default();
        format!("{}{config} {}", self.repo, self.split[0])
    }

    /// The split's files below `folder`: those that name it, `data.parquet`, or the only one there is.
    fn files(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        parquet_files(folder, DEEPEST, &mut all)?;
        all.sort();
        let below = |path: &Path, name: &str| {
            let inner = path.strip_prefix(folder).unwrap_or(path);
            inner.parent().is_some_and(|parent| parent.iter().any(|part| part == name))
        };
        if let Some(config) = self.config
            && all.iter().any(|path| below(path, config))
        {
            all.retain(|path| below(path, config));
        }
        let of_split = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let named = |split: &&str| {
                let rest = name.strip_prefix(*split);
                rest.is_some_and(|rest| rest.starts_with(['-', '.'])) || below(path, split)
            };
            self.split.iter().any(named)
        };
        let (split, others): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(of_split);
        let plain = others.iter().find(|path| path.file_name().is_some_and(|name| name == "data.parquet"));
        match (split.is_empty(), plain, &others[..]) {
            (false, ..) => Ok(split),
            (true, Some(plain), _) => Ok(vec![plain.clone()]),
            (true, None, [one]) => Ok(vec![one.clone()]),
            (true, None, others) => {
                let names: Vec<_> = others.iter().filter_map(|p| p.file_name()?.to_str()).collect();
                let found = if names.is_empty() { "no parquet file".to_owned() } else { names.join(", ") };
                let expected =
                    format!("files of {}, such as {}-00000-of-00001.parquet", self.describe(), self.split[0]);
                Err(Error::input(folder.display().to_string(), found, expected))
            }
        }
    }
}

fn parquet_files(folder: &Path, deepest: usize, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() && deepest > 0 {
            parquet_files(&path, deepest - 1, out)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            out.push(path);
        }
    }
    Ok(())
}

/// A task's files in the folder the user named: below its name, another of its names, or the data set's address.
pub fn files(spec: &TaskSpec, source: &Source) -> Result<Vec<PathBuf>> {
    let hub = of(spec)?;
    let expected =
        || format!("a folder `{}` or `{}` with the parquet files of {}", spec.name, hub.repo, hub.describe());
    let Some(folder) = source.folder else {
        return Err(Error::input("--data", "nothing", expected()));
    };
    let short = hub.repo.rsplit('/').next().unwrap_or(hub.repo);
    let names = [spec.name].into_iter().chain(spec.aliases.iter().copied()).chain([hub.repo, short]);
    match names.map(|name| folder.join(name)).find(|path| path.is_dir()) {
        Some(folder) => hub.files(&folder),
        None => Err(Error::input(folder.display().to_string(), format!("nothing for {}", spec.name), expected())),
    }
}

fn of(spec: &TaskSpec) -> Result<&Hub> {
    spec.hub.as_ref().ok_or_else(|| Error::Failed(format!("{}: no data set of the hub", spec.name)))
}

/// A row of a data set.
#[derive(Clone, Debug)]
pub struct Doc {
    /// Its number over all files, from 0.
    pub index: usize,
    /// The columns that are not null, pictures aside.
    pub fields: Map<String, Value>,
    /// File and row.
    pub place: String,
    /// What it is about, where it says.
    pub subject: Option<String>,
    pictures: Vec<(String, Option<ImageSource>)>,
}

impl Doc {
    /// A column; null where it is not there.
    pub fn value(&self, column: &str) -> &Value {
        self.fields.get(column).unwrap_or(&Value::Null)
    }

    /// A column as Python's `str` writes it.
    pub fn written(&self, column: &str) -> String {
        written(self.value(column))
    }

    /// A column that must hold text; `class` is what Python raises where it does not.
    pub fn text(&self, column: &str, class: &'static str) -> Checked<&str> {
        match self.value(column) {
            Value::String(text) => Ok(text),
            other => Err(Crash::new(Stage::Messages, class, format!("{} in `{column}`", written(other)), "text")),
        }
    }

    /// The right answer: a column that must hold text.
    pub fn gold(&self, column: &str) -> Checked<String> {
        match self.value(column) {
            Value::String(text) => Ok(text.clone()),
            other => {
                let found = format!("{} in `{column}`", written(other));
                Err(Crash::new(Stage::ProcessResults, "AttributeError", found, "the right answer as text"))
            }
        }
    }

    /// The picture of a column.
    pub fn picture(&self, column: &str) -> Checked<ImageSource> {
        let found = self.pictures.iter().find(|(name, _)| name == column).and_then(|(_, picture)| picture.clone());
        let missing = || Crash::new(Stage::Messages, "AttributeError", format!("no picture in `{column}`"), "one");
        found.ok_or_else(missing)
    }

    /// Whether a column of pictures says, with an empty text, that there is none.
    pub fn has_no_picture(&self, column: &str) -> bool {
        self.pictures.iter().any(|(name, picture)| name == column && picture.is_none())
    }
}

/// A value as Python's `str` writes it.
pub fn written(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) => n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), repr),
        other => other.to_string(),
    }
}

/// Gives the rows of a task's files to `take`, in order, until it breaks off.
pub fn docs(
    spec: &TaskSpec,
    source: &Source,
    take: &mut dyn FnMut(Doc) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let hub = of(spec)?;
    let optional: Vec<&str> = hub.optional.iter().copied().chain(hub.subject.column()).collect();
    let wanted = Columns { needed: hub.columns, optional: &optional, pictures: hub.pictures };
    let mut first = 0;
    for path in files(spec, source)? {
        let flow = columns::choose(&path, &wanted, |row, (fields, pictures)| {
            let place = format!("{} row {}", path.display(), row + 1);
            let picture = |(name, raw): (String, RawImage)| match raw.bytes {
                Some(bytes) => Some((name, Some(ImageSource::Bytes { bytes, path: raw.path }))),
                None => raw.path.filter(|path| path.trim().is_empty()).map(|_| (name, None)),
            };
            let pictures = pictures.into_iter().filter_map(picture).collect();
            let subject = hub.subject.of(&fields);
            take(Doc { index: first + row, fields, place, subject, pictures })
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
        first += columns::count(&path)?;
    }
    Ok(ControlFlow::Continue(()))
}

/// What a benchmark makes of a row.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// The user's message.
    pub parts: Vec<Part>,
    /// Its pictures, in order.
    pub images: Vec<ImageSource>,
    /// What a judge is told was asked; nothing where none is told.
    pub question: Option<String>,
    /// The right answer as the data set has it.
    pub target: Value,
    /// The right answer as it is scored.
    pub gold: String,
    /// Columns that scores need.
    pub extra: Map<String, Value>,
    /// What the question shares with others; see [`super::Counted`].
    pub cluster: Option<String>,
}

impl Prompt {
    /// A picture and a text below it; a judge is told `question`.
    pub fn picture_then_text(picture: ImageSource, text: impl Into<String>, question: impl Into<String>) -> Prompt {
        let parts = vec![Part::Image, Part::Text(text.into())];
        Prompt { parts, images: vec![picture], question: Some(question.into()), ..Prompt::default() }
    }

    /// With the right answer, which is scored as it stands.
    pub fn with_gold(self, doc: &Doc, column: &str) -> Checked<Prompt> {
        Ok(Prompt { target: doc.value(column).clone(), gold: doc.gold(column)?, ..self })
    }
}

/// Question `index` of a task, which `doc` asks.
pub fn asked(spec: &TaskSpec, index: usize, doc: &Doc, prompt: Checked<Prompt>) -> Asked {
    let row = prompt.map(|prompt| {
        let Prompt { parts, images, question, target, gold, mut extra, cluster } = prompt;
        extra.insert("target".to_owned(), target);
        extra.extend(cluster.map(|cluster| (CLUSTER.to_owned(), cluster.into())));
        extra.extend(doc.subject.clone().map(|subject| (SUBJECT.to_owned(), subject.into())));
        extra.insert("judge_question".to_owned(), question.map_or(Value::Null, Value::String));
        let user = Message { role: "user".to_owned(), content: parts, masked: false };
        Row {
            id: format!("{}-{index}", spec.name),
            messages: vec![Message::text("system", SYSTEM_PROMPT), user],
            images,
            data_source: spec.name.to_owned(),
            ground_truth: Some(gold),
            extra,
            place: doc.place.clone(),
        }
    });
    Asked { index, place: doc.place.clone(), row }
}

/// One question for each row of a task's files.
pub fn questions(
    spec: &TaskSpec,
    source: &Source,
    take: Take,
    prompt: fn(&Doc, Mode) -> Checked<Prompt>,
) -> Result<()> {
    docs(spec, source, &mut |doc| take(asked(spec, doc.index, &doc, prompt(&doc, source.mode)))).map(drop)
}
