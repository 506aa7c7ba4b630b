//! Rewards by the type of a row: reads the type and its settings from a row's `extra_info`, and applies the rules of
//! [`omr_verify::typed`].

use omr_verify::typed::{BadLabel, Details, Label, RewardType, Scores};
use serde_json::{Map, Value};

use super::{Item, Mode, Rubric, Score, composite};
use omr_base::config::nearest;
use omr_base::error::{Error, Result};

/// Field of `extra_info` with the reward type of the row.
pub const REWARD_TYPE: &str = "reward_type";
/// Field of `extra_info` with the domain of the row.
pub const DOMAIN: &str = "domain";
/// Field of `extra_info` with the width and height of each image.
pub const SIZES: &str = "image_sizes";
/// Field of `extra_info` with the width and height of each image as the model sees it.
pub const PROCESSED_SIZES: &str = "processed_image_sizes";

/// Types whose rules are not built in, in either mode.
const BY_PROGRAM: [&str; 2] = ["instruction_following", "instruction_following_llm_judge"];

/// Returns the text of a field of `extra_info`; `None` if it is missing or blank.
pub fn name<'a>(extra: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    extra.get(field).and_then(Value::as_str).map(str::trim).filter(|name| !name.is_empty())
}

/// Returns the built-in reward type of a row with this `extra_info`, if it has one.
fn built_in(extra: &Map<String, Value>) -> Option<RewardType> {
    name(extra, REWARD_TYPE).and_then(RewardType::of)
}

/// True if a row with this `extra_info` has a reward for places in an image.
pub fn is_of_places(extra: &Map<String, Value>) -> bool {
    built_in(extra).is_some_and(RewardType::is_of_places)
}

/// True if a judge gives the score of a response from 1 to 10.
pub fn is_rated(item: &Item) -> bool {
    built_in(&item.extra_info) == Some(RewardType::LlmJudge)
}

/// Returns the reward type of a row, or `None` if it has none. In `compat`, an unknown type compares as math-verify does.
/// In `strict`, it is an error that names the row.
pub fn kind(item: &Item, mode: Mode) -> Result<Option<RewardType>> {
    let found = match item.extra_info.get(REWARD_TYPE) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) if name.trim().is_empty() => return Ok(None),
        Some(Value::String(name)) => name.trim().to_lowercase(),
        Some(other) => other.to_string(),
    };
    if let Some(kind) = RewardType::of(&found) {
        return Ok(Some(kind));
    }
    if mode == Mode::Compat && !BY_PROGRAM.contains(&found.as_str()) {
        return Ok(Some(RewardType::Unknown));
    }
    let known = match nearest(&found, RewardType::names()) {
        Some(near) => format!("{near} (the nearest name)"),
        None => format!("one of {}", RewardType::names().collect::<Vec<_>>().join(", ")),
    };
    let expected = format!("{known}, or a scorer of your own: `rewards: {{{found}: {{command: [...]}}}}`");
    Err(Error::input(&item.place, format!("the unknown {REWARD_TYPE} {found:?}"), expected))
}

/// Scores a response by the rule of its row's type. Errors if the rule cannot use the label. A response that a judge
/// rates has the accuracy 0.
pub fn score(item: &Item, kind: RewardType, label: &str, rubric: Rubric) -> Result<Score> {
    let name = name(&item.extra_info, REWARD_TYPE).unwrap_or_default();
    let read = details(&item.extra_info, rubric).and_then(|details| Label::read(kind, label, &details, rubric.mode));
    let read = read.map_err(|bad: BadLabel| {
        let found = format!("{} of a row with the {REWARD_TYPE} {name}", bad.found);
        Error::input(&item.place, found, bad.expected)
    })?;
    let Scores { accuracy, format, prediction } = read.score(&item.text(rubric.mode));
    Ok(Score {
        // Only the judge can score a response of this type.
        score: (kind != RewardType::LlmJudge).then(|| composite(accuracy, format, rubric.format_weight)),
        acc_score: accuracy,
        format_reward_score: format,
        predict_str: prediction,
        why: name.to_owned().into(),
        further: Default::default(),
    })
}

/// Reads the settings of a rule. In `strict`, a setting of a wrong type is an error.
fn details(extra: &Map<String, Value>, rubric: Rubric) -> std::result::Result<Details, BadLabel> {
    let field = |key: &str| extra.get(key).unwrap_or(&Value::Null);
    let number = |key: &str| {
        let value = field(key);
        let read = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        match read.is_none() && !value.is_null() && rubric.mode == Mode::Strict {
            true => Err(BadLabel { found: format!("the {key} {value}"), expected: "a number" }),
            false => Ok(read),
        }
    };
    let side = |size: &Value, name: &str, at: usize| size[name].as_f64().or_else(|| size[at].as_f64());
    let size = |size: &Value| Some((side(size, "width", 0)?, side(size, "height", 1)?));
    let weight = |key: &str| field("grounding_component_weights")[key].as_f64();
    let weights = || Some([weight("location")?, weight("recall")?, weight("penalty")?]);
    Ok(Details {
        tolerance: number("tolerance")?,
        image_size: size(&field(SIZES)[0]).or_else(|| size(Some(field("image_size")).filter(|one| one.is_object())?)),
        processed_size: size(&field(PROCESSED_SIZES)[0]),
        normalize_bbox_to_1000: field("normalize_bbox_to_1000").as_bool().unwrap_or(rubric.normalize_bbox_to_1000),
        iou_threshold: number("iou_threshold")?,
        component_weights: weights(),
    })
}
