//! Maps the columns of a file to canonical names, by the names that published data sets use or by an entry's `columns`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::choices::OPTIONS;
use super::templates::{COLUMNS, Templates};
use super::{table, unread};
use omr_base::config::DatasetConfig;
use omr_base::error::{Error, Result};

/// Alternative names of columns, by their canonical names.
const ALTERNATIVES: [(&str, &[&str]); 10] = [
    ("id", &["ids", "qid"]),
    // OpenOrca.
    ("system", &["system_prompt"]),
    // Pairs of a question and an answer: The Cauldron, ms-swift.
    ("texts", &["conversation"]),
    // MMFineReason names its responses after the model.
    ("response", &["qwen3vl_235b_thinking_response"]),
    // DeepMath, OpenMathReasoning.
    ("answer", &["final_answer", "expected_answer"]),
    ("thinking", &["reasoning_content"]),
    // Lists of right answers; the other name is A-OKVQA's.
    ("answers", &["direct_answers"]),
    ("answer_index", &["correct_choice_idx"]),
    ("images", &["image", "image_urls"]),
    // verl's name is the other one.
    ("domain", &["ability"]),
];

/// Canonical column names: those that the forms of rows read.
static CANONICAL: LazyLock<BTreeSet<&str>> = LazyLock::new(table::names);

/// Groups of columns that can contain the same information. If the entry's `columns` names a column for one of a group,
/// the other columns of the group are ignored.
const GROUPS: [&[&str]; 3] = [
    &["messages", "conversations", "texts", "prompt", "instruction", "problem", "question"],
    &["response", "completion", "output"],
    &["answer", "ground_truth", "solution", "reward_model", "answers", "answer_index"],
];

/// Columns that only the template `multiple_choice` reads.
const OF_TEMPLATE: [&str; 2] = ["answer_index", "hint"];

/// Value of a key of `columns` for a column that is not needed.
const NONE: &str = "";

/// Column names of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Names given by the entry: the canonical name and the name in the file.
    given: Vec<(&'static str, String)>,
    /// Columns that the entry does not need.
    unused: Vec<String>,
    /// True if the template `multiple_choice` makes the questions.
    multiple_choice: bool,
    /// Columns that the templates of the entry read, by their names in the file.
    of_templates: Vec<String>,
    /// True if a row keeps all of its columns, also those that are not read.
    keeps_all: bool,
    /// True if a template makes the question, so that rows need no column for it.
    makes_question: bool,
    /// True if the file is the `metadata` file of a Hugging Face imagefolder, whose column `file_name` is the image.
    imagefolder: bool,
    /// Canonical names that rows of this file can be read from, if its columns are known before its rows are read.
    read: Option<Vec<&'static str>>,
}

impl Names {
    /// Creates the names for the file with this `stem`, from the entry's `columns` and `templates`. Rows keep all columns
    /// if `keeps_all` is true.
    pub fn of(entry: &DatasetConfig, stem: &str, templates: &Templates, keeps_all: bool) -> Names {
        let columns = &entry.columns;
        let named = [
            ("id", &columns.id),
            ("messages", &columns.messages),
            ("question", &columns.question),
            ("response", &columns.response),
            ("thinking", &columns.thinking),
            ("answer", &columns.answer),
            ("answers", &columns.answers),
            ("answer_index", &columns.answer_index),
            ("choices", &columns.choices),
            ("images", &columns.images),
            ("data_source", &columns.data_source),
            ("reward_type", &columns.reward_type),
            ("domain", &columns.domain),
        ];
        // A column that is known to list right answers is read as such, whichever key names it.
        let of_key = |ours, theirs: &str| {
            if ours == "answer" && canonical(theirs) == Some("answers") { "answers" } else { ours }
        };
        let given =
            named.into_iter().filter_map(|(ours, theirs)| Some((of_key(ours, theirs.as_ref()?), theirs.clone()?)));
        Names {
            given: given.collect(),
            unused: columns.unused.clone(),
            multiple_choice: entry.is_multiple_choice(),
            of_templates: templates.columns(),
            makes_question: templates.makes_question(),
            keeps_all,
            imagefolder: stem == "metadata",
            read: None,
        }
    }

    /// Returns an error if the entry names a column that a file with these columns lacks. A file without rows has none.
    pub fn check(&self, path: &Path, columns: &[&str]) -> Result<()> {
        let mut missing = self.given.iter().filter(|(_, theirs)| theirs != NONE && !columns.contains(&theirs.as_str()));
        let Some((ours, theirs)) = missing.next().filter(|_| !columns.is_empty()) else { return Ok(()) };
        Err(lacking(path, columns, &format!("`{theirs}`, which columns.{ours} names")))
    }

