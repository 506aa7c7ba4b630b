//! Plans of training: exactly what the run takes, region by region, and what passes keep when that is limited.

use std::path::Path;

use omr::config::SftConfig;
use omr::device::{Device, Isa, Plan, Region, Target};
use omr::error::Error;
use omr::observe::Silent;
use omr::train::sft::Job;

use super::tiny::{Outcome, sft_config};

/// Runs the job in exactly its plan's memory, and returns the plan.
fn planned(dir: &Path, config: &SftConfig, threads: usize) -> Plan {
    let mut job = Job::new(dir, config.clone()).unwrap();
    let plan = job.plan(Target::cpu(threads)).unwrap();
    let mut dev = Device::cpu(&plan, threads, Isa::detect()).unwrap();
    job.run(&mut dev, &Silent).unwrap();
    for region in Region::ALL {
        assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{} of {config:?}", region.name());
    }
    plan
}

#[test]
fn sft_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    for (i, (micro_batch_tokens, threads)) in [(256, 1), (100, 2)].into_iter().enumerate() {
        let config = SftConfig { micro_batch_tokens, packing_length: 100, ..config.clone() };
        planned(&dir.path().join(i.to_string()), &config, threads);
    }
    let packs = SftConfig { train_batch_size: None, gradient_accumulation_steps: 2, max_steps: Some(3), ..config };
    planned(&dir.path().join("packs"), &packs, 1);
}

#[test]
fn less_memory_changes_what_is_kept_and_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(2), ..sft_config(dir.path()) };
    let out = |name: &str| dir.path().join(name);
    let all = planned(&out("all"), &config, 2);
    let whole = Outcome::of(&out("all"));
    let gib = |bytes: usize| Some(bytes as f64 / f64::from(1 << 30));
    let (mut totals, mut refused) = (vec![all.total()], None);
    for i in 0.. {
        let budget = all.total() - i * all.total() / 40;
        let config = SftConfig { max_memory_gib: gib(budget), ..config.clone() };
        let mut job = Job::new(&out("refused"), config.clone()).unwrap();
        match job.plan(Target::cpu(2)) {
            Err(error) => {
                refused = Some(error);
                break;
            }
            Ok(plan) if Some(&plan.total()) == totals.last() => continue,
            Ok(plan) => {
                assert!(plan.total() <= budget && Some(&plan.total()) < totals.last());
                let name = format!("budget {i}");
                assert_eq!(planned(&out(&name), &config, 2), plan);
                whole.assert_same(&Outcome::of(&out(&name)), &name);
                totals.push(plan.total());
            }
        }
    }
    println!("plans of {totals:?} bytes");
    assert!(totals.len() > 2, "{totals:?}");
    let Some(Error::Input { place, hint, .. }) = refused else { panic!("{refused:?}") };
    assert!(place == "memory" && hint.unwrap().contains("micro_batch_tokens"));
}
