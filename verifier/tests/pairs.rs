//! Tests pairs of answers in many notations, with the expected verdict, from `pairs.tsv`. The pairs are grouped by
//! kind.

use omr_verify::{Mode, verify};

#[test]
fn strict_tells_what_is_equal_from_what_is_not() {
    let table = include_str!("pairs.tsv");
    let (mut kind, mut wrong, mut cases) = ("", Vec::new(), 0);
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            kind = name;
            continue;
        }
        let [want, gold, answer] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}: three columns") };
        assert!(matches!(want, "equal" | "different"), "{line:?}");
        let verdict = verify(gold, answer, Mode::Strict);
        if verdict.equal != (want == "equal") {
            wrong.push(format!("{kind}: {gold:?} and {answer:?} are {want}: {}", verdict.why));
        }
        cases += 1;
    }
    assert!(wrong.is_empty() && cases > 300, "{cases} pairs\n{}", wrong.join("\n"));
}
