//! The verifier's two modes, and the response formats that a prompt can require.

/// Set of rules that the verifier follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The correct rules.
    Strict,
    /// The rules of the published scorer, including its defects.
    Compat,
}

impl Mode {
    /// Returns the mode's name in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Strict => "strict",
            Mode::Compat => "compat",
        }
    }
}

/// Format that the prompt requires of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Thinking and an answer in their tags, or a `\boxed{...}` answer.
    ThinkAnswerBoxed,
    /// Thinking and an answer in their tags.
    ThinkAnswer,
    /// Thinking in its tags, then a `\boxed{...}` answer. This is the format of verl's geo3k recipe.
    ThinkBoxed,
}

impl Format {
    /// Returns the format's name in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Format::ThinkAnswerBoxed => "think_answer_boxed",
            Format::ThinkAnswer => "think_answer",
            Format::ThinkBoxed => "think_boxed",
        }
    }
}
