//! The forms of rows: the columns that identify a form, and the columns that its turns come from. To add a form, add an
//! entry to [`FORMS`].

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::{
    RowContext, begins_like_messages, given, given_in, listed, misfit, role, scalar, structured, unlisted, wrong,
};
use crate::reward::typed;
use crate::rows::bad_row::RowResult;
use crate::rows::row::PROMPT;
use Turns::{Lines, List, Message, Pairs};

/// A form of rows.
#[derive(Debug)]
pub struct RowForm {
    /// Name for messages to the user.
    pub name: &'static str,
    /// Columns that identify the form. A row of the form has one column of each list.
    columns: &'static [&'static [&'static str]],
    /// Sources of the turns, in order.
    turns: &'static [Turns],
    /// True if SFT trains on the label as the answer, because the turns have no answer.
    pub trains_label: bool,
}

/// Source of one or more turns.
#[derive(Debug)]
enum Turns {
    /// A list of messages in this column.
    List(&'static str),
    /// A list of messages, or the text of one message with this role, in the first of these columns that the row has.
    Message(&'static str, &'static [&'static str]),
    /// One message with this role: the texts of these columns that are not empty, on separate lines.
    Lines(&'static str, &'static [&'static str]),
    /// Pairs of a question and an answer in this column.
    Pairs(&'static str),
}

/// Names of a text question.
pub const QUESTION: &[&str] = &["problem", "question"];
/// Names of the label, the preferred one first.
pub const LABEL: &[&str] = &["answer", "ground_truth", "solution", "answers"];
/// Columns with a worked solution, which SFT trains instead of the label beside it: those of OpenMathReasoning and
/// OpenMathInstruct-2, and of DeepMath.
const WORKED: &[&str] = &["generated_solution", "r1_solution_1"];
/// Column with the reasoning that precedes an answer.
const THINKING: &str = "thinking";
/// Fields with the reasoning that precedes the content of a message, as in Qwen3's template and TRL.
pub const REASONING: [&str; 3] = ["reasoning_content", "reasoning", THINKING];
/// Fields that say whether a message is trained.
///
/// `train` and `training` are axolotl's names, `loss_mask` and `trainable` verl's, the others those of ms-swift, OpenAI
/// and LLaMA-Factory.
pub const LOSS: [&str; 7] = ["loss", "weight", "loss_weight", "loss_mask", "train", "training", "trainable"];
/// Those of [`LOSS`] that are numbers.
pub const WEIGHTS: [&str; 2] = ["weight", "loss_weight"];
/// Columns that rows of any form can have.
const COMMON: &[&str] = &[
    "id",
    "system",
    "reward_model",
    "images",
    "data_source",
    "extra_info",
    "avg_reward",
    "pass_rate",
    typed::REWARD_TYPE,
    typed::DOMAIN,
];
/// Column of the preferred answer in rows for DPO.
pub const CHOSEN: &str = "chosen";
/// Description of what rows for DPO lack.
pub const NO_PREFERENCES: &str = "one answer: preference rows (DPO) are not supported";
/// Columns that the template `multiple_choice` reads.
const TEMPLATE: &[&str] = &["choices", "options", "answer_index", "hint"];

/// Supported forms. The first form that a row's columns identify is used.
const FORMS: &[RowForm] = &[
    form("messages", &[&["messages"]], &[List("messages")]),
    form("conversations (ShareGPT)", &[&["conversations"]], &[List("conversations")]),
    form(
        "prompt + completion (TRL)",
        &[&["prompt"], &["completion", "response"]],
        &[Message("user", &["prompt"]), Message("assistant", &["completion", "response"])],
    ),
    form(PROMPT, &[&["prompt"]], &[Message("user", &["prompt"])]),
    form(
        "instruction + output (Alpaca)",
        &[&["instruction"], &["output"]],
        &[Pairs("history"), Lines("user", &["instruction", "input"]), Lines("assistant", &["output"])],
    ),
    form(
        "question + response",
        &[QUESTION, &["response"]],
        &[Pairs("history"), Message("user", QUESTION), Message("assistant", &["response"])],
    ),
    RowForm { trains_label: true, ..form("question + answer", &[QUESTION, LABEL], &[Message("user", QUESTION)]) },
    form("question", &[QUESTION], &[Message("user", QUESTION)]),
    form("texts (The Cauldron, ms-swift)", &[&["texts"]], &[List("texts")]),
];

/// Returns a form that does not train on the label.
const fn form(name: &'static str, columns: &'static [&'static [&'static str]], turns: &'static [Turns]) -> RowForm {
    RowForm { name, columns, turns, trains_label: false }
}

/// Returns the form of a row with these fields.
pub fn of(fields: &Map<String, Value>, at: &RowContext) -> RowResult<&'static RowForm> {
    let found = FORMS.iter().find(|form| form.is_of(|column| given(fields, column).is_some()));
    found.ok_or_else(|| {
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        misfit(&at.place, format!("columns {}", names.join(", ")), &expected(&names))
    })
}

/// Returns the columns that rows with these columns can be read from, or `None` if they have no known form. Rows in
/// which some columns are null can have different forms.
pub fn reads(columns: &[&str]) -> Option<Vec<&'static str>> {
    let forms: Vec<&RowForm> = FORMS.iter().filter(|form| form.is_of(|column| columns.contains(&column))).collect();
    (!forms.is_empty()).then(|| forms.into_iter().flat_map(RowForm::reads).collect())
}

/// Returns the columns that rows of any form can be read from.
pub fn names() -> BTreeSet<&'static str> {
    FORMS.iter().flat_map(RowForm::reads).collect()
}

/// Returns the columns of the form with this name.
pub fn columns_of(name: &str) -> Vec<&'static str> {
    FORMS.iter().filter(|form| form.name == name).flat_map(RowForm::reads).collect()
}

/// Describes what a row with these columns lacks.
pub fn expected(columns: &[&str]) -> String {
    if columns.contains(&CHOSEN) {
        return NO_PREFERENCES.to_owned();
    }
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join("/");
    let form = |form: &RowForm| form.columns.iter().map(|names| quoted(names)).collect::<Vec<_>>().join(" + ");
    let forms: Vec<String> = FORMS.iter().map(form).collect();
    format!(
        "one of {}; other names go into the entry: {{path: .., columns: {{question: NAME, answer: NAME, images: NAME}}}}, \
         and a question without a column, too: {{path: .., prompt: TEXT, columns: {{response: NAME}}}}",
        forms.join(", ")
    )
}

impl RowForm {
    fn is_of(&self, has: impl Fn(&str) -> bool) -> bool {
        self.columns.iter().all(|names| names.iter().any(|name| has(name)))
    }

