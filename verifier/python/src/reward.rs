//! The reward of `omr score` by the rules: labels, reward types and settings.

use omr_verify::extract::{self, Path};
use omr_verify::typed::{Details, Label, RewardType, Scores};
use omr_verify::{Format, Mode, grade};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::column;
use crate::read::{Rules, Text, choose};

/// Keywords with which verl calls a reward function if there is a reward model.
const OF_VERL: [&str; 2] = ["reward_router_address", "reward_model_tokenizer"];

/// Settings of the rules, with the names and defaults of omr's configs.
#[derive(Clone, Copy)]
pub struct Rubric {
    mode: Mode,
    format: Format,
    format_weight: f64,
    flexible_extract: bool,
    normalize_bbox_to_1000: bool,
}

impl Rubric {
    /// Reads the settings. Other names are errors.
    pub fn read(settings: Option<&Bound<PyDict>>) -> PyResult<Rubric> {
        let mut rubric = Rubric {
            mode: Mode::Strict,
            format: Format::ThinkAnswerBoxed,
            format_weight: 0.1,
            flexible_extract: false,
            normalize_bbox_to_1000: false,
        };
        for (key, value) in settings.into_iter().flatten() {
            match &*key.extract::<Text>()?.0 {
                "mode" => rubric.mode = value.extract::<Rules>()?.0,
                "format" => {
                    let all = [Format::ThinkAnswerBoxed, Format::ThinkAnswer, Format::ThinkBoxed];
                    rubric.format = choose(&value, "format", all, Format::name)?;
                }
                "format_weight" => rubric.format_weight = value.extract()?,
                "flexible_extract" => rubric.flexible_extract = value.extract()?,
                "normalize_bbox_to_1000" => rubric.normalize_bbox_to_1000 = value.extract()?,
                key if OF_VERL.contains(&key) => {}
                key => {
                    let known = "mode, format, format_weight, flexible_extract or normalize_bbox_to_1000";
                    return Err(PyTypeError::new_err(format!("found the setting {key}, expected {known}")));
                }
            }
        }
        match rubric.format_weight {
            0.0..=1.0 => Ok(rubric),
            found => Err(PyValueError::new_err(format!("found the format_weight {found}, expected 0 to 1"))),
        }
    }
}

/// Reward of a response and its parts.
#[derive(IntoPyObject)]
pub struct Scored {
    pub score: f64,
    acc_score: f64,
    format_reward_score: f64,
    predict_str: String,
    why: String,
}

/// A label that the rule of a row's reward type cannot use.
pub struct Unusable(String);

impl From<Unusable> for PyErr {
    fn from(unusable: Unusable) -> PyErr {
        PyValueError::new_err(unusable.0)
    }
}

/// A response to be scored.
pub struct Item {
    response: String,
    /// The label, then the further right answers.
    labels: Vec<String>,
    question: Option<String>,
    /// The reward type with its name, and its settings.
    kind: Option<(RewardType, String, Details)>,
}

impl Item {
    /// Reads a row. `extra` has what `omr score` reads from `extra_info`.
    pub fn read(
        response: Text,
        ground_truth: Text,
        question: Option<Text>,
        extra: Option<Bound<PyDict>>,
        rubric: Rubric,
    ) -> PyResult<Item> {
        let mut labels = vec![ground_truth.0];
        if let Some(further) = column::<Bound<PyAny>>(extra.as_ref(), "right_answers")? {
            // Parquet files of omr contain the list as JSON text.
            let is_json = further.is_instance_of::<PyString>();
            let list = if is_json { further.py().import("json")?.call_method1("loads", (further,))? } else { further };
            labels.extend(list.extract::<Vec<Text>>()?.into_iter().map(|label| label.0));
        }
        let name = column::<Text>(extra.as_ref(), "reward_type")?.map(|name| name.0.trim().to_owned());
        let kind = match (name.filter(|name| !name.is_empty()), extra) {
            (Some(name), Some(extra)) => Some((kind(&name, rubric.mode)?, name, details(&extra, rubric)?)),
            _ => None,
        };
        Ok(Item { response: response.0, labels, question: question.map(|question| question.0), kind })
    }

