//! Values that are chosen from a closed set of names, and the name that a misspelled word most likely stands for.

use crate::error::{Error, Result};

/// The values of a type, each with its name.
pub type Names<T> = &'static [(&'static str, T)];

/// Names of the data type float16.
const FLOAT16: [&str; 5] = ["float16", "fp16", "f16", "half", "torch.float16"];

/// Returns the value whose name or alias is `text`. `of` is the name of the type.
///
/// # Errors
/// If no value has this name. The error lists the names in `all` and suggests the most similar one.
pub fn named<T: Copy>(of: &str, all: Names<T>, aliases: Names<T>, text: &str) -> Result<T> {
    if let Some((_, value)) = all.iter().chain(aliases).find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    let (place, expected) = (of.to_lowercase(), format!("one of {}", names.join(", ")));
    if of == "Dtype" && FLOAT16.contains(&text) {
        let hint = "float16 is not supported: values above 65504 would overflow. bf16 has the range of f32";
        return Err(Error::input_hint(place, text, expected, hint));
    }
    Err(not_one_of(place, text, expected, names))
}

/// Returns the candidate with the smallest edit distance to `word`, if it is similar enough to be a likely correction. If
/// there is none, returns the first candidate that contains `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate).min(reach + 1), candidate))
        .filter(|&(d, candidate)| d <= reach || (word.len() >= 4 && candidate.contains(word)))
        .min_by_key(|&(d, _)| d)
        .map(|(_, candidate)| candidate)
}

/// Creates the error for `word`, which is none of `names`. It suggests the most similar name.
pub fn not_one_of<'a>(
    place: impl Into<String>,
    word: &str,
    expected: impl Into<String>,
    names: impl IntoIterator<Item = &'a str>,
) -> Error {
    let hint = nearest(word, names).map(|near| format!("did you mean {near}?"));
    Error::Input { place: place.into(), found: word.to_owned(), expected: expected.into(), hint }
}

/// Computes the Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Declares an enum whose values have fixed names in a config. `"name" or "other"`: the other names are read, too.
#[macro_export]
macro_rules! choice {
    ($(#[$outer:meta])* pub enum $name:ident {
        $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal $(or $alias:literal)*, )+
    }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl $name {
            /// The values, each with its name.
            pub const ALL: $crate::choice::Names<Self> = &[$( ($text, $name::$variant) ),+];
            /// Further names that are read, but never written.
            pub const ALIASES: $crate::choice::Names<Self> = &[$( $( ($alias, $name::$variant), )* )+];

            /// Returns the name that a config uses for this value.
            pub fn name(self) -> &'static str {
                match self { $( $name::$variant => $text, )+ }
            }
        }

        impl Default for $name {
            /// Returns the first value. It is the placeholder of an optional key or a list entry before its value is read.
            fn default() -> Self {
                Self::ALL[0].1
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                $crate::choice::named(stringify!($name), Self::ALL, Self::ALIASES, text)
            }
        }
    };
}
pub use choice;

choice! {
    /// Storage type of tensor elements during computation. Sums are fp32 in both cases.
    pub enum Dtype {
        /// bf16 on a GPU, and on a CPU with bf16 units if the weights are stored so; otherwise f32.
        Auto = "auto",
        /// 32-bit float.
        F32 = "f32" or "float32" or "fp32" or "torch.float32",
        /// bfloat16 storage, fp32 accumulation.
        Bf16 = "bf16" or "bfloat16" or "torch.bfloat16",
    }
}

choice! {
    /// Storage of the matrices of a frozen base.
    pub enum BaseFormat {
        /// Integers from -127 to 127 times a power of two per 64 terms of a row. 8.1 bits per weight.
        Int8 = "int8",
        /// The 16 levels of bitsandbytes' NF4 times an f32 scale per 64 terms of a row. 4.5 bits per weight.
        Nf4 = "nf4",
    }
}

choice! {
    /// Policy loss.
    pub enum LossMode {
        /// Token-level ratio with dual clip (GRPO, DAPO).
        Vanilla = "vanilla",
        /// Sequence-level ratio, normalised by length.
        Gspo = "gspo",
        /// Clipped token-level ratio as a constant weight of the log-prob; clipped tokens keep a gradient.
        Cispo = "cispo",
    }
}

choice! {
    /// Method that combines token losses into one number.
    pub enum LossAggMode {
        /// Mean over all tokens of the mini-batch.
        TokenMean = "token-mean",
        /// Sum over the tokens of a sequence, mean over sequences.
        SeqMeanTokenSum = "seq-mean-token-sum",
        /// Mean over the tokens of a sequence, mean over sequences.
        SeqMeanTokenMean = "seq-mean-token-mean",
        /// Sum over the tokens of a sequence divided by `max_response_length`, mean over sequences.
        SeqMeanTokenSumNorm = "seq-mean-token-sum-norm",
        /// Sum over all tokens of the mini-batch.
        TokenSum = "token-sum",
    }
}

choice! {
    /// Estimator of the KL divergence from the reference policy.
    pub enum KlLossType {
        /// k1: the log-ratio.
        Kl = "kl" or "k1",
        /// Absolute value of the log-ratio.
        Abs = "abs",
        /// k2: half the square of the log-ratio.
        Mse = "mse" or "k2",
        /// k3, clamped.
        LowVarKl = "low_var_kl" or "k3",
    }
}
