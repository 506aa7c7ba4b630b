//! Tests the Philox random number generator: known answers, distributions and shuffles.

use omr_base::philox::*;

fn drawn(seed: u64, purpose: Purpose, counter: u64) -> f64 {
    Random::new(seed, purpose, counter).uniform_f64()
}

#[test]
fn known_answers() {
    // kat_vectors of the Random123 distribution, philox4x32 10.
    let cases = [
        ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
        (
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        ),
    ];
    for (ctr, key, want) in cases {
        assert_eq!(philox4x32_10(key, ctr), want);
    }
}

#[test]
fn purposes_counters_and_steps_give_different_numbers() {
    let base = drawn(7, Purpose::Data, 3);
    assert_eq!(base, drawn(7, Purpose::Data, 3));
    assert_ne!(base, drawn(7, Purpose::Teacher, 3));
    assert_ne!(base, drawn(7, Purpose::Data, 4));
    assert_ne!(base, drawn(7, Purpose::Data, 3 + (1 << 32)));
    assert_ne!(base, drawn(8, Purpose::Data, 3));
    assert_ne!(key(7, Purpose::Noise, 1), key(7, Purpose::Noise, 2));
    assert_ne!(key(7, Purpose::Noise, 1), key(7, Purpose::Rounding, 1));
}

#[test]
fn moments() {
    let n = 200_000;
    let mut z = vec![0.0; n];
    let mut random = Random::new(1, Purpose::Test, 0);
    z.fill_with(|| random.normal());
    let mean = |p: i32| z.iter().map(|&x| f64::from(x).powi(p)).sum::<f64>() / n as f64;
    // Standard errors of the first four moments of n normal numbers: sqrt(Var(x^p) / n), times 5.
    for (p, want, var) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        assert!((mean(p) - want).abs() < 5.0 * (var / n as f64).sqrt(), "moment {p}: {}", mean(p));
    }
    let mut r = Random::new(1, Purpose::Test, 1);
    let (mut f, mut d) = (0.0, 0.0);
    for _ in 0..n {
        f += f64::from(r.uniform_f32());
        d += r.uniform_f64();
    }
    let bound = 5.0 * (1.0 / 12.0 / n as f64).sqrt();
    assert!((f / n as f64 - 0.5).abs() < bound && (d / n as f64 - 0.5).abs() < bound);
}

#[test]
fn bounded_integers_are_even() {
    let mut r = Random::new(2, Purpose::Test, 0);
    let (n, draws) = (7u64, 70_000);
    let mut count = [0.0f64; 7];
    for _ in 0..draws {
        count[r.below(n) as usize] += 1.0;
    }
    let expected = draws as f64 / n as f64;
    let chi2: f64 = count.iter().map(|c| (c - expected).powi(2) / expected).sum();
    // 99.99 % quantile of chi-squared with 6 degrees of freedom.
    assert!(chi2 < 27.9, "{chi2}");
    assert_eq!(r.below(1), 0);
}

#[test]
fn shuffles_are_permutations_and_reach_every_order() {
    let mut seen = std::collections::HashMap::new();
    for i in 0..24_000 {
        let mut v = [0, 1, 2, 3];
        shuffle(3, Purpose::Shuffle, i, &mut v);
        *seen.entry(v).or_insert(0.0) += 1.0;
    }
    assert_eq!(seen.len(), 24);
    let chi2: f64 = seen.values().map(|c: &f64| (c - 1000.0).powi(2) / 1000.0).sum();
    // 99.99 % quantile of chi-squared with 23 degrees of freedom.
    assert!(chi2 < 56.5, "{chi2}");
}

#[test]
fn gumbel_noise_has_its_distribution_and_stays_finite() {
    for word in [0, 1, u32::MAX, u32::MAX - 1, 1 << 31] {
        assert!(gumbel(word).is_finite());
    }
    assert!(gumbel(0) > gumbel(1 << 16) && gumbel(1 << 16) > gumbel(u32::MAX));
    let n = 100_000;
    let mut r = Random::new(4, Purpose::Test, 0);
    let g: Vec<f64> = (0..n).map(|_| f64::from(gumbel(r.next_u32()))).collect();
    let mean = g.iter().sum::<f64>() / n as f64;
    let var = g.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
    // Euler's constant and pi^2 / 6, with five standard errors (the kurtosis of the Gumbel distribution is 5.4).
    let sigma2 = std::f64::consts::PI.powi(2) / 6.0;
    assert!((mean - 0.577_215_664_9).abs() < 5.0 * (sigma2 / n as f64).sqrt(), "{mean}");
    assert!((var - sigma2).abs() < 5.0 * sigma2 * (4.4 / n as f64).sqrt(), "{var}");
}