    /// Scores the response. Any of the labels is right; the score of a wrong response is that for the first.
    pub fn score(&self, rubric: Rubric) -> Result<Scored, Unusable> {
        let first = self.score_for(&self.labels[0], rubric)?;
        let others = if first.acc_score == 0.0 { &self.labels[1..] } else { &[] };
        let is_wrong = |scored: &Result<Scored, Unusable>| matches!(scored, Ok(scored) if scored.acc_score == 0.0);
        let mut others = others.iter().map(|label| self.score_for(label, rubric));
        others.find(|scored| !is_wrong(scored)).unwrap_or(Ok(first))
    }

    fn score_for(&self, label: &str, rubric: Rubric) -> Result<Scored, Unusable> {
        let Rubric { mode, format, format_weight, .. } = rubric;
        let scored = |acc_score, format_reward_score, predict_str, why| {
            let score = (1.0 - format_weight) * acc_score + format_weight * format_reward_score;
            Scored { score, acc_score, format_reward_score, predict_str, why }
        };
        if let Some((kind, name, details)) = &self.kind {
            let label = Label::read(*kind, label, details, mode);
            let label = label.map_err(|bad| Unusable(format!("{bad}, for the reward_type {name}")))?;
            let Scores { accuracy, format, prediction } = label.score(&self.response);
            return Ok(scored(accuracy, format, prediction, name.clone()));
        }
        let text = extract::strip_think(&self.response, mode);
        let grade = |response| grade(response, label, self.question.as_deref(), mode);
        let mut graded = grade(&self.response);
        let is_marked = matches!(extract::extract(&self.response, mode).1, Path::AnswerTag | Path::Boxed);
        if rubric.flexible_extract && mode == Mode::Strict && !graded.correct && !is_marked {
            let last = grade(text.lines().last().unwrap_or_default());
            graded = if last.correct { last } else { graded };
        }
        let format_score = extract::format_score(&self.response, mode, format);
        Ok(scored(f64::from(graded.correct), format_score, graded.answer.into_owned(), graded.why.to_owned()))
    }
}

/// Returns the reward type with this name. In `compat`, an unknown one compares as math-verify does.
fn kind(name: &str, mode: Mode) -> PyResult<RewardType> {
    match RewardType::of(name) {
        Some(RewardType::LlmJudge) => Err(PyValueError::new_err(
            "found the reward_type llm_judge, expected one without a judge (omr score has one)",
        )),
        Some(kind) => Ok(kind),
        None if mode == Mode::Compat && !name.to_lowercase().starts_with("instruction_following") => {
            Ok(RewardType::Unknown)
        }
        None => {
            let known = RewardType::names().collect::<Vec<_>>().join(", ");
            Err(PyValueError::new_err(format!("found the unknown reward_type {name:?}, expected one of {known}")))
        }
    }
}

/// Reads the settings of a rule.
fn details(extra: &Bound<PyDict>, rubric: Rubric) -> PyResult<Details> {
    let field = |key| column::<Bound<PyAny>>(Some(extra), key);
    let number = |key| {
        let Some(value) = field(key)? else { return Ok(None) };
        let parse = || value.extract::<Text>().ok()?.0.trim().parse().ok();
        match value.extract().ok().or_else(parse) {
            None if rubric.mode == Mode::Strict => {
                Err(PyValueError::new_err(format!("found the {key} {value}, expected a number")))
            }
            read => Ok(read),
        }
    };
    let side = |size: &Bound<PyAny>, name, at: usize| {
        size.get_item(name).or_else(|_: PyErr| size.get_item(at)).ok()?.extract::<f64>().ok()
    };
    let size = |size: Bound<PyAny>| Some((side(&size, "width", 0)?, side(&size, "height", 1)?));
    let first = |key| Ok::<_, PyErr>(field(key)?.and_then(|sizes| size(sizes.get_item(0).ok()?)));
    let weights = field("grounding_component_weights")?;
    let weight = |key| weights.as_ref()?.get_item(key).ok()?.extract::<f64>().ok();
    let normalized = field("normalize_bbox_to_1000")?.and_then(|value| value.extract().ok());
    Ok(Details {
        tolerance: number("tolerance")?,
        image_size: first("image_sizes")?.or(field("image_size")?.and_then(size)),
        processed_size: first("processed_image_sizes")?,
        normalize_bbox_to_1000: normalized.unwrap_or(rubric.normalize_bbox_to_1000),
        iou_threshold: number("iou_threshold")?,
        component_weights: (|| Some([weight("location")?, weight("recall")?, weight("penalty")?]))(),
    })
}
