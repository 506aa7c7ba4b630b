//! Tests the division by the number of query heads of a group that kernels of attention do by a multiplication.

use omr_runtime::ops::attention::launch_bwd::{MOST_HEADS, OWNED, inverse};

#[test]
fn quotients_are_exact() {
    for group in (1..200).chain([1000, 1001, MOST_HEADS - 1, MOST_HEADS]) {
        let x = u64::from(inverse(group));
        for n in 0..group + OWNED {
            assert_eq!((n as u64 * x) >> 31, (n / group) as u64, "{n} / {group}");
        }
    }
}
