//! Published scores in percent. Most are from the results table of OpenMMReasoner's README. Those of its cold start, of
//! Qwen2.5-VL-7B and of the tasks without images are from tables 6 and 8 of its paper (arXiv 2511.16334).

/// Table with a row per model and a column per task. A dash marks a score that was not published.
const TABLE: &str = include_str!("published.tsv");

/// Model whose scores are `published_omr_7b` in a summary.
pub const OURS: &str = "OMR-7B";

/// Returns the published scores of a task as shares, with the names of the models. OpenMMReasoner's own score comes
/// first.
pub fn of(task: &str) -> Vec<(&'static str, f64)> {
    let mut lines = TABLE.lines().map(|line| line.split('\t'));
    let Some(column) = lines.next().and_then(|mut heads| heads.position(|head| head == task)) else {
        return Vec::new();
    };
    let score = |mut cells: std::str::Split<'static, char>| {
        let model = cells.next()?;
        let percent: f64 = cells.nth(column - 1)?.parse().ok()?;
        Some((model, percent / 100.0))
    };
    lines.filter_map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TASKS;

    #[test]
    fn every_column_is_a_task_and_every_cell_a_share() {
        let mut lines = TABLE.lines();
        let heads: Vec<&str> = lines.next().unwrap().split('\t').skip(1).collect();
        assert!(heads.iter().all(|head| TASKS.iter().any(|task| task.name == *head && task.published.is_some())));
        for line in lines {
            let cells: Vec<&str> = line.split('\t').skip(1).collect();
            assert_eq!(cells.len(), heads.len(), "{line}");
            let share = |cell: &&str| *cell == "-" || cell.parse::<f64>().is_ok_and(|x| (0.0..=100.0).contains(&x));
            assert!(cells.iter().all(share), "{line}");
        }
        for task in TASKS.iter().filter(|task| task.published.is_some()) {
            assert_eq!(of(task.name)[0].0, OURS, "{}", task.name);
        }
        // Checks a column whose position differs: on the project's page the columns are shifted by one, and the table
        // follows the README.
        assert_eq!(of("wemath_testmini_thinking")[0].1, 0.79);
        // The paper's gain of 11.6 points is the mean of the twelve tasks with images.
        let with_images = |task: &&&str| !["gpqa", "aime"].iter().any(|text| task.starts_with(text));
        let images: Vec<&str> = heads.iter().filter(with_images).copied().collect();
        let mean = |model| {
            let of = |task: &&str| of(task).into_iter().find(|(name, _)| *name == model).unwrap().1;
            images.iter().map(of).sum::<f64>() / images.len() as f64
        };
        assert_eq!((images.len(), ((mean(OURS) - mean("Qwen2.5-VL-7B")) * 1000.0).round()), (12, 116.0));
        let cold = |task| of(task).into_iter().find(|(model, _)| *model == "OMR-7B-ColdStart").unwrap().1;
        assert_eq!(cold("charxiv_val_descriptive_cot"), 76.1 / 100.0);
    }
}
