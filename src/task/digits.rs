//! The digits task: questions about images of two real handwritten digits.
//!
//! Only this module decides which digits a row may show. Training rows never show a digit that is used for evaluation.

mod pictures;
mod questions;
pub mod teacher;

use std::ops::Range;

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::{Answers, Mark, Marks, Metrics, PublishedResult, QuestionSink, Rows, Source, TaskQuestion, TaskSpec};
use crate::config::{BaseConfig, Mode, TaskConfig};
use crate::data::{ImageSource, Row, read};
use crate::error::{Error, Result};
use crate::philox::{Purpose, Random};
use crate::task::recipe::{Recipe, Splits, Teacher};
use crate::text::{Message, Part, Tokenizer};

pub use pictures::{Digit, HELD_OUT, Pixels, SIDE, TRAIN, TUNING, TUNING_TRAIN, load, png, shifted};
pub use questions::{PHRASINGS, Question, Style, corpus, words};

/// Name of the task, also the `data_source` of its rows.
pub const NAME: &str = "digits";

/// The task: held-out questions, answered greedily and at temperature 1.
pub const TASK: TaskSpec = TaskSpec {
    name: NAME,
    about: "pictures of two handwritten digits; generated, or read from heldout.parquet in --data",
    rows: Rows::Made(|_, source, take| measured(source, take)),
    answers: Answers::AsConfigured,
    max_new_tokens: 1024,
    score,
    published: None,
    recipe: Some(Recipe {
        takes: "one to three minutes on two cores with configs/digits.yaml; ",
        splits,
        corpus,
        words,
        model_config,
        preprocessor_config,
        teacher,
    }),
    ..TaskSpec::DEFAULT
};

/// Reads the rows of the data sets given by the user, or `heldout.parquet` in the given folder. Without either, makes
/// the rows.
fn measured(source: &Source, take: QuestionSink) -> Result<()> {
    let mut index = 0;
    let mut emit = |row: Row| {
        index += 1;
        take(TaskQuestion { index: index - 1, place: row.place.clone(), row: Ok(row) })
    };
    let own = source.folder.map(|folder| [read::entry(folder.join("heldout.parquet"))]);
    let files = if source.datasets.is_empty() { own.as_ref().map_or(&[][..], |own| own) } else { source.datasets };
    for entry in files {
        let (mut rows, mut over) = (0, false);
        read::for_each(entry, |row| {
            rows += 1;
            over = over || emit(row?)?.is_break();
            Ok(())
        })?;
        if rows == 0 {
            return Err(Error::input(entry.path.display().to_string(), "no rows", "at least one row"));
        }
        if over {
            return Ok(());
        }
    }
    if files.is_empty() {
        for row in splits(&TaskConfig::default(), source.seed)?.heldout {
            if emit(row)?.is_break() {
                break;
            }
        }
    }
    Ok(())
}

/// Computes the accuracy of the greedy answer, the share of correct answers at temperature 1, and the format score. The
/// format score is the mean over the answers at temperature 1. If no answer was sampled, it is the format score of the
/// greedy answer.
pub(super) fn score(_: &Row, marks: &Marks, _: Mode) -> PublishedResult<Metrics> {
    let mean = |pick: fn(&Mark) -> f64| {
        let n = marks.sampled.len();
        (n > 0).then(|| marks.sampled.iter().map(pick).sum::<f64>() / n as f64)
    };
    let format = mean(|mark| mark.format).or(marks.greedy.map(|mark| mark.format));
    let all = [("acc_score", marks.greedy.map(|m| m.acc)), ("acc_score_t1", mean(|m| m.acc)), ("format_score", format)];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect())
}

/// Returns the ranges of the digits for training and for evaluation.
pub fn ranges(tuning: bool) -> (Range<usize>, Range<usize>) {
    if tuning { (TUNING_TRAIN, TUNING) } else { (TRAIN, HELD_OUT) }
}

/// Makes the rows of a run, in RL form with embedded PNGs. Equal arguments give equal rows. Training digits are shifted
/// at random by up to `config.shift` pixels, evaluation digits by up to `config.heldout_shift`.
pub fn splits(config: &TaskConfig, seed: u64) -> Result<Splits> {
    let digits = load()?;
    let (train, measured) = ranges(config.tuning);
    let pixels = |key: &str, shift: u32| {
        let checked = i32::try_from(shift).ok().filter(|&shift| shift < SIDE as i32);
        checked.ok_or_else(|| Error::input(key, shift.to_string(), format!("less than {SIDE}")))
    };
    let shift = pixels("task.shift", config.shift)?;
    let heldout_shift = pixels("task.heldout_shift", config.heldout_shift)?;
    let sft_kinds = of_kinds("task.sft_kinds", config.sft_kinds.as_deref())?;
    let rl_kinds = of_kinds("task.rl_kinds", config.rl_kinds.as_deref())?;
    let rows = |split: Split, n: usize| {
        (0..n).into_par_iter().map(|i| row(&digits, &split, i, seed)).collect::<Result<Vec<_>>>()
    };
    let teach = Split { name: "teach", stream: 1, kinds: &sft_kinds, from: &train, shift };
    let rl = Split { name: "train", stream: 2, kinds: &rl_kinds, from: &train, shift };
    let heldout = Split { name: "heldout", stream: 3, kinds: &PHRASINGS, from: &measured, shift: heldout_shift };
    Ok(Splits {
        teach: rows(teach, config.num_sft_questions)?,
        train: rows(rl, config.num_rl_questions)?,
        heldout: rows(heldout, config.num_heldout_questions)?,
    })
}