    /// Returns the names for a file with these columns. Returns an error if the entry names a missing column, or if no
    /// rows can be read from the columns.
    pub fn with_columns(&self, path: &Path, columns: &[&str]) -> Result<Names> {
        self.check(path, columns)?;
        if let Some(twice) =
            columns.iter().enumerate().find(|(i, name)| !name.is_empty() && columns[..*i].contains(name))
        {
            return Err(Error::format(path, format!("found two columns `{}`, expected one of each name", twice.1)));
        }
        let mut known: Vec<&str> = columns.iter().filter_map(|column| self.meaning(column)).collect();
        known.extend(self.makes_question.then_some("question"));
        let mut read = table::reads(&known).ok_or_else(|| lacking(path, columns, &table::expected(columns)))?;
        read.extend(unread::names());
        Ok(Names { read: Some(read), ..self.clone() })
    }

    /// Returns the canonical name that a column is used as, or `None` if it is not used. Some columns are read only to
    /// refuse rows that have a value in them.
    pub fn used_as(&self, column: &str) -> Option<&'static str> {
        let reads = |ours: &&str| unread::name(ours).is_none() || (self.multiple_choice && OPTIONS.contains(ours));
        // The template of the key `prompt` replaces the question of every form.
        let is_replaced = |ours: &&str| self.makes_question && GROUPS[0].contains(ours);
        let ours = self.meaning(column).filter(|ours| reads(ours) && !is_replaced(ours));
        ours.or_else(|| self.is_of_template(column).then_some("question"))
    }

    /// Returns true if a template makes the question.
    pub fn makes_question(&self) -> bool {
        self.makes_question
    }

    /// Returns true if a template reads a column, by its name in the file.
    pub fn is_of_template(&self, column: &str) -> bool {
        self.of_templates.iter().any(|name| name == column)
    }

    /// Returns true if a column is read.
    pub fn reads(&self, column: &str) -> bool {
        self.meaning(column).is_some() || self.is_of_template(column)
    }

    /// Returns true if the value of a column is kept under its name in the file. Images are read separately and are no
    /// values.
    pub fn keeps(&self, column: &str) -> bool {
        (self.keeps_all || self.is_of_template(column)) && self.known(column) != Some("images")
    }

    /// Adds the value of a column to those that are kept under their names in the file.
    pub fn keep(&self, fields: &mut Map<String, Value>, column: &str, value: &Value) {
        if self.keeps(column)
            && let Some(kept) = fields.entry(COLUMNS).or_insert_with(|| Map::new().into()).as_object_mut()
        {
            kept.insert(column.to_owned(), value.clone());
        }
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
        let ours = canonical(column).or_else(|| unread::name(column));
        let ours = ours.filter(|_| !self.unused.iter().any(|unused| unused == column))?;
        // A template reads the options and similar columns itself.
        if self.is_of_template(column) && unread::name(ours).is_some() {
            return None;
        }
        let rivals = GROUPS.iter().find(|group| group.contains(&ours)).copied().unwrap_or(std::slice::from_ref(&ours));
        let replaces = |given: &str, theirs: &str| if theirs == NONE { given == ours } else { rivals.contains(&given) };
        let replaced = self.given.iter().any(|(given, theirs)| replaces(given, theirs));
        (!replaced && (self.multiple_choice || !OF_TEMPLATE.contains(&ours))).then_some(ours)
    }

    /// Returns true if a field of a renamed row has a canonical name.
    pub fn is_canonical(field: &str) -> bool {
        CANONICAL.contains(field)
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
            self.keep(&mut out, &name, &value);
            match self.meaning(&name) {
                Some(ours) if ours == name => drop(out.insert(name, value)),
                Some(ours) => others.push((ours.to_owned(), value)),
                None if self.is_of_template(&name) || canonical(&name).is_some() => {}
                None => drop(out.insert(name, value)),
            }
        }
        // A row may have both `image` and `images`. A field that already has the canonical name takes precedence unless
        // it is null or an empty list.
        for (name, value) in others {
            if out.get(&name).is_none_or(|own| own.is_null() || own.as_array().is_some_and(Vec::is_empty)) {
                out.insert(name, value);
            }
        }
        out
    }
}

/// Returns the canonical name of a column with this name.
fn canonical(column: &str) -> Option<&'static str> {
    let alternative = ALTERNATIVES.iter().find(|(_, others)| others.contains(&column));
    alternative.map(|(ours, _)| *ours).or_else(|| CANONICAL.get(column).copied())
}

pub(crate) fn lacking(path: &Path, columns: &[&str], expected: &str) -> Error {
    Error::format(path, format!("found columns {}, expected {expected}", columns.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_base::config::ColumnsConfig;

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
        let entry = DatasetConfig { columns, ..DatasetConfig::default() };
        let names = Names::of(&entry, "rows", &Templates::of(&entry).unwrap(), false);
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
