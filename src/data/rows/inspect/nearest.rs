//! Help for rows that cannot be read: the first of them as it stands in its file, and which of its columns may be meant
//! by which key of an entry's `columns`.

use serde_json::{Value, json};

use crate::rows::read::{Column, RowFile, RowPosition};
use omr_base::error::Result;

/// Keys of `columns`, each with parts of names that people give to such a column, the most telling first.
const WORDS: [(&str, &[&str]); 4] = [
    ("messages", &["message", "conversation", "dialog", "chat", "texts"]),
    ("question", &["question", "problem", "query", "prompt", "instruction", "text"]),
    ("answer", &["answer", "label", "solution", "target", "truth", "output", "caption"]),
    ("images", &["image", "img", "picture", "photo", "figure"]),
];

/// Maximum number of characters of a text of a raw row.
const MOST: usize = 200;

/// Returns the row at `at` as JSON with its long texts shortened, or `None` if it is not valid JSON or cannot be read.
pub(super) fn raw(file: &RowFile, at: RowPosition) -> Result<Option<String>> {
    let fields = file.fields(at)?;
    Ok(fields.ok().map(|(mut fields, images)| {
        fields.extend(images.map(|images| ("images".to_owned(), json!(format!("{} images", images.len())))));
        shortened(Value::Object(fields)).to_string()
    }))
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(text) => match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{} ...", &text[..end]).into(),
            None => text.into(),
        },
        Value::Array(list) => list.into_iter().map(shortened).collect(),
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, shortened(value))).collect(),
        other => other,
    }
}

/// Returns the key `columns` of an entry that names the columns which look like questions, answers and images, or `None`
/// if no column that is not read looks like one.
pub(super) fn mapping(columns: &[Column]) -> Option<String> {
    let is_read = |key: &str| columns.iter().any(|column| column.read_as == Some(key));
    let looks = |words: &[&str]| {
        let unread = || columns.iter().filter(|column| column.read_as.is_none());
        words.iter().find_map(|word| unread().find(|column| column.name.to_lowercase().contains(word)))
    };
    let pairs = WORDS.iter().filter(|(key, _)| !is_read(key));
    let pairs: Vec<String> = pairs.filter_map(|(key, words)| Some(format!("{key}: {}", looks(words)?.name))).collect();
    (!pairs.is_empty()).then(|| format!("columns: {{{}}}", pairs.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_look_like_a_question_and_an_answer_are_named() {
        let of = |names: &[(&str, Option<&'static str>)]| {
            let column = |&(name, read_as): &(&str, Option<&'static str>)| Column {
                name: name.to_owned(),
                kind: "a string".to_owned(),
                read_as,
            };
            mapping(&names.iter().map(column).collect::<Vec<_>>())
        };
        let chart = [("imgname", None), ("Query", None), ("label", None)];
        assert_eq!(of(&chart).unwrap(), "columns: {question: Query, answer: label, images: imgname}");
        let half = [("problem_text", None), ("answer", Some("answer")), ("height", None)];
        assert_eq!(of(&half).unwrap(), "columns: {question: problem_text}");
        assert_eq!(of(&[("height", None)]), None);
    }
}