/// Settings of the rows of a split.
struct Split<'a> {
    name: &'static str,
    /// Separates the random draws of the splits.
    stream: u64,
    kinds: &'a [Asked],
    /// The digits that its pictures show.
    from: &'a Range<usize>,
    /// Maximum shift, in pixels.
    shift: i32,
}

/// A kind of question with its phrasings.
type Asked = (Question, [&'static str; 2]);

/// Returns the kinds of questions that the key `key` names, in the order of [`PHRASINGS`].
fn of_kinds(key: &str, names: Option<&[String]>) -> Result<Vec<Asked>> {
    let Some(names) = names else { return Ok(PHRASINGS.to_vec()) };
    let known = PHRASINGS.map(|(question, _)| question.name());
    let unknown = names.iter().find(|name| !known.contains(&name.as_str()));
    if unknown.is_some() || names.is_empty() {
        let found = unknown.map_or("an empty list".to_owned(), |name| name.clone());
        return Err(Error::input(key, found, format!("kinds of questions: {}", known.join(", "))));
    }
    Ok(PHRASINGS.into_iter().filter(|(question, _)| names.iter().any(|name| name == question.name())).collect())
}

fn row(digits: &[Digit], split: &Split, index: usize, seed: u64) -> Result<Row> {
    let Split { name, stream, kinds, from, shift } = *split;
    let mut random = Random::new(seed, Purpose::Data, stream << 48 | index as u64);
    // The kinds of questions alternate, so that each split has the same number of each.
    let (question, phrasings) = kinds[index % kinds.len()];
    let text = phrasings[random.below(2) as usize];
    let picked = [(); 2].map(|()| from.start + random.below(from.len() as u64) as usize);
    let mut augment = Random::new(seed, Purpose::Augment, stream << 48 | index as u64);
    let mut by = || augment.below(2 * shift as u64 + 1) as i32 - shift;
    let [left, right] = picked.map(|i| shifted(&digits[i].pixels, [by(), by()]));
    let answer = question.answer(picked.map(|i| digits[i].label)).to_string();
    let extra = json!({
        "index": index, "split": name, "question": text, "answer": answer, "kind": question.name(),
        "left": picked[0], "right": picked[1], "cluster": json!(picked.map(|i| format!("digit-{i}"))).to_string(),
    });
    Ok(Row {
        id: format!("{NAME}-{name}-{index}"),
        messages: vec![Message {
            content: vec![Part::Image, Part::Text(text.to_owned())],
            ..Message::text("user", "")
        }],
        images: vec![ImageSource::Bytes { bytes: png(&left, &right)?.into(), path: None }],
        data_source: NAME.to_owned(),
        ground_truth: Some(answer),
        extra: if let Value::Object(map) = extra { map } else { Map::new() },
        place: format!("{NAME} {name} row {}", index + 1),
        ..Row::default()
    })
}

/// Starts a teacher that can read the training digits.
fn teacher(config: &TaskConfig, runtime: &Handle) -> Result<Box<dyn Teacher>> {
    let teacher = teacher::Teacher::start(&config.teacher, ranges(config.tuning).0, config.shift);
    Ok(Box::new(runtime.block_on(teacher)?))
}

/// Returns the `config.json` of the task's model. The shape comes from `base`, the token ids from the tokenizer. It is
/// an error if the tokenizer lacks a special token of Qwen2.5-VL.
pub fn model_config(base: &BaseConfig, tokenizer: &Tokenizer) -> Result<Value> {
    let mut config = fixed(include_str!("digits/config.json"));
    for (_, value) in config.as_object_mut().into_iter().flatten().filter(|(key, _)| key.ends_with("_token_id")) {
        let token = value.as_str().unwrap_or_default();
        let missing = || Error::input("tokenizer", format!("no {token}"), "the special tokens of Qwen2.5-VL");
        *value = tokenizer.id(token).ok_or_else(missing)?.into();
    }
    config["hidden_size"] = base.hidden_size.into();
    config["initializer_range"] = base.initializer_range.into();
    config["intermediate_size"] = base.intermediate_size.into();
    config["max_window_layers"] = base.num_hidden_layers.into();
    config["num_attention_heads"] = base.num_attention_heads.into();
    config["num_hidden_layers"] = base.num_hidden_layers.into();
    config["num_key_value_heads"] = base.num_key_value_heads.into();
    config["rope_theta"] = base.rope_theta.into();
    config["rope_scaling"]["mrope_section"] = base.mrope_section.clone().into();
    config["tie_word_embeddings"] = base.tie_word_embeddings.into();
    config["vocab_size"] = base.vocab_size.into();
    let (vision, shape) = (&base.vision, &mut config["vision_config"]);
    shape["depth"] = vision.depth.into();
    shape["fullatt_block_indexes"] = vision.fullatt_block_indexes.clone().into();
    shape["hidden_size"] = vision.hidden_size.into();
    shape["intermediate_size"] = vision.intermediate_size.into();
    shape["num_heads"] = vision.num_heads.into();
    shape["out_hidden_size"] = base.hidden_size.into();
    shape["window_size"] = vision.window_size.into();
    Ok(config)
}

/// Returns the `preprocessor_config.json` of the task's model. Its minimum size allows images of 28 x 28, so such
/// images are not enlarged.
pub fn preprocessor_config() -> Value {
    fixed(include_str!("digits/preprocessor_config.json"))
}

fn fixed(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixed text")
}
