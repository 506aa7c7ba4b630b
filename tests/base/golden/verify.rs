//! Tests pairs of a gold answer and an answer with the correct verdict and the published library's verdict
//! (`goldens/verify`).

use std::collections::BTreeMap;

use omr_verify::{Mode, UNEVALUATED, verify};
use serde_json::Value;

/// Number of cases, of correct verdicts, of wrongly accepted and wrongly refused answers, and of equal answers that are
/// refused as calculations. The last ones are not among the cases.
#[derive(Clone, Copy, Default)]
struct Tally {
    cases: usize,
    right: usize,
    accepted: usize,
    refused: usize,
    unevaluated: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.cases += other.cases;
        self.right += other.right;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unevaluated += other.unevaluated;
    }

    fn share(&self) -> f64 {
        self.right as f64 / self.cases.max(1) as f64
    }
}

/// Compares verdicts on a file's cases with the labels under `key`, by category. Null labels are left out. Prints the
/// table.
fn tallies(name: &str, mode: Mode, key: &str) -> (BTreeMap<String, Tally>, Tally) {
    let path = super::dir().join("verify").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut by_category: BTreeMap<String, Tally> = BTreeMap::new();
    let mut cases = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        cases += 1;
        let Some(want) = case[key].as_bool() else { continue };
        let (gold, answer) = (case["gold"].as_str().unwrap(), case["answer"].as_str().unwrap());
        let verdict = verify(gold, answer, mode);
        let got = verdict.equal;
        // The labels state which values are equal. Strict mode also wants a number if the gold answer is one.
        let unevaluated = want && verdict.why == UNEVALUATED;
        if got != want && !unevaluated {
            println!("{} {mode:?}: {gold:?} and {answer:?}: {got}, {}", case["id"], verdict.why);
        }
        by_category.entry(case["category"].as_str().unwrap().to_owned()).or_default().add(Tally {
            cases: usize::from(!unevaluated),
            right: usize::from(got == want),
            accepted: usize::from(got && !want),
            refused: usize::from(!got && want && !unevaluated),
            unevaluated: usize::from(unevaluated),
        });
    }
    let mut all = Tally::default();
    by_category.values().for_each(|t| all.add(*t));
    println!(
        "{:20} {:>5} {:>7} {:>14} {:>13}",
        format!("{mode:?} {key}"),
        "cases",
        "right",
        "wrong accepts",
        "wrong refusals"
    );
    for (category, t) in by_category.iter().map(|(c, t)| (c.as_str(), t)).chain([("all", &all)]) {
        println!("{category:20} {:>5} {:>7.4} {:>14} {:>13}", t.cases, t.share(), t.accepted, t.refused);
    }
    super::report(&format!("verify {name} {mode:?}"), cases);
    (by_category, all)
}

#[test]
fn strict_follows_the_truth() {
    let (by_category, all) = tallies("cases.jsonl", Mode::Strict, "truth");
    assert!(all.share() >= 0.995, "{:.4} right", all.share());
    assert_eq!(all.accepted, 0, "wrongly accepted");
    // Sums and products of numbers, differences in absolute values and factorials, logarithms, angle functions, and
    // series, each for a whole number.
    assert_eq!(all.unevaluated, 74, "calculations");
    for (category, t) in by_category {
        assert!(t.share() >= 0.9, "{category}: {:.3} right", t.share());
    }
}

#[test]
fn strict_follows_the_truth_of_symbolic_forms() {
    let (_, all) = tallies("symbolic.jsonl", Mode::Strict, "truth");
    assert!(all.share() >= 0.995, "{:.4} right", all.share());
    assert_eq!(all.unevaluated, 1, "a limit for the number 5");
}

#[test]
fn compat_agrees_with_the_published_library() {
    let (_, all) = tallies("cases.jsonl", Mode::Compat, "equal");
    assert!(all.share() >= 0.98, "{:.4} right", all.share());
}
