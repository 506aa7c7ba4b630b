//! Tests the codes of moments in 8 bits.

use omr_runtime::ops::adamw::code8::*;

fn codes_round_trip<const S: i32>() {
    let mut before = -1.0;
    for c in 0..=last::<S>() {
        let v = value::<S>(c);
        assert!(v > before, "{c}: {v} is not over {before}");
        assert_eq!(nearest::<S>(v, 0.0), c);
        // Test a little below and above the midpoint to the next code.
        if c > 0 && c < last::<S>() {
            let (low, high) = (v, value::<S>(c + 1));
            assert_eq!(nearest::<S>(low + 0.49 * (high - low), 0.0), c);
            assert_eq!(nearest::<S>(low + 0.51 * (high - low), 0.0), c + 1);
        }
        before = v;
    }
    assert_eq!(value::<S>(1), power(-3 * S));
    assert_eq!(scale::<S>(1.0) * value::<S>(last::<S>()), 1.0);
}

#[test]
fn codes_ascend_and_come_back() {
    codes_round_trip::<7>();
    codes_round_trip::<8>();
    assert_eq!((value::<8>(128), value::<8>(64), value::<7>(64)), (0.125, 0.015625, 0.125));
}

#[test]
fn every_float_is_coded_within_a_step_and_zero_stays_zero() {
    // Test every sign and exponent with some mantissas, and scales from the smallest to the largest.
    for scale in [f32::from_bits(1), 1e-40, 1e-30, 3e-5, 1.0, 7e20, 3e38] {
        for bits in (0..=0xffffu32).map(|b| b << 16 | 0x1234) {
            let x = f32::from_bits(bits);
            if !x.is_finite() || x.abs() > scale {
                continue;
            }
            let m = signed(x, scale);
            assert_eq!(m & 0x80 != 0, x < 0.0 && m != 0);
            // The widest step is in the top range: 7/8 of the scale divided by 64.
            let off = (f64::from(of_signed(m, scale)) - f64::from(x)).abs();
            let allowed = 0.5 * (0.875 / 64.0) * f64::from(scale) * 1.001 + f64::from(f32::from_bits(1));
            // There is no code above the last one.
            assert!(off <= allowed.max(f64::from(scale) * 0.0137), "{x} of {scale}: {off}");
            if x >= 0.0 {
                for word in [0, 0x8000_0000, u32::MAX] {
                    assert_eq!(unsigned(x, scale, word) == 0, x == 0.0, "{x} of {scale}");
                }
            }
        }
    }
    assert_eq!((signed(0.0, 0.0), signed(-0.0, 1.0), unsigned(0.0, 0.0, u32::MAX)), (0, 0, 0));
    assert_eq!((stochastic_above_zero(1e-44, 0).to_bits(), stochastic_above_zero(0.0, u32::MAX).to_bits()), (1, 0));
    assert!(stochastic(f32::from_bits(0x7fff_ffff), u32::MAX).is_nan());
}

#[test]
fn the_largest_never_becomes_a_code_too_many() {
    // If a position of 255.5 were rounded up, it would become code 256, which wraps to 0.
    for largest in [1.0f32, 0.3, 7e-12, f32::MIN_POSITIVE, f32::from_bits(1), 3e38] {
        assert_eq!(unsigned(largest, scale::<8>(largest), u32::MAX), 255, "{largest}");
        assert!(signed(-largest, scale::<7>(largest)) == 255 && signed(largest, scale::<7>(largest)) == 127);
    }
}

#[test]
fn random_rounding_keeps_the_mean() {
    let mut words = omr_base::philox::Random::new(1, omr_base::philox::Purpose::Test, 8);
    const N: usize = 40_000;
    for x in [0.9f32, 0.3, 0.1251, 0.01, 3e-4, 2e-6, 1.3e-7] {
        let (mut coded, mut short) = (0.0, 0.0);
        for _ in 0..N {
            let word = words.next_u32();
            coded += f64::from(of_unsigned(unsigned(x, 1.0, word), 1.0));
            short += f64::from(stochastic(x, word).to_f32());
        }
        // A step is at most 7 x (below 8^-7), or x / 128 in bf16. One draw deviates by at most half a step, and the
        // mean never deviates by five standard deviations.
        let within = |sum: f64, step: f64| (sum / N as f64 - f64::from(x)).abs() < 5.0 * 0.5 * step / (N as f64).sqrt();
        let c = nearest::<8>(x, -0.499);
        let step = f64::from(value::<8>(c + 1)) - f64::from(value::<8>(c));
        assert!(within(coded, step), "{x}: {}", coded / N as f64);
        assert!(within(short, f64::from(x) / 128.0), "{x}: {}", short / N as f64);
    }
}
