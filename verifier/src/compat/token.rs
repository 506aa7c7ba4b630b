//! Tokens of the published grammar.

/// Kind of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Digits, with an optional point.
    Number,
    /// A number with an exponent after a capital `E`.
    Power,
    /// A number with a percent sign.
    Percent,
    /// A letter other than `e` and `E`.
    Letter,
    /// `e`.
    Euler,
    /// `E`.
    CapitalE,
    /// `d` and the letter after it.
    Differential,
    /// A Greek letter. The text is its name.
    Greek,
    /// Another symbol. The text is its name.
    Other,
    /// A command with a text argument. The token's text is the command's name, a brace, and the argument.
    Accent,
    /// A function of one argument.
    Function,
    /// A function of several arguments.
    Several,
    /// An operator, a bracket or a word, as given by the text.
    Sign,
    /// An opening bracket of any kind.
    Open,
    /// A closing bracket of any kind.
    Close,
    /// The name of a set.
    Set,
    /// A relation.
    Relation,
}

/// A token.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) text: String,
}
