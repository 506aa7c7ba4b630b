//! `report.html`: one file, readable without a network, that shows the results of a run.
//!
//! [`report`] builds a [`RecipeReport`] from run directories, and [`page`] converts it to a page. The page contains its
//! data as JSON. Bars and text are part of the markup and need no scripts. `page.js` draws the curves. [`browser`] shows
//! rows of any kind, such as rollouts and examples.

#![forbid(unsafe_code)]

pub mod browser;
mod comparison;
mod evaluation;

mod html;
pub mod inspect;
pub mod model_card;
pub mod preview;
mod read;
mod rescore;
mod rollouts;
mod run;
mod step;
#[cfg(test)]
mod tests;
mod watch;

use serde::{Deserialize, Serialize};

use omr_train::eval::stats::Estimate;

pub use comparison::comparison;
pub use evaluation::{is_evaluation, keep as keep_images, page as evaluation};
pub use html::page;
pub use read::report;
pub use rescore::page as rescore;
pub use run::judges;
pub use step::StepImage;
pub use watch::{Watched, is_awaited};

/// Contents of a page. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecipeReport {
    /// Heading.
    pub title: String,
    /// Result in one sentence.
    pub headline: String,
    /// Notes needed to judge the result, such as what the base model is and what was filtered.
    pub remarks: Vec<String>,
    /// Numbers in large type: label and value.
    pub tiles: Vec<(String, String)>,
    /// Evaluated models, in the order of the recipe.
    pub stages: Vec<Stage>,
    /// Paired differences.
    pub contrasts: Vec<Contrast>,
    /// Accuracy by kind of question, with a column per model, if the questions have kinds.
    pub kinds: Option<Table>,
    /// Table of the keys of the config that differ between the compared runs, with one column per run.
    pub keys: Option<Table>,
    /// Table with one column per run, if several runs are compared.
    pub table: Option<Table>,
    /// Table of the additional tasks on which a recipe's models are evaluated. It has one column per model of the
    /// recipe and one per published model.
    pub columns: Option<Table>,
    /// Image of a step, if the run recorded the spans of its steps.
    pub step: Option<StepImage>,
    /// Charts over the steps.
    pub curves: Vec<Curve>,
    /// Metrics without a chart, because they never change, with their values.
    pub constant: Vec<String>,
    /// Questions with the answers before and after RL.
    pub examples: Option<browser::Browser>,
    /// Rollouts of an RL run.
    pub rollouts: Option<browser::Browser>,
    /// Settings and environment: label and value.
    pub facts: Vec<(String, String)>,
    /// Resolved config, as in its file.
    pub config: String,
    /// Time of the last step in seconds since 1970, if there is one.
    pub changed: Option<f64>,
}

/// An evaluated model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// `base`, `sft`, `control` or `rl`.
    pub name: String,
    /// Short description of the model.
    pub note: String,
    /// Greedy accuracy.
    pub acc: Option<Estimate>,
    /// Accuracy at temperature 1.
    pub acc_t1: Option<Estimate>,
    /// Share of answers with a correct format.
    pub format: f64,
}

/// Paired difference of two models on the same questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// Name of the comparison, such as `RL minus control`.
    pub label: String,
    /// `greedy` or `temperature 1`.
    pub what: String,
    /// Difference, as a share.
    pub estimate: Estimate,
}

/// A table of texts. The first column names the row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Column heads.
    pub head: Vec<String>,
    /// Rows with as many cells as the head.
    pub rows: Vec<Vec<String>>,
}

/// A metric over the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Name of the metric, with its unit.
    pub title: String,
    /// One sentence for readers who cannot see the chart or do not know what to look for.
    pub caption: String,
    /// True if the axis should be logarithmic. The page still uses a linear axis if a value is not positive or if the
    /// values span less than a factor of 4.
    pub log: bool,
    /// True if the chart is shown only on request.
    pub folded: bool,
    /// Lines of the chart.
    pub series: Vec<Series>,
}

/// One line of a [`Curve`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name of the line. `sft`, `control` and `rl` have fixed colours.
    pub name: String,
    /// Steps, ascending, with their values, and the seconds from the first step of the run to each.
    pub points: Vec<(f64, f64, f64)>,
}
