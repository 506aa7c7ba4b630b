//! Tests that packing is a pure function of (seed, lengths, samples consumed).

use omr_data::rows::samples::packing::{Pack, PackPlan, order};
use proptest::prelude::*;

fn packs(plan: &mut PackPlan, lengths: &[usize], from: u64) -> Vec<Pack> {
    let mut consumed = from;
    std::iter::from_fn(|| {
        let pack = plan.next(consumed, |i| Ok(lengths[i])).unwrap()?;
        consumed = pack.consumed;
        Some(pack)
    })
    .collect()
}

proptest! {
    #![proptest_config(omr_base_tests::seed::proptest(200))]

    #[test]
    fn packing_keeps_every_sample_in_order_and_resumes_anywhere(
        lengths in prop::collection::vec(1usize..40, 1..60),
        packing_length in 20usize..80,
        seed in any::<u64>(),
        epochs in 1u64..4,
        shuffle in any::<bool>(),
    ) {
        prop_assume!(lengths.iter().any(|&l| l <= packing_length));
        let plan = || {
            let plan = PackPlan::new(lengths.len(), packing_length, seed, shuffle).unwrap();
            plan.until(epochs * lengths.len() as u64)
        };
        let all = packs(&mut plan(), &lengths, 0);

        let expected: Vec<usize> = (0..epochs)
            .flat_map(|e| order(seed, e, lengths.len(), shuffle))
            .map(|i| i as usize)
            .collect();
        let fits = |i: &usize| lengths[*i] <= packing_length;
        let kept: Vec<usize> = all.iter().flat_map(|p| p.samples.clone()).collect();
        prop_assert_eq!(kept, expected.iter().copied().filter(fits).collect::<Vec<_>>());

        let mut consumed = 0;
        for (k, pack) in all.iter().enumerate() {
            let tokens: usize = pack.samples.iter().map(|&i| lengths[i]).sum();
            prop_assert_eq!(pack.tokens, tokens);
            prop_assert!(tokens <= packing_length && !pack.samples.is_empty());
            prop_assert!(pack.dropped.iter().all(|i| !fits(i)));
            consumed += (pack.samples.len() + pack.dropped.len()) as u64;
            prop_assert_eq!(pack.consumed, consumed);
            if let Some(next) = all.get(k + 1) {
                let full = tokens + lengths[next.samples[0]] > packing_length;
                prop_assert!(full || !next.dropped.is_empty());
            }
            prop_assert_eq!(&packs(&mut plan(), &lengths, pack.consumed)[..], &all[k + 1..]);
        }
    }
}
