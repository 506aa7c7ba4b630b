//! A data set on the Hugging Face hub, as a task declares it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::doc::written;
use crate::rows::files::shards;
use omr_base::error::{Error, Result};
use omr_base::files;

/// A data set on the hub: one split of it, and the columns that a task needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub<'a> {
    /// Name of the repository.
    pub repo: &'a str,
    /// Name of the config, if the data set has several.
    pub config: Option<&'a str>,
    /// Names that the files of the split may have. The default is `test`.
    #[serde(borrow, default = "test")]
    pub split: Vec<&'a str>,
    /// Required columns.
    #[serde(borrow, default)]
    pub columns: Vec<&'a str>,
    /// Optional columns.
    #[serde(borrow, default)]
    pub optional: Vec<&'a str>,
    /// Columns with one image per row.
    #[serde(borrow, default)]
    pub images: Vec<&'a str>,
    /// Place of the subject within a row. The column may be missing.
    #[serde(borrow, default)]
    pub subject: Subject<'a>,
}

fn test<'a>() -> Vec<&'a str> {
    vec!["test"]
}

/// Place of a question's subject within its row.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject<'a> {
    /// The rows have no subject.
    #[default]
    Unsaid,
    /// A column with a text or a list of texts.
    Column(&'a str),
    /// A member of a column of structs: column and member.
    Member(&'a str, &'a str),
    /// The middle part of an id, such as `validation_Art_Theory_12`.
    Id(&'a str),
}

impl<'a> Subject<'a> {
    /// Returns the column that contains the subject.
    pub fn column(self) -> Option<&'a str> {
        match self {
            Subject::Unsaid => None,
            Subject::Column(column) | Subject::Member(column, _) | Subject::Id(column) => Some(column),
        }
    }

    /// Returns the subject of a row with these columns.
    pub fn of(self, fields: &Map<String, Value>) -> Option<String> {
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

/// Depth below the task's folder to which files are searched.
const DEEPEST: usize = 3;

impl Hub<'_> {
    /// Returns repository, config and split as text for users.
    pub fn describe(&self) -> String {
        let config = self.config.map(|config| format!(" {config}")).unwrap_or_default();
        format!("{}{config} {}", self.repo, self.split[0])
    }

    /// Returns the files of the split below `folder`.
    pub fn files(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let all = files::below(folder, &mut |inner, is_folder| {
            let is_parquet = inner.extension().is_some_and(|extension| extension == "parquet");
            Ok(if is_folder { inner.components().count() <= DEEPEST } else { is_parquet })
        })?;
        let chosen = self.choose(folder, all.iter().map(|inner| folder.join(inner)).collect())?;
        shards::complete(chosen, &|_| true)
    }

    /// Returns the files of the split among `all` parquet files below `folder`: those whose path contains the split's
    /// name, `data.parquet`, or the only file.
    pub fn choose(&self, folder: &Path, mut all: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
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
                Err(Error::input(folder, found, expected))
            }
        }
    }
}
