//! Maps the columns of a file to canonical names, by the names that published data sets use or by an entry's `columns`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::ColumnsConfig;
use crate::data::forms;
use crate::error::{Error, Result};

/// Canonical column names, each with its alternative names.
const COLUMNS: [(&str, &[&str]); 22] = [
    ("id", &["ids", "qid"]),
    ("messages", &[]),
    ("conversations", &[]),
    ("system", &[]),
    ("prompt", &[]),
    ("completion", &[]),
    ("instruction", &[]),
    ("input", &[]),
    ("output", &[]),
    ("history", &[]),
    ("problem", &[]),
    ("question", &[]),
    // MMFineReason names its responses after the model.
    ("response", &["qwen3vl_235b_thinking_response"]),
    ("thinking", &[]),
    ("answer", &[]),
    ("ground_truth", &[]),
    ("solution", &[]),
    ("reward_model", &[]),
    ("images", &["image", "image_urls"]),
    ("data_source", &[]),
    ("extra_info", &[]),
    ("avg_reward", &[]),
];

/// Groups of columns that can contain the same information. If the entry's `columns` names a column for one of a group,
/// the other columns of the group are ignored.
const GROUPS: [&[&str]; 3] = [
    &["messages", "conversations", "prompt", "instruction", "problem", "question"],
    &["response", "completion", "output"],
    &["answer", "ground_truth", "solution", "reward_model"],
];

/// Value of `columns.images` for rows that are used without their images.
const NONE: &str = "";

/// Column names of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Names given by the entry: the canonical name and the name in the file.
    given: Vec<(&'static str, String)>,
    /// True if the file is the `metadata` file of a Hugging Face imagefolder, whose column `file_name` is the image.
    imagefolder: bool,
    /// Canonical names that rows of this file can be read from, if its columns are known before its rows are read.
    read: Option<Vec<&'static str>>,
}

impl Names {
    /// Creates the names from an entry's `columns`.
    pub fn of(columns: &ColumnsConfig) -> Names {
        let columns = [
            ("id", &columns.id),
            ("messages", &columns.messages),
            ("question", &columns.question),
            ("response", &columns.response),
            ("thinking", &columns.thinking),
            ("answer", &columns.answer),
            ("images", &columns.images),
            ("data_source", &columns.data_source),
        ];
        let given = columns.into_iter().filter_map(|(ours, theirs)| Some((ours, theirs.clone()?)));
        Names { given: given.collect(), imagefolder: false, read: None }
    }

    /// Returns the same names for a file with this stem.
    pub fn in_file(self, stem: &str) -> Names {
        Names { imagefolder: stem == "metadata", ..self }
    }

    /// Returns the names for a file with these columns. Returns an error if the entry names a missing column, or if no
    /// rows can be read from the columns.
    pub fn with_columns(&self, path: &Path, columns: &[&str]) -> Result<Names> {
        let lacking =
            |expected: &str| Error::format(path, format!("found columns {}, expected {expected}", columns.join(", ")));
        let mut given = self.given.iter().filter(|(_, theirs)| theirs != NONE);
        if let Some((ours, theirs)) = given.find(|(_, theirs)| !columns.contains(&theirs.as_str())) {
            return Err(lacking(&format!("`{theirs}`, which columns.{ours} names")));
        }
        let known: Vec<&str> = columns.iter().filter_map(|column| self.meaning(column)).collect();
        let read = forms::reads(&known).ok_or_else(|| lacking(&forms::expected()))?;
        Ok(Names { read: Some(read), ..self.clone() })
    }

    /// Returns the canonical name of a column, or `None` if the column is not read.
    pub fn meaning(&self, column: &str) -> Option<&'static str> {
        self.known(column).filter(|ours| self.read.as_ref().is_none_or(|read| read.contains(ours)))
    }

    fn known(&self, column: &str) -> Option<&'static str> {
        if let Some((ours, _)) = self.given.iter().find(|(_, theirs)| theirs == column) {
            return Some(ours);
        }
        let column = if self.imagefolder && column == "file_name" { "images" } else { column };
        let known = |(name, others): &&(&'static str, &[&str])| *name == column || others.contains(&column);
        let (ours, _) = COLUMNS.iter().find(known)?;
        let rivals = GROUPS.iter().find(|group| group.contains(ours)).copied().unwrap_or(std::slice::from_ref(ours));
        let replaced = self.given.iter().any(|(given, _)| rivals.contains(given));
        (!replaced).then_some(*ours)
    }

    /// Returns true if a field of a renamed row has a canonical name.
    pub fn is_canonical(field: &str) -> bool {
        COLUMNS.iter().any(|(name, _)| *name == field)
    }

    /// Returns true if the entry says that rows are used without their images.
    pub fn ignores_images(&self) -> bool {
        self.given.iter().any(|(ours, theirs)| *ours == "images" && theirs == NONE)
    }

    /// Renames the fields of a JSON row to the canonical names. Fields that are not read keep their names.
    pub fn rename(&self, fields: Map<String, Value>) -> Map<String, Value> {
        let mut out = Map::with_capacity(fields.len());
        let mut others = Vec::new();
        for (name, value) in fields {
            match self.meaning(&name) {
                Some(ours) if ours == name => drop(out.insert(name, value)),
                Some(ours) => others.push((ours.to_owned(), value)),
                None if COLUMNS.iter().any(|(ours, others)| *ours == name || others.contains(&name.as_str())) => {}
                None => drop(out.insert(name, value)),
            }
        }
        // A row may have both `image` and `images`. A field that already has the canonical name takes precedence unless
        // it is null.
        for (name, value) in others {
            if out.get(&name).is_none_or(Value::is_null) {
                out.insert(name, value);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_published_names_and_by_those_an_entry_gives() {
        let plain = Names::default();
        assert_eq!(["image_urls", "qid", "category"].map(|c| plain.meaning(c)), [Some("images"), Some("id"), None]);
        let columns = ColumnsConfig {
            question: Some("text".into()),
            answer: Some("label".into()),
            images: Some("pic".into()),
            ..ColumnsConfig::default()
        };
        let names = Names::of(&columns);
        let read = ["text", "label", "pic", "prompt", "question", "reward_model", "images", "id"];
        let want = [Some("question"), Some("answer"), Some("images"), None, None, None, None, Some("id")];
        assert_eq!(read.map(|c| names.meaning(c)), want);
        let error = names.with_columns(Path::new("rows.csv"), &["text", "pic"]).unwrap_err().to_string();
        assert!(error.contains("rows.csv") && error.contains("`label`, which columns.answer names"), "{error}");
        let row = serde_json::json!({"text": "q", "question": "other", "image": null, "pic": ["a.png"], "more": 1});
        let Value::Object(row) = row else { unreachable!() };
        let want = serde_json::json!({"question": "q", "images": ["a.png"], "more": 1});
        assert_eq!(Value::Object(names.rename(row)), want);
    }
}
