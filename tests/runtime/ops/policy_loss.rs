//! Tests the layout of the statistics of policy losses.

use omr_runtime::device::images::OWN;
use omr_runtime::ops::policy_loss::{STATS, Stat};

#[test]
fn the_layout_is_the_kernels() {
    let (_, text) = OWN.sources.iter().find(|(path, _)| *path == "policy_loss.cu").unwrap();
    let body = text.split("enum Stat {").nth(1).unwrap().split('}').next().unwrap();
    let names: Vec<&str> = body.split(',').map(str::trim).filter(|n| *n != "MAXIMA").collect();
    let screaming = |stat: String| {
        let parts = stat.char_indices().map(|(i, c)| match c.is_uppercase() && i > 0 {
            true => format!("_{c}"),
            false => c.to_ascii_uppercase().to_string(),
        });
        parts.collect::<String>()
    };
    let last = Stat::MinusFirstDifferent;
    assert_eq!((names.len(), last as usize + 1, names[STATS]), (STATS + 1, STATS, "STATS"));
    assert_eq!(names[last as usize], screaming(format!("{last:?}")));
    assert_eq!(names[Stat::MAXIMA], "MINUS_RATIO = MAXIMA");
    for stat in [Stat::PgLoss, Stat::PpoKl, Stat::ProbDiffSquared, Stat::OldProbSquared, Stat::ProbProduct] {
        assert_eq!(names[stat as usize], screaming(format!("{stat:?}")));
    }
}
