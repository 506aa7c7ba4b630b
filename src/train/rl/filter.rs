//! Dynamic sampling (DAPO's `filter_groups`): a group whose scores are all the same, or that has fewer than two, gives no
//! gradient. Such groups are replaced by generating more.

use omr_base::config::RlConfig;
use omr_base::error::{Error, Result};

/// Returns true if a group is kept: its metric varies, or it has only one response. A response without a score has no
/// metric.
pub fn keeps(metric: &[Option<f64>]) -> bool {
    let scored: Vec<f64> = metric.iter().copied().flatten().collect();
    (metric.len() == 1 && scored.len() == 1) || scored.iter().any(|m| *m != scored[0])
}

/// Returns true if the `kept` groups of `num_gen_batches` generation batches suffice for `step`. Errors if they do not
/// and no further batch may be generated. `missing` describes what is missing besides the number.
pub fn is_complete(
    config: &RlConfig,
    step: u64,
    kept: usize,
    num_gen_batches: usize,
    missing: impl Fn() -> String,
) -> Result<bool> {
    let (wanted, most) = (config.train_batch_size, config.filter_groups.max_num_gen_batches);
    if kept < wanted && most > 0 && num_gen_batches >= most {
        let found = format!("{kept} prompts with differing rewards{}", missing());
        let expected = format!("{wanted} of them within {num_gen_batches} batches");
        let place = format!("filter_groups, step {step}");
        return Err(Error::input_hint(place, found, expected, "raise filter_groups.max_num_gen_batches"));
    }
    Ok(kept >= wanted)
}
