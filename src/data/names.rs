//! Which column is what: by the names that published sets use, or as an entry's `columns` says.

use serde_json::{Map, Value};

use crate::config::ColumnsConfig;

/// The columns rows are made of, with other names of them.
const COLUMNS: [(&str, &[&str]); 14] = [
    ("id", &["ids", "qid"]),
    ("messages", &[]),
    ("conversations", &[]),
    ("system", &[]),
    ("prompt", &[]),
    ("problem", &[]),
    ("question", &[]),
    ("answer", &[]),
    ("ground_truth", &[]),
    ("reward_model", &[]),
    ("images", &["image", "image_urls"]),
    ("data_source", &[]),
    ("extra_info", &[]),
    ("avg_reward", &[]),
];

/// Columns of which a row needs one: where an entry names one of a group, the others are not looked at.
const GROUPS: [&[&str]; 2] =
    [&["messages", "conversations", "prompt", "problem", "question"], &["answer", "ground_truth", "reward_model"]];

/// The names of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// What is read as what, by the entry: our name, the file's.
    given: Vec<(&'static str, String)>,
    /// The file is the `metadata` of Hugging Face's imagefolder: its `file_name` is the picture.
    imagefolder: bool,
}

impl Names {
    /// As an entry says.
    pub fn of(columns: &ColumnsConfig) -> Names {
        let said = [
            ("id", &columns.id),
            ("messages", &columns.messages),
            ("question", &columns.question),
            ("answer", &columns.answer),
            ("images", &columns.images),
            ("data_source", &columns.data_source),
        ];
        let given = said.into_iter().filter_map(|(ours, theirs)| Some((ours, theirs.clone()?)));
        Names { given: given.collect(), imagefolder: false }
    }

    /// The same in a file with this stem.
    pub fn in_file(self, stem: &str) -> Names {
        Names { imagefolder: stem == "metadata", ..self }
    }

    /// What a file's column is read as; none where it is not read.
    pub fn meaning(&self, column: &str) -> Option<&'static str> {
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

    /// The first column that an entry names and `has` does not know, with its key.
    pub fn missing(&self, has: impl Fn(&str) -> bool) -> Option<(&'static str, &str)> {
        self.given.iter().find(|(_, theirs)| !has(theirs)).map(|(ours, theirs)| (*ours, theirs.as_str()))
    }

    /// A JSON row by our names; what is not read keeps its own.
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
        // A row may have `image` and `images`: its own name for a column comes first, and null is none.
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
        assert_eq!(names.missing(|c| c != "label"), Some(("answer", "label")));
        let row = serde_json::json!({"text": "q", "question": "other", "image": null, "pic": ["a.png"], "more": 1});
        let Value::Object(row) = row else { unreachable!() };
        let want = serde_json::json!({"question": "q", "images": ["a.png"], "more": 1});
        assert_eq!(Value::Object(names.rename(row)), want);
    }
}