    fn reads(&self) -> Vec<&'static str> {
        let of_turns = self.turns.iter().flat_map(|turns| match turns {
            List(column) | Pairs(column) => std::slice::from_ref(column),
            Message(_, columns) | Lines(_, columns) => columns,
        });
        let answers = self.trains_label || self.turns.iter().any(|turns| matches!(turns, Message("assistant", _)));
        let worked = if self.trains_label { WORKED } else { &[] };
        let columns = of_turns.chain(COMMON).chain(TEMPLATE).chain(LABEL).chain(worked).copied();
        columns.chain(answers.then_some(THINKING)).collect()
    }

    /// Returns the turns of a row as JSON messages `{role, content}`, each with its name for error messages.
    pub(crate) fn messages(&self, fields: &Map<String, Value>, at: &RowContext) -> RowResult<Vec<(String, Value)>> {
        let mut messages = Vec::new();
        for turns in self.turns {
            match turns {
                List(column) => messages.extend(list(column, fields.get(*column), at)?),
                Message(role, columns) => {
                    let Some(column) = columns.iter().find(|column| given(fields, column).is_some()) else { continue };
                    let value = &fields[*column];
                    let is_plain = value.as_str().is_some_and(|text| !text.trim_start().starts_with(['[', '{']));
                    let turn = if is_plain { Value::Null } else { structured(value.clone()) };
                    let has = |key: &&str| turn.get(0).is_some_and(|turn| given_in(turn, key).is_some());
                    // A text may be JSON. Only a list of messages is read as such.
                    if let Some(text) = value.as_str().filter(|_| !["role", "from", "user", "human"].iter().any(has)) {
                        if begins_like_messages(text) {
                            let (found, expected) = unlisted(text);
                            let way = "; a template `prompt` in the entry makes a question of any text";
                            return Err(misfit(
                                &at.place,
                                format!("{found} in `{column}`"),
                                &format!("{expected}{way}"),
                            ));
                        }
                        let thinking = thinking(fields).filter(|_| *role == "assistant");
                        let text = with_thinking(thinking, at, text.to_owned())?;
                        messages.push(((*column).to_owned(), json!({"role": role, "content": text})));
                        continue;
                    }
                    let mut turns = list(column, Some(&turn), at)?;
                    // A model continues such a turn only where the row has nothing else.
                    let is_continued = self.name == PROMPT;
                    let begun = turns.last().filter(|(_, turn)| *role == "user" && !is_continued && is_answer(turn));
                    if let Some((name, _)) = begun {
                        let found = format!("the assistant's turn {name} at the end of a prompt");
                        let expected = "a question at the end: an answer belongs into `completion`, the conversation into \
                                        `messages`, and a turn that RL continues into `prompt`, without an answer";
                        return Err(misfit(&at.place, found, expected));
                    }
                    // If a row has a prompt and a completion, only the completion is trained, as in TRL.
                    if *role == "user" && self.turns.len() > 1 {
                        turns.iter_mut().for_each(|(_, turn)| mask(turn));
                    }
                    if *role == "assistant" {
                        add_thinking(&mut turns, thinking(fields));
                    }
                    messages.extend(turns);
                }
                Lines(role, columns) => {
                    let texts = columns.iter().filter_map(|column| Some(scalar(at, column, given(fields, column)?)));
                    let texts: Vec<String> = texts.collect::<RowResult<_>>()?;
                    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
                    messages.push((columns[0].to_owned(), json!({"role": role, "content": texts.join("\n")})));
                }
                Pairs(column) => messages.extend(pairs(column, fields.get(*column), at)?),
            }
        }
        Ok(messages)
    }

