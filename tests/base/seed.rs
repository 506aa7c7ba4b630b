//! The seed of randomised tests.

/// Returns `OMR_TEST_SEED`, or a fixed default. Prints the seed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("OMR_TEST_SEED") {
        Ok(text) => text.parse().expect("OMR_TEST_SEED is a number"),
        Err(_) => 20,
    };
    println!("seed {seed}");
    seed
}

/// Returns the config of a property test with `cases` cases from [`seed`].
pub fn proptest(cases: u32) -> proptest::test_runner::Config {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(seed());
    proptest::test_runner::Config { cases, rng_seed, failure_persistence: None, ..Default::default() }
}
