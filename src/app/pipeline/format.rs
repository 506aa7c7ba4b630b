//! Stage `format`: converts rows in any supported format to one format.

use rayon::prelude::*;

use crate::config::FormatConfig;
use crate::data::answer::label;
use crate::data::{Form, Row, RowResult};
use crate::error::Result;
use crate::machine::Machine;
use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use crate::text::Message;

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
        pass(work, &mut |_, rows| Ok(rows.into_par_iter().map(|numbered| vec![self.fate(numbered.row)]).collect()))
    }
}

impl FormatConfig {
    fn fate(&self, mut row: Row) -> Fate {
        let sound: RowResult<()> = row.images.iter().try_for_each(|image| image.header(&row.place).map(drop));
        if let Err(bad) = sound {
            return Fate::Bad(bad);
        }
        if self.stage.form.of(&row) == Form::Rl {
            let Some(label) = label(&row) else {
                return Fate::Rejected(Rejection::row("no_label", "neither a ground truth nor an answer"));
            };
            let asked = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
            row.messages.truncate(asked);
            row.ground_truth = Some(label);
        }
        if let Some(system) = &self.system_prompt {
            row.messages.retain(|m| m.role != "system");
            if !system.is_empty() {
                row.messages.insert(0, Message::text("system", system));
            }
        }
        Fate::Kept(row)
    }
}
