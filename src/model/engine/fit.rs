//! Chooses the size of the KV cache so that an engine fits into a device's memory.

use super::llm_engine::{Engine, EngineConfig};
use super::requests::EngineCoreRequest;
use crate::nn::Model;
use omr_base::error::Result;
use omr_runtime::device::{Device, Plan};
use omr_runtime::ops::attend::BLOCK;

impl EngineConfig {
    /// Counts the memory of what is allocated on the counting device `dev` and of an engine that answers `requests`.
    pub fn counted(self, model: &Model, dev: &mut Device, requests: &[EngineCoreRequest]) -> Result<Plan> {
        dev.reset_high_water();
        self.planned(model, dev, requests)?;
        Ok(dev.high_water())
    }

    /// Allocates and frees, on the counting device `dev`, what an engine that answers `requests` needs.
    pub fn planned(self, model: &Model, dev: &mut Device, requests: &[EngineCoreRequest]) -> Result<()> {
        let mut engine = Engine::new(model, dev, self)?;
        engine.plan(model, dev, requests)?;
        engine.release(dev);
        Ok(())
    }

    /// Counts as [`EngineConfig::counted`] does. Each region is at least as large as in `rest`. If the memory exceeds
    /// `budget`, the KV cache is made as large as the budget allows, but at least large enough for one sequence of full
    /// length. A smaller cache changes the time, not the answers. Returns the limits with this cache, and the memory,
    /// which may still exceed the budget.
    pub fn fitted(
        self,
        model: &Model,
        dev: &mut Device,
        requests: &[EngineCoreRequest],
        rest: &Plan,
        budget: Option<usize>,
    ) -> Result<(EngineConfig, Plan)> {
        let mut count = |config: EngineConfig| config.counted(model, dev, requests).map(|plan| rest.max(&plan));
        let at = |blocks| EngineConfig { num_kv_blocks: Some(blocks), ..self };
        let wanted = count(self)?;
        let (mut low, mut high) = (self.max_model_len.div_ceil(BLOCK), self.num_kv_blocks());
        let Some(budget) = budget.filter(|&budget| wanted.total() > budget && low < high) else {
            return Ok((self, wanted));
        };
        while low + 1 < high {
            let middle = low.midpoint(high);
            if count(at(middle))?.total() <= budget {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok((at(low), count(at(low))?))
    }
}
