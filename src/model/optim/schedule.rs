//! Learning-rate schedules: linear warm-up, then constant, linear or cosine, as in transformers and verl.

use omr_base::config::{LrSchedulerType, OptimConfig};

/// Returns the learning rate of the update after `done` updates. There are `total_steps` updates in all, of which the
/// first `warmup_steps` are the warm-up.
///
/// The warm-up rises to the peak from `init_lr_ratio` times the peak. (The first update of a warm-up from 0 has rate 0,
/// as in transformers.) Then the rate falls to `min_lr_ratio` times the peak at `total_steps` and stays there.
pub fn learning_rate(config: &OptimConfig, warmup_steps: u64, done: u64, total_steps: u64) -> f64 {
    let above = |start: f64, part: f64| config.learning_rate * (start + (1.0 - start) * part);
    let is_constant = config.lr_scheduler_type == LrSchedulerType::Constant;
    let floor = config.min_lr_ratio;
    if done < warmup_steps {
        let start = config.init_lr_ratio.unwrap_or(if is_constant { 0.0 } else { floor });
        return above(start, done as f64 / warmup_steps as f64);
    }
    let length = total_steps.saturating_sub(warmup_steps).max(1) as f64;
    let progress = ((done - warmup_steps) as f64 / length).min(1.0);
    match config.lr_scheduler_type {
        LrSchedulerType::Constant => config.learning_rate,
        LrSchedulerType::Linear => above(floor, 1.0 - progress),
        LrSchedulerType::Cosine => above(floor, 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: LrSchedulerType, warmup: u64, min_lr_ratio: f64, total: u64, at: &[u64]) -> Vec<f64> {
        let config =
            OptimConfig { learning_rate: 2.0, lr_scheduler_type: kind, min_lr_ratio, ..OptimConfig::default() };
        at.iter().map(|&done| (learning_rate(&config, warmup, done, total) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn follows_the_formulas() {
        use LrSchedulerType::{Constant, Cosine, Linear};
        assert_eq!(rates(Constant, 4, 0.0, 10, &[0, 1, 4, 9, 99]), [0.0, 0.5, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Linear, 2, 0.0, 10, &[0, 1, 2, 6, 10, 11]), [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]);
        assert_eq!(rates(Cosine, 0, 0.0, 8, &[0, 2, 4, 8]), [2.0, 1.707107, 1.0, 0.0]);
        // transformers 5.17, get_cosine_with_min_lr_schedule_with_warmup(min_lr_rate=0.5).
        assert_eq!(rates(Cosine, 2, 0.5, 4, &[0, 1, 2, 3, 4]), [0.0, 1.0, 2.0, 1.5, 1.0]);
        assert_eq!(rates(Linear, 0, 0.0, 0, &[0, 1]), [2.0, 0.0]);
    }

    #[test]
    fn warm_up_starts_at_init_lr_ratio() {
        let first = |lr_scheduler_type, init_lr_ratio| {
            let config = OptimConfig {
                learning_rate: 2.0,
                lr_scheduler_type,
                min_lr_ratio: 0.5,
                init_lr_ratio,
                ..OptimConfig::default()
            };
            [0, 1].map(|done| learning_rate(&config, 2, done, 4))
        };
        assert_eq!(first(LrSchedulerType::Cosine, None), [1.0, 1.5]);
        assert_eq!(first(LrSchedulerType::Constant, None), [0.0, 1.0]);
        assert_eq!(first(LrSchedulerType::Linear, Some(0.25)), [0.5, 1.25]);
    }
}
