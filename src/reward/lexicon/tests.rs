use std::collections::HashMap;

use super::*;

#[test]
fn rows_are_sorted_and_none_stands_twice() {
    let mut seen = HashMap::new();
    for (file, table) in TABLES.into_iter().chain([("units.tsv", unit::TABLE)]) {
        let keys: Vec<(&str, &str)> = table
            .lines()
            .map(|line| {
                let mut cells = line.split('\t');
                (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
            })
            .collect();
        for pair in keys.windows(2) {
            assert!(pair[0] < pair[1], "{file}: {:?} before {:?}", pair[0], pair[1]);
        }
    }
    for (kind, canonical, forms) in lines() {
        let own = (kind.names_itself() || forms.is_empty()).then_some(canonical);
        for form in own.into_iter().chain(split(forms)) {
            let key = (kind as usize, kind.key(form).into_owned());
            if let Some(other) = seen.insert(key, canonical) {
                panic!("{kind:?}: {form:?} stands in {other:?} and in {canonical:?}");
            }
        }
    }
}

#[test]
fn every_row_has_a_kind_and_all_tables_are_small() {
    let rows: usize = TABLES.iter().map(|(_, t)| t.lines().count()).sum();
    assert_eq!(lines().count(), rows);
    assert!(rows + unit::TABLE.lines().count() <= 3_000);
    for (n, (name, kind)) in KINDS.into_iter().enumerate() {
        assert_eq!(kind as usize, n, "{name}");
        assert!(lines().any(|r| r.0 == kind), "{name} has no row");
    }
}

#[test]
fn values_of_rows_are_numbers() {
    for kind in [Kind::Cardinal, Kind::Ordinal, Kind::Fraction, Kind::Scale] {
        for (canonical, forms) in rows(kind) {
            assert!(forms.iter().all(|f| number_word(f).is_some()), "{canonical}");
        }
    }
    assert!(rows(Kind::Month).iter().all(|(n, _)| n.parse::<u8>().is_ok_and(|n| (1..=12).contains(&n))));
    assert!(rows(Kind::Weekday).iter().all(|(n, _)| n.parse::<u8>().is_ok_and(|n| (1..=7).contains(&n))));
    assert!(rows(Kind::Heading).iter().all(|(n, _)| n.parse::<f64>().is_ok_and(|n| (0.0..360.0).contains(&n))));
}

#[test]
fn words_are_found_in_any_case_and_with_any_hyphen() {
    assert_eq!(synonym("One-to-One"), Some("one to one"));
    assert_eq!(synonym("D.N.E."), Some("does not exist"));
    assert_eq!(currency("US$"), Some("dollar"));
    assert_eq!(currency("Rupees"), Some("rupee"));
    assert_eq!((month("Sept."), month("ao\u{fb}t"), month("monday")), (Some(9), Some(8), None));
    assert_eq!((greek("\u{3a9}"), greek("\u{3c9}"), greek("Varphi")), (Some("Omega"), Some("omega"), None));
    assert_eq!(heading("South-West"), Some(225.0));
    assert_eq!(number_word("Dozen"), Some(NumberWord::Scale(12.into())));
    assert_eq!(number_word("thirds"), Some(NumberWord::Part(3)));
    assert!(is(Kind::Denial, "Isn\u{2019}t") && is(Kind::Denial, "isnt") && !is(Kind::Denial, "is"));
}

#[test]
fn signs_keep_their_meaning() {
    // A sign with a stroke through it decomposes into the sign.
    assert_ne!(synonym("not equal to"), synonym("equal to"));
    assert_ne!(synonym("\u{2260}"), synonym("="));
    assert_eq!(folded("-"), "-");
}

#[test]
fn the_longest_phrase_leads() {
    assert_eq!(behind(Kind::Joint, "Which means that x = 3"), Some("x = 3"));
    assert_eq!(behind(Kind::Joint, "Thus, 14"), Some("14"));
    assert_eq!(behind(Kind::Joint, "i.e., 14"), Some("14"));
    assert_eq!(behind(Kind::Joint, "Sophie has 3"), None);
    assert_eq!(behind(Kind::Marker, "\u{7b54}\u{6848}\u{662f}5"), Some("5"));
    let text = "So it is 5, and therefore not 6";
    let found: Vec<&str> = find(Kind::Joint, text).into_iter().map(|r| &text[r]).collect();
    assert_eq!(found, ["So", "and therefore"]);
    let found: Vec<&str> = find(Kind::Denial, text).into_iter().map(|r| &text[r]).collect();
    assert_eq!(found, ["not"]);
}
