//! `report.html`: one file without network that shows what a run did, for people.
//!
//! [`report`] builds a [`RecipeReport`] from run directories, [`page`] turns it into a page. The page holds its
//! data as JSON; bars and text are in the markup, so they stand without scripts; `page.js` draws the curves and
//! the browser of examples. [`browser`] shows rows of any kind.

#![forbid(unsafe_code)]

pub mod browser;
mod comparison;
mod evaluation;
mod html;
pub mod inspect;
mod read;
mod referee;
mod rollouts;
mod run;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::eval::stats::Estimate;

pub use comparison::comparison;
pub use evaluation::{is_evaluation, keep as keep_pictures, page as evaluation};
pub use html::page;
pub use read::report;
pub use referee::page as referee;
pub use run::judges;

/// Everything a page shows. Empty parts are left out of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecipeReport {
    /// Heading.
    pub title: String,
    /// The result in one sentence.
    pub headline: String,
    /// What a reader must know to judge it: what the base is, what was filtered.
    pub remarks: Vec<String>,
    /// Figures in large type: label and value.
    pub tiles: Vec<(String, String)>,
    /// Measured models, in the order of the recipe.
    pub stages: Vec<Stage>,
    /// Paired differences.
    pub contrasts: Vec<Contrast>,
    /// One column a run, when several are compared.
    pub table: Option<Table>,
    /// The tasks that a recipe's models are measured on beside its own: one column a model, and the published ones.
    pub columns: Option<Table>,
    /// Courses over the steps.
    pub curves: Vec<Curve>,
    /// Questions with the answers before and after RL.
    pub examples: Vec<Example>,
    /// An RL run's rollouts.
    pub rollouts: Option<browser::Browser>,
    /// Settings and circumstances: label and value.
    pub facts: Vec<(String, String)>,
    /// The resolved config, as it stands in its file.
    pub config: String,
}

/// A measured model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// `base`, `sft`, `control` or `rl`.
    pub name: String,
    /// What it is, in a few words.
    pub note: String,
    /// Greedy accuracy.
    pub acc: Option<Estimate>,
    /// Accuracy at temperature 1.
    pub acc_t1: Option<Estimate>,
    /// Share of answers that keep the format.
    pub format: Option<f64>,
}

/// A paired difference of two models on the same questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// `RL minus control`, say.
    pub label: String,
    /// `greedy` or `temperature 1`.
    pub what: String,
    /// The difference, as a share.
    pub estimate: Estimate,
}

/// A table of texts; the first column names the row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Column heads.
    pub head: Vec<String>,
    /// Rows as long as the head.
    pub rows: Vec<Vec<String>>,
}

/// Something that was measured at each step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What, with its unit.
    pub title: String,
    /// One sentence for those who do not see the drawing, or do not know what to look for.
    pub caption: String,
    /// The axis is logarithmic where all values are positive.
    pub log: bool,
    /// One line each.
    pub series: Vec<Series>,
}

/// One line of a [`Curve`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Its name; `sft`, `control` and `rl` have their colours.
    pub name: String,
    /// Steps, ascending, with their values.
    pub points: Vec<(f64, f64)>,
}

/// A question and what the models answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The row's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// The right answer.
    pub target: String,
    /// The picture as a `data:` address.
    pub picture: Option<String>,
    /// Greedy answers before and after RL.
    pub greedy: Option<[Shown; 2]>,
    /// Answers at temperature 1 before and after RL.
    pub sampled: Option<[Shown; 2]>,
}

/// An answer as the browser shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What stands between the think tags; the whole response when the format is broken.
    pub think: String,
    /// What was taken as the answer.
    pub answer: String,
    /// The verdict.
    pub right: bool,
    /// The format is kept.
    pub format: bool,
    /// Tokens.
    pub length: usize,
}
