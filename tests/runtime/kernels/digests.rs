//! Predicted results of the kernels on a Hopper GPU. `tools/digests` runs the cases of this file on the emulator with
//! aligned sums and writes one digest per case to tests/goldens/digests/hopper.json. On a GPU, the tests print which
//! results have the predicted bits. Attention uses ex2.approx, whose bits are not known, so its results are stored
//! themselves, and the number of differing words is printed.

pub mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use omr_base_tests::golden::{dir, json as read_json};
use omr_runtime::device::emu::Options;
use omr_runtime::device::emu::options::Sums;
use omr_runtime::device::images::{Arch, OWN};
use omr_runtime::device::{Device, KernelVariant, Kind};
use serde_json::{Value, json};

use self::cases::{Case, cases};
use crate::kernels::{Under, emu_of, emulator, kind, no_hopper, under_test};

/// Multiprocessors of an H100 and an H200. They determine which tiles the products of a shape use.
const MULTIPROCESSORS: u32 = 132;
/// Environment variable with the first part of the names of the cases to record. `tools/digests` sets it.
const RECORD: &str = "OMR_RECORD_DIGESTS";

/// Returns the device on which a case runs: the GPU, or the emulator as an H200 would sum.
fn device(variant: KernelVariant) -> Device {
    let options =
        Options { sums: Sums::Aligned, arch: Arch::Sm90a, multiprocessors: MULTIPROCESSORS, ..Options::default() };
    let mut dev = emu_of(options).unwrap();
    dev.use_variant(variant).unwrap();
    dev
}

fn digest(words: &[u32]) -> String {
    let mut hash = blake3::Hasher::new();
    words.iter().for_each(|word| {
        hash.update(&word.to_le_bytes());
    });
    hash.finalize().to_hex()[..16].to_owned()
}

fn file(name: &str) -> PathBuf {
    dir().join("digests").join(name)
}

/// Returns the predicted digests by the names of the cases, and the words of approximate cases.
fn predicted() -> (BTreeMap<String, Value>, BTreeMap<String, Vec<u32>>) {
    let rows = read_json(&file("hopper.json"))["cases"].as_array().unwrap().clone();
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(file("attention.gz")).unwrap()).read_to_end(&mut bytes).unwrap();
    let (mut words, mut kept) = (bytemuck::pod_collect_to_vec::<u8, u32>(&bytes), BTreeMap::new());
    for row in rows.iter().filter(|row| row["approximate"] == true) {
        let rest = words.split_off(row["words"].as_u64().unwrap() as usize);
        kept.insert(row["name"].as_str().unwrap().to_owned(), std::mem::replace(&mut words, rest));
    }
    assert!(words.is_empty(), "attention.gz has {} words too many", words.len());
    (rows.into_iter().map(|row| (row["name"].as_str().unwrap().to_owned(), row)).collect(), kept)
}

