//! Runs the stages of a recipe in order.

use std::time::Instant;

use super::job::{MEASURED, Recipe};
use crate::report;
use omr_base::error::Result;
use omr_base::files::{self, Lock};
use omr_runtime::ranks::{self, Ranks};

impl Recipe<'_> {
    /// Runs the remaining stages one after another and writes `summary.json` and `report.html`. All `ranks` take part
    /// in training and in generating answers. Rank 0 does everything else, including the data stage.
    pub fn run(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let (begun, leads) = (Instant::now(), ranks.rank() == 0);
        // Locks on the stages' folders, from their start to the end of the recipe, so that no other command works in
        // them.
        let mut locks = Vec::new();
        let mut claim = |stage: &str| -> Result<()> {
            locks.extend(leads.then(|| Lock::take(&self.path(stage), "")).transpose()?);
            Ok(())
        };
        claim("base")?;
        ranks::by_first(ranks, "the base model", || self.base())?;
        claim("data")?;
        claim("data/distill")?;
        ranks::by_first(ranks, "the data", || self.data())?;
        claim("sft")?;
        self.sft(ranks)?;
        if self.config.control.enable {
            claim("control")?;
            self.control(ranks)?;
        }
        claim("rl")?;
        self.rl(ranks)?;
        for stage in MEASURED {
            if stage != "control" || self.config.control.enable {
                claim(&format!("eval/{stage}"))?;
                self.measure(stage, ranks)?;
            }
        }
        ranks::by_first(ranks, "the report", || {
            self.write_examples(&self.heldout())?;
            self.summarise(begun.elapsed().as_secs_f64())?;
            let report = report::report(&self.dir)?;
            files::write(self.page(), report::page(&report)?.as_bytes())?;
            self.machine.observer.note(&report.headline);
            Ok(())
        })
    }
}
