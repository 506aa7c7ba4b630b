//! Chooses the size of the KV cache so that an engine fits into a device's memory.

use super::llm_engine::{Engine, EngineConfig, Request};
use crate::device::{Device, Plan};
use crate::error::Result;
use crate::model::Model;
use crate::ops::attend::BLOCK;

impl EngineConfig {
    /// Counts the memory of `model`, which is already allocated on the counting device `dev`, and of an engine that
    /// answers `requests`. If it exceeds `budget`, the KV cache is made as large as the budget allows, but at least
    /// large enough for one sequence of full length. A smaller cache changes the time, not the answers. Returns the
    /// limits with this cache, and the memory, which may still exceed the budget.
    pub fn fitted(
        self,
        model: &Model,
        dev: &mut Device,
        requests: &[Request],
        budget: Option<usize>,
    ) -> Result<(EngineConfig, Plan)> {
        let mut count = |config: EngineConfig| -> Result<Plan> {
            dev.reset_high_water();
            let mut engine = Engine::new(model, dev, config)?;
            engine.plan(model, dev, requests)?;
            engine.release(dev);
            Ok(dev.high_water())
        };
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
