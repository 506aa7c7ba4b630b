//! The order of a recipe's stages.

use std::time::Instant;

use super::job::{MEASURED, Recipe};
use crate::error::Result;
use crate::files::{self, Lock};
use crate::ranks::{self, Ranks};
use crate::report;

impl Recipe<'_> {
    /// Does what is left, stage by stage, and writes `summary.json` and `report.html`. `ranks` train and answer together; what is
    /// one process's work rank 0 does, the data among it.
    pub fn run(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let (begun, leads) = (Instant::now(), ranks.rank() == 0);
        // Each stage's folder, from its start to the end of the recipe: no other command works in it.
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