    /// Returns the answer that SFT trains on if the turns have none: the label, or the worked solution beside it.
    pub(crate) fn reply(&self, fields: &Map<String, Value>, at: &RowContext) -> RowResult<Option<String>> {
        let text = |column: &str| given(fields, column)?.as_str().filter(|text| !text.trim().is_empty());
        let solution = std::iter::once(&"solution").chain(WORKED).find(|column| text(column).is_some());
        let mut columns = solution.into_iter().chain(LABEL);
        let column = columns.find(|column| given(fields, column).is_some()).filter(|_| self.trains_label);
        let Some(column) = column else { return Ok(None) };
        // Only a reward program can use a list or a struct.
        let answer = scalar(at, column, &fields[*column]).ok();
        answer.map(|answer| with_thinking(thinking(fields), at, answer)).transpose()
    }
}

/// Returns the turns of a list of messages, or of pairs `{user, assistant}` or `{human, assistant}`.
fn list(column: &str, value: Option<&Value>, at: &RowContext) -> RowResult<Vec<(String, Value)>> {
    let value = structured(value.cloned().unwrap_or_default());
    let Value::Array(list) = value else { return Err(wrong(at, column, &value, "a list of {role, content}")) };
    if list.is_empty() {
        return Err(misfit(&at.place, format!("an empty `{column}`"), "at least one message"));
    }
    let turns = list.into_iter().enumerate().flat_map(|(i, entry)| {
        let name = format!("{column}[{i}]");
        let pair = given_in(&entry, "user").or_else(|| given_in(&entry, "human"));
        let Some(asked) = pair else { return vec![(name, entry)] };
        let mut turns = Vec::from(both(&name, asked, &entry["assistant"]));
        // The other fields of the pair are checked with its question.
        let others = entry.as_object().into_iter().flatten();
        let others =
            others.filter(|(field, _)| !["user", "human", "assistant", "role", "content"].contains(&field.as_str()));
        others.for_each(|(field, value)| turns[0].1[field] = value.clone());
        turns
    });
    Ok(turns.collect())
}

/// Gives the reasoning of a row to the last answer of its completion, unless the answer has its own.
fn add_thinking(turns: &mut [(String, Value)], thinking: Option<(&str, &Value)>) {
    let answer = turns.iter_mut().map(|(_, turn)| turn).rfind(|turn| is_answer(turn));
    if let (Some(answer), Some((_, thinking))) = (answer, thinking)
        && REASONING.iter().all(|key| given_in(answer, key).is_none())
    {
        answer[THINKING] = thinking.clone();
    }
}

fn is_answer(turn: &Value) -> bool {
    matches!(role(turn), Some("assistant" | "gpt"))
}

/// Leaves an assistant's turn out of the training, unless it states its own `loss`.
fn mask(turn: &mut Value) {
    if is_answer(turn) && LOSS.iter().all(|key| given_in(turn, key).is_none()) {
        turn["loss"] = false.into();
    }
}

/// Returns the turns of a question and its answer.
fn both(name: &str, asked: &Value, answered: &Value) -> [(String, Value); 2] {
    [("user", asked), ("assistant", answered)]
        .map(|(role, text)| (name.to_owned(), json!({"role": role, "content": text})))
}

/// Returns the turns of pairs `[question, answer]`. The column may be missing.
fn pairs(column: &str, value: Option<&Value>, at: &RowContext) -> RowResult<Vec<(String, Value)>> {
    let value = match value.filter(|value| !value.is_null()) {
        None => return Ok(Vec::new()),
        // A file of text, such as CSV, holds the list as text.
        Some(Value::String(text)) => listed(text).unwrap_or_else(|| Value::String(text.clone())),
        Some(value) => value.clone(),
    };
    let expected = "a list of pairs [question, answer]";
    let Value::Array(list) = &value else { return Err(wrong(at, column, &value, expected)) };
    let mut turns = Vec::new();
    for (i, pair) in list.iter().enumerate() {
        let name = format!("{column}[{i}]");
        let Some([asked, answered]) = pair.as_array().and_then(|pair| <&[Value; 2]>::try_from(pair.as_slice()).ok())
        else {
            return Err(wrong(at, &name, pair, expected));
        };
        turns.extend(both(&name, asked, answered));
    }
    Ok(turns)
}

/// Returns the reasoning of a row, with the name of its column.
fn thinking(fields: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    Some((THINKING, given(fields, THINKING)?))
}

/// Puts reasoning, a value with its name, in front of an answer, between the tags that Qwen's templates use.
pub fn with_thinking(thinking: Option<(&str, &Value)>, at: &RowContext, answer: String) -> RowResult<String> {
    let Some((name, thinking)) = thinking else { return Ok(answer) };
    let thinking = scalar(at, name, thinking)?;
    let thinking = thinking.trim();
    Ok(match thinking.is_empty() || answer.contains("<think>") {
        true => answer,
        false if thinking.starts_with("<think>") => format!("{thinking}\n\n{answer}"),
        false => format!("<think>\n{thinking}\n</think>\n\n{answer}"),
    })
}
