//! The types of rewards, and what their rules read from a row.

/// A type of reward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RewardType {
    /// The same words.
    StringMatch,
    /// The letter of an option.
    MultipleChoice,
    /// An equal number, or one within a tolerance.
    Numeric,
    /// The same words as one of a list of labels.
    ListStringMatch,
    /// The same whole numbers in the same order; a fifth of the share of right places for another order.
    NumberList,
    /// The share of right parts of an action on a web page: ACTION, MARK and VALUE.
    WebAction,
    /// Boxes in an image, by their overlap with the label's.
    Grounding,
    /// A point inside the label's box.
    Clicking,
    /// A score from 1 to 10 by a language model.
    LlmJudge,
    /// Equality by the rules of `compat`, for names that Vero does not know.
    Unknown,
}

/// The types with their names.
const TYPES: [(&str, RewardType); 11] = [
    ("string_match", RewardType::StringMatch),
    ("counting", RewardType::StringMatch),
    ("search", RewardType::StringMatch),
    ("multiple_choice", RewardType::MultipleChoice),
    ("numeric", RewardType::Numeric),
    ("list_string_match", RewardType::ListStringMatch),
    ("number_list", RewardType::NumberList),
    ("web_action", RewardType::WebAction),
    ("grounding", RewardType::Grounding),
    ("clicking", RewardType::Clicking),
    ("llm_judge", RewardType::LlmJudge),
];

impl RewardType {
    /// Returns the names of all types.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TYPES.iter().map(|(name, _)| *name)
    }

    /// Returns the type with this name, which may be surrounded by white space and have any case.
    pub fn of(name: &str) -> Option<RewardType> {
        let name = name.trim().to_lowercase();
        TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// True if a response must put its answer into one `\boxed{}`.
    pub(super) fn is_boxed(self) -> bool {
        !matches!(self, RewardType::Grounding | RewardType::Clicking | RewardType::LlmJudge | RewardType::Unknown)
    }

    /// True if a response names places in an image.
    pub fn is_of_places(self) -> bool {
        matches!(self, RewardType::Grounding | RewardType::Clicking)
    }
}

/// Settings of a rule, which a row has besides its label.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Details {
    /// Largest error of a number, relative to the label; absolute if the label is 0.
    pub tolerance: Option<f64>,
    /// Width and height of the first image in pixels, before it is resized.
    pub image_size: Option<(f64, f64)>,
    /// Width and height of the first image as the model sees it, if that is known. Coordinates in pixels refer to it.
    pub processed_size: Option<(f64, f64)>,
    /// True if coordinates in responses are normalised to 0 to 1000. Those in labels are always pixels of the original.
    pub normalize_bbox_to_1000: bool,
    /// Smallest overlap of a box that is found (intersection divided by union), instead of 0.5.
    pub iou_threshold: Option<f64>,
    /// Weights of overlap, F1 and what is missed in Vero's score, instead of 1, 0.75 and 0.5; for `compat`.
    pub component_weights: Option<[f64; 3]>,
}
