//! The template `prompt: multiple_choice`: adds the options of a row to its question, and makes the answer a letter.

use omr_verify::question;
use serde_json::{Map, Value};

use super::fields::{RowContext, given, given_in, misfit, plain, scalar, shown, texts};
use super::table::{LABEL, QUESTION};
use crate::rows::bad_row::RowResult;

/// Columns with options.
pub const OPTIONS: [&str; 2] = ["choices", "options"];

/// Adds the options to the question and replaces the label. A row without options is an open question and stays as it
/// is. Returns an error if the question is no text, or if the label names no option or could name two.
pub fn apply(fields: &mut Map<String, Value>, at: &RowContext) -> RowResult<()> {
    let missing = || misfit(&at.place, "no column `choices` or `options`", "one, which is empty for an open question");
    let mut columns = OPTIONS.iter().filter_map(|column| fields.remove(*column));
    let value = columns.next().ok_or_else(missing)?;
    // The options of CommonsenseQA and ARC have names: `{"label": ["A", "B"], "text": [...]}`.
    let [mut options, names] = ["text", "label"].map(|key| value.get(key).map(texts).unwrap_or_default());
    if options.is_empty() {
        options = texts(&value);
    }
    // An empty option between others keeps its letter.
    options.truncate(options.iter().rposition(|option| !option.is_empty()).map_or(0, |last| last + 1));
    if options.is_empty() {
        return Ok(());
    }
    if !(2..=26).contains(&options.len()) {
        return Err(misfit(&at.place, format!("{} options", options.len()), "2 to 26 options"));
    }
    let line = |(i, option): (usize, &String)| format!("{}. {option}", letter(i));
    let mut lines = options.join("\n");
    // Some sets write the letters into the options.
    if question::options(&lines).len() != options.len() {
        lines = options.iter().enumerate().map(line).collect::<Vec<_>>().join("\n");
    }
    let is_text = |column: &&&str| given(fields, column).is_some_and(Value::is_string);
    let column = QUESTION.iter().chain(&["prompt"]).find(is_text);
    let column = column.ok_or_else(|| misfit(&at.place, "options without a question", "a text in `question`"))?;
    let hint = given(fields, "hint").map(plain).filter(|hint| !hint.is_empty());
    let context = hint.map_or(String::new(), |hint| format!("Context: {hint}\n"));
    let mut text = context + &plain(&fields[*column]);
    if question::options(&text).len() != options.len() {
        text = format!("{text}\n{lines}");
    }
    let right = right(fields, &options, &names, at)?;
    fields.insert((*column).to_owned(), text.into());
    if let Some(right) = right {
        LABEL.iter().chain(&["reward_model"]).for_each(|column| drop(fields.remove(*column)));
        fields.insert("answer".to_owned(), letter(right).to_string().into());
    }
    Ok(())
}

fn letter(i: usize) -> char {
    char::from(b'A' + i as u8)
}

/// Returns the label of a row as stored, with the name of its column.
pub fn label(fields: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    let verl = given(fields, "reward_model").and_then(|model| given_in(model, "ground_truth"));
    let verl = verl.map(|value| ("reward_model.ground_truth", value));
    verl.or_else(|| LABEL.iter().find_map(|name| Some((*name, given(fields, name)?))))
}

/// Returns the place of the right option, from 0.
fn right(
    fields: &Map<String, Value>,
    options: &[String],
    names: &[String],
    at: &RowContext,
) -> RowResult<Option<usize>> {
    let index = given(fields, "answer_index").map(|value| ("answer_index", value));
    let Some((name, value)) = index.or_else(|| label(fields)) else { return Ok(None) };
    let text = scalar(at, name, value)?;
    let text = text.trim();
    if let Some(place) = names.iter().position(|name| name == text) {
        return Ok(Some(place));
    }
    let is_place = |place: &usize| *place < options.len() && at.entry.columns.answer_index.as_deref() != Some("");
    let place = text.parse().ok().filter(is_place);
    let letter = (0..options.len()).find(|i| text.trim_matches(['(', ')', '.']) == letter(*i).to_string());
    let same = options.iter().position(|option| option == text).filter(|_| index.is_none());
    let other = place.or(letter.filter(|_| index.is_none()));
    let found = format!("{} in `{name}`", shown(text));
    match (same, other) {
        _ if text.is_empty() => Ok(None),
        (Some(same), Some(other)) if same != other => Err(misfit(
            &at.place,
            format!("{found}, the text of one option and the place or letter of another"),
            "in the entry, columns: {answer_index: NAME} if the column NAME counts options from 0, or answer_index: '' \
             if answers are never places",
        )),
        (same, other) => same.or(other).map(Some).ok_or_else(|| {
            let expected = "the letter, the text or the place (from 0) of an option";
            misfit(&at.place, found, expected)
        }),
    }
}