/// Compares a case with its prediction. On the emulator, all must be equal.
fn compare(case: &Case, (rows, kept): &(BTreeMap<String, Value>, BTreeMap<String, Vec<u32>>)) {
    let row = rows.get(&case.name).unwrap_or_else(|| panic!("{} has no digest: run tools/digests", case.name));
    for variant in case.variants {
        if *variant == KernelVariant::Wgmma && no_hopper("wgmma") {
            continue;
        }
        let words = (case.run)(&mut device(*variant)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let equal = words.len() as u64 == row["words"] && digest(&words) == row["digest"];
        let found = match kept.get(&case.name) {
            _ if equal => "equal".to_owned(),
            Some(want) => {
                let differ = words.iter().zip(want).filter(|(a, b)| a != b).count();
                format!("{differ} of {} words differ", want.len())
            }
            None => "differs".to_owned(),
        };
        println!("  digest {}, {}: {found}", case.name, variant.name());
        assert!(kind() == Kind::Cuda || equal, "{}, {}: {found}; run tools/digests", case.name, variant.name());
    }
}

/// True if the predictions are for these inputs. Other seeds give other inputs.
fn seeded() -> bool {
    let other = omr_base_tests::seed::seed() != 20;
    if other {
        println!("skipped: the digests are those of seed 20");
    }
    !other
}

/// Compares some cases, so that a change of arithmetic is noticed. On a GPU, compares all.
#[test]
fn results_have_the_predicted_bits() {
    if no_hopper("digests") || !seeded() {
        return;
    }
    let predicted = predicted();
    let few = [
        "linear 9x",
        "linear_f32 16x",
        "swiglu 20x",
        "wgrad 24x",
        "logprob 9x",
        "rms_norm",
        "adamw",
        "attention windows",
    ];
    let firsts: &[&str] = if under_test() == Under::Gpu { &[""] } else { &few };
    for first in firsts {
        let some = cases(first);
        assert!(!some.is_empty(), "no case begins with {first}");
        some.iter().for_each(|case| compare(case, &predicted));
    }
}

#[test]
fn products_norms_and_the_optimizer_have_digests() {
    let (rows, _) = predicted();
    let mine: Vec<String> = cases("").into_iter().map(|case| case.name).collect();
    assert_eq!(mine.iter().collect::<BTreeSet<_>>(), rows.keys().collect(), "run tools/digests");
    let named = |row: &Value| {
        row["kernels"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let covered: BTreeSet<String> = rows.values().flat_map(named).collect();
    let files = [
        "gemm",
        "gemm_bwd",
        "gemm_sm90a",
        "gemm_bwd_sm90a",
        "linear_logprob",
        "linear_logprob_bwd",
        "rms_norm",
        "layer_norm",
        "pos_embed",
        "gelu",
        "qk_norm",
        "swiglu",
        "sample",
        "adamw",
        "grad_norm",
    ];
    // The kernel for given tokens only reads logits; its bits are compared with the CPU.
    let covered = |kernel: &&str| covered.contains(*kernel) || *kernel == "sample_given";
    let missing: Vec<&str> =
        files.iter().flat_map(|file| OWN.kernels(file)).filter(|kernel| !covered(kernel)).collect();
    assert_eq!(missing, [] as [&str; 0], "kernels without a digest");
}

#[test]
#[ignore = "a minute and a half; tools/digests runs it"]
fn every_result_has_the_predicted_bits() {
    match std::env::var(RECORD) {
        Ok(first) => record(&first),
        Err(_) => {
            let predicted = predicted();
            cases("").iter().for_each(|case| compare(case, &predicted));
        }
    }
}

/// Records the digests of the cases whose names begin with `first`, and keeps those of the others.
fn record(first: &str) {
    assert!(kind() == Kind::Emu && seeded(), "digests are predictions of the emulator");
    let (mut rows, mut kept) = if first.is_empty() { Default::default() } else { predicted() };
    for case in cases(first) {
        let begun = std::time::Instant::now();
        let (mut kernels, mut found) = (BTreeSet::new(), None);
        for variant in case.variants {
            let mut dev = device(*variant);
            let words = (case.run)(&mut dev).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            kernels.extend(emulator(&mut dev).kernels());
            let first = found.get_or_insert_with(|| words.clone());
            assert!(*first == words, "{}: {} has other bits than mma.sync", case.name, variant.name());
        }
        let words = found.unwrap();
        println!("{}: {} words, {:.1} s", case.name, words.len(), begun.elapsed().as_secs_f64());
        rows.insert(
            case.name.clone(),
            json!({"name": case.name, "approximate": case.approximate, "words": words.len(),
            "digest": digest(&words), "kernels": kernels}),
        );
        if case.approximate {
            kept.insert(case.name, words);
        }
    }
    let names: BTreeSet<String> = cases("").into_iter().map(|case| case.name).collect();
    rows.retain(|name, _| names.contains(name));
    kept.retain(|name, _| names.contains(name));
    std::fs::create_dir_all(file("")).unwrap();
    let lines: Vec<String> = rows.values().map(Value::to_string).collect();
    std::fs::write(file("hopper.json"), format!("{{\"cases\": [\n{}\n]}}\n", lines.join(",\n"))).unwrap();
    let mut gz = GzEncoder::new(std::fs::File::create(file("attention.gz")).unwrap(), Compression::best());
    kept.values().for_each(|words| gz.write_all(bytemuck::cast_slice(words)).unwrap());
    gz.finish().unwrap();
}
