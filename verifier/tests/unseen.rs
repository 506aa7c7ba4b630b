//! Tests pairs that were written before the verifier was tried on their notation (`tests/data`), and checks the current
//! results. The README beside the files has the results of the first run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use omr_verify::{Mode, verify};
use serde_json::Value;

/// The lists, and the minimum share of right verdicts in each, which is about the current share.
const HELD: [(&str, f64); 4] =
    [("unseen-23.jsonl", 0.88), ("unseen-26.jsonl", 0.72), ("unseen-28.jsonl", 0.85), ("unseen-29.jsonl", 0.88)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn equal(gold: &str, answer: &str) -> bool {
    verify(gold, answer, Mode::Strict).equal
}

/// Compares every right answer with the other gold answers of its category. Returns the number of such pairs and the
/// number of them that are accepted. `answer` is the key of the answers.
fn crossed(rows: &[Value], answer: &str) -> (usize, usize) {
    let (mut crossed, mut accepted) = (0, 0);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    for row in rows.iter().filter(|r| r["truth"] == true) {
        let (gold, answer) = (text(row, "gold"), text(row, answer));
        for other in rows.iter().filter(|o| o["category"] == row["category"] && o["gold"] != row["gold"]) {
            let other = text(other, "gold");
            crossed += 1;
            if equal(&other, &answer) && !equal(&other, &gold) && !equal(&gold, &other) {
                println!("{}: {other} and {answer}", row["category"]);
                accepted += 1;
            }
        }
    }
    (accepted, crossed)
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let mut counts = vec![crossed(&rows(&folder().join("../../../tests/goldens/verify/cases.jsonl")), "answer")];
    counts.extend(HELD.iter().map(|h| crossed(&rows(&folder().join(h.0)), "prediction")));
    let (accepted, crossed) = counts.iter().fold((0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1));
    println!("{accepted} of {crossed} accepted");
    assert!(crossed > 50_000 && accepted <= 10, "{accepted} of {crossed}");
}

#[test]
fn strict_reads_notations_that_were_new_to_it() {
    for (name, held) in HELD {
        let (mut right, mut cases, mut accepted) = (0, 0, 0);
        let mut by_category: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for pair in rows(&folder().join(name)) {
            let text = |key: &str| pair[key].as_str().unwrap();
            let verdict = verify(text("gold"), text("prediction"), Mode::Strict);
            let as_wanted = verdict.equal == pair["truth"].as_bool().unwrap();
            if !as_wanted {
                println!("{name} {}: {} and {}: {}", pair["category"], pair["gold"], pair["prediction"], verdict.why);
                accepted += usize::from(verdict.equal);
            }
            let tally = by_category.entry(text("category").to_owned()).or_default();
            (tally.0, tally.1) = (tally.0 + usize::from(as_wanted), tally.1 + 1);
            (right, cases) = (right + usize::from(as_wanted), cases + 1);
        }
        for (category, (right, cases)) in by_category {
            println!("{name} {category:32} {right:>3} of {cases:>3}");
        }
        let share = right as f64 / cases as f64;
        println!("{name}: {right} of {cases} right, {share:.4}, {accepted} wrongly accepted");
        assert!(
            cases >= 250 && share >= held && accepted == 0,
            "{name}: {share:.4} right of {cases}, {accepted} accepted"
        );
    }
}
