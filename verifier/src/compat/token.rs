//! Tokens of the published grammar.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Digits, with a point perhaps.
    Number,
    /// A number with an exponent behind a capital `E`.
    Power,
    /// A number with a percent sign.
    Percent,
    /// A letter other than `e` and `E`.
    Letter,
    /// `e`.
    Euler,
    /// `E`.
    CapitalE,
    /// `d` and the letter behind it.
    Differential,
    /// A Greek letter; the text is its name.
    Greek,
    /// Another symbol; the text is its name.
    Other,
    /// A command with a text: its name, a brace, the text.
    Accent,
    /// A function of one argument.
    Function,
    /// A function of several arguments.
    Several,
    /// An operator, a bracket or a word; the text says which.
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
