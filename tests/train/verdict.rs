//! The verdict on recorded log-probs, for rollouts of TRL, transformers and vLLM (`verdicts/differences.jsonl`, written by
//! `bench/peers/rollouts.py check --out`; a part of the files, with 3 to 5 digits).

use omr_base_tests::golden;
use omr_train::eval::verdict::{Row, Verdict, judge};
use serde_json::Value;

/// Faults that change the log-probs no more than bf16 rounds them. In float32 they are found.
const HIDDEN: [&str; 2] = ["step1e-06", "positions_swapped_1of16"];

fn row(value: &Value) -> Row {
    let numbers = |i: usize| value[i].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
    let add = |i: usize| numbers(1).zip(numbers(i)).map(|(exact, difference)| exact + difference).collect();
    let ids = value[0].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    Row { ids, recorded: add(2), exact: numbers(1).collect(), bf16: add(3) }
}

/// Returns the names of the files, true for clean ones, and their rows.
fn files() -> Vec<(String, bool, Vec<Row>)> {
    let text = std::fs::read_to_string(golden::dir().join("verdicts/differences.jsonl")).unwrap();
    let file = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let rows = value["rows"].as_array().unwrap().iter().map(row).collect();
        (value["name"].as_str().unwrap().to_owned(), value["clean"].as_bool().unwrap(), rows)
    };
    text.lines().map(file).collect()
}

fn verdict(rows: &[Row]) -> (Verdict, Vec<usize>) {
    let rows: Vec<&Row> = rows.iter().collect();
    judge(&rows, &rows)
}

#[test]
fn clean_rollouts_of_other_programs_are_never_called_wrong() {
    let (mut count, mut parts) = (0, 0);
    for (name, _, rows) in files().into_iter().filter(|(_, clean, _)| *clean) {
        let (found, far) = verdict(&rows);
        assert!(found.agrees() && far.is_empty(), "{name}: {found:?} {far:?}");
        assert_eq!(found == Verdict::Float32, name.contains("float32"), "{name}: {found:?}");
        // Fewer rows, as somebody else may have them.
        for part in rows.chunks(1).chain(rows.chunks(3)).chain(rows.chunks(8)) {
            let (found, _) = verdict(part);
            assert!(found.agrees(), "{name}, {} rows: {found:?}", part.len());
            parts += 1;
        }
        count += 1;
    }
    assert!(count >= 17 && parts > 300, "{count} files, {parts} parts");
}

#[test]
fn planted_faults_are_found_unless_they_are_smaller_than_rounding() {
    let mut count = 0;
    for (name, _, rows) in files().into_iter().filter(|(_, clean, _)| !*clean) {
        let (found, far) = verdict(&rows);
        let hidden = name.ends_with("bf16") && HIDDEN.iter().any(|fault| name.starts_with(fault));
        assert_eq!(found.agrees(), hidden, "{name}: {found:?} {far:?}");
        if name.contains("1of16") && !hidden {
            assert_eq!(far.len(), 1, "{name}: {far:?}");
        }
        count += 1;
    }
    assert!(count > 35, "{count} files");
}
