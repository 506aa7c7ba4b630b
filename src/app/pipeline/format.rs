//! Stage `format`: converts rows in any supported format to one format.

use rayon::prelude::*;

use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::config::FormatConfig;
use omr_base::error::Result;
use omr_data::rows::forms::answer::label;
use omr_data::rows::write::form_of;
use omr_data::rows::{Form, Row, RowResult};
use omr_data::text::Message;
use omr_runtime::machine::Machine;

impl Stage for FormatConfig {
    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        Ok(Box::new(self))
    }
}

impl StageJob for &FormatConfig {
    fn describe(&self) -> String {
        format!("columns {}, images {}", self.stage.form.name(), self.stage.images.name())
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        pass(work, &mut |_, rows| Ok(rows.into_par_iter().map(|numbered| vec![fate(self, numbered.row)]).collect()))
    }
}

/// Returns the converted row, or why it is left out.
fn fate(config: &FormatConfig, mut row: Row) -> Fate {
    let sound: RowResult<()> = row.images.iter().try_for_each(|image| image.header(&row.place).map(drop));
    if let Err(bad) = sound {
        return Fate::Bad(bad);
    }
    if form_of(config.stage.form, &row) == Form::Rl {
        let Some(label) = label(&row) else {
            return Fate::Rejected(Rejection::row("no_label", "neither a ground truth nor an answer"));
        };
        let asked = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
        row.messages.truncate(asked);
        row.ground_truth = Some(label);
    }
    if let Some(system) = &config.system_prompt {
        row.messages.retain(|m| m.role != "system");
        if !system.is_empty() {
            row.messages.insert(0, Message::text("system", system));
        }
    }
    Fate::Kept(row)
}
