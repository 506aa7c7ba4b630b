//! Compares `compat` with the verdicts of the published library on generated pairs (`tests/data/compat-*.jsonl`). The
//! README beside the files describes their origin and the results of the first runs.

use std::collections::BTreeMap;
use std::path::Path;

use omr_verify::{Mode, verify};
use serde_json::Value;

#[test]
fn compat_gives_the_published_verdicts_on_pairs_it_was_not_made_from() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = (1..=6).map(|n| dir.join(format!("compat-{n}.jsonl")));
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (mut right, mut cases, mut equal) = (0, 0, 0);
        let mut by_category: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let pair: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| pair[key].as_str().unwrap();
            let want = pair["equal"].as_bool().unwrap();
            let verdict = verify(text("gold"), text("prediction"), Mode::Compat);
            if verdict.equal != want {
                println!("{name} {}: {} and {}: {}", pair["category"], pair["gold"], pair["prediction"], verdict.why);
            }
            let tally = by_category.entry(text("category").to_owned()).or_default();
            (tally.0, tally.1) = (tally.0 + usize::from(verdict.equal == want), tally.1 + 1);
            (right, cases) = (right + usize::from(verdict.equal == want), cases + 1);
            equal += usize::from(want);
        }
        for (category, (right, cases)) in by_category {
            println!("{name} {category:32} {right:>3} of {cases:>3}");
        }
        let share = right as f64 / cases as f64;
        println!("{name}: {right} of {cases} agree, {share:.4}");
        // A verdict that is always the same would agree by chance.
        assert!(equal * 4 >= cases && equal * 4 <= cases * 3, "{name}: {equal} of {cases} are equal");
        assert!(cases >= 500 && share >= 0.98, "{name}: {share:.4} agree of {cases}");
    }
}
