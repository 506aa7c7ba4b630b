//! Orders prompts by the average reward that a model achieved on them.

use std::sync::Arc;

use omr_base::config::Curriculum;
use omr_base::error::{Error, Result};
use omr_data::rows::{Dataset, Row};

/// Returns the indices of the samples of `data` in the order of `curriculum`, or `None` if no curriculum is set.
/// Samples with equal average rewards keep the order of the data. Reads every row once. Returns an error if a row has
/// no average reward.
pub fn order(curriculum: Curriculum, data: &Dataset) -> Result<Option<Arc<[usize]>>> {
    if curriculum == Curriculum::Off {
        return Ok(None);
    }
    let rates = data.each(rate)?.into_iter().enumerate().map(|(i, rate)| {
        rate.ok_or_else(|| {
            let expected = "avg_reward or extra_info.avg_reward or pass_rate, which `omr data passrate` writes";
            Error::input(data.place(i), "a row without an average reward", expected)
        })
    });
    let rates: Vec<f64> = rates.collect::<Result<_>>()?;
    let mut order: Vec<usize> = (0..rates.len()).collect();
    match curriculum {
        Curriculum::HardFirst => order.sort_by(|&a, &b| rates[a].total_cmp(&rates[b])),
        _ => order.sort_by(|&a, &b| rates[b].total_cmp(&rates[a])),
    }
    Ok(Some(order.into()))
}

fn rate(row: &Row) -> Option<f64> {
    ["avg_reward", "pass_rate"].iter().find_map(|key| row.extra.get(*key)?.as_f64())
}
