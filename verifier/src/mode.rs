//! Which behaviour the verifier follows, and which format a response is asked for.

/// Which behaviour of the original the rules follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The right behaviour.
    Strict,
    /// The published behaviour, defects included.
    Compat,
}

impl Mode {
    /// Returns the name in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Strict => "strict",
            Mode::Compat => "compat",
        }
    }
}

/// The format that a response is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Thinking and an answer in their tags, or a box.
    ThinkAnswerBoxed,
    /// Thinking and an answer in their tags.
    ThinkAnswer,
    /// Thinking in its tags, then a box: the format of verl's geo3k.
    ThinkBoxed,
}

impl Format {
    /// Returns the name in a config.
    pub const fn name(self) -> &'static str {
        match self {
            Format::ThinkAnswerBoxed => "think_answer_boxed",
            Format::ThinkAnswer => "think_answer",
            Format::ThinkBoxed => "think_boxed",
        }
    }
}
