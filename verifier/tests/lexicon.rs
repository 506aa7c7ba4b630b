//! Checks the tables of `src/lexicon`: they are sorted and small, and every form is in only one row of its kind.

use std::collections::HashMap;
use std::path::Path;

/// Returns the kind, the canonical cell and the forms of each row of a table.
fn rows(table: &str) -> Vec<(String, String, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lexicon").join(table);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        let (kind, canonical) = (cells.next().unwrap(), cells.next().unwrap_or_else(|| panic!("{table}: {line:?}")));
        let forms = cells.next_back().unwrap_or_default();
        (kind, canonical, forms.split('|').filter(|f| !f.is_empty()).map(str::to_owned).collect())
    };
    text.lines().map(row).collect()
}

const TABLES: [&str; 4] = ["notation.tsv", "phrases.tsv", "units.tsv", "words.tsv"];

#[test]
fn rows_are_sorted_and_few() {
    let mut all = 0;
    for table in TABLES {
        let rows = rows(table);
        all += rows.len();
        for pair in rows.windows(2) {
            let (a, b) = ((&pair[0].0, &pair[0].1), (&pair[1].0, &pair[1].1));
            assert!(a < b, "{table}: {a:?} before {b:?}");
        }
    }
    assert!((500..=1_000).contains(&all), "{all} rows");
}

#[test]
fn no_form_stands_twice_in_a_kind() {
    let mut seen: HashMap<(String, String), String> = HashMap::new();
    for table in TABLES.into_iter().filter(|t| *t != "units.tsv") {
        for (kind, canonical, forms) in rows(table) {
            for form in forms.into_iter().filter(|f| *f != canonical) {
                let told_by_case = matches!(
                    kind.as_str(),
                    "command"
                        | "face"
                        | "function"
                        | "greek"
                        | "hidden"
                        | "lowered"
                        | "prefix sign"
                        | "raised"
                        | "sign"
                        | "unit sign"
                        | "unsaid"
                );
                let form = if told_by_case { form } else { form.to_lowercase() };
                if let Some(other) = seen.insert((kind.clone(), form.clone()), canonical.clone()) {
                    panic!("{kind}: {form:?} stands in {other:?} and in {canonical:?}");
                }
            }
        }
    }
    assert!(seen.len() > 500);
}
