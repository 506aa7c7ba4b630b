//! Tests `omr export` of adapters of a quantised base.

use std::fs;
use std::path::Path;

use omr_base::config::{self, Dtype, LoraConfig, RlConfig, SftConfig};
use omr_model::nn::ModelConfig;
use omr_model::nn::weights::WeightFiles;
use omr_model_tests::models;
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;
use omr_train::eval::Onto;
use omr_train::training::metrics;
use omr_train_tests::training::lora::assert_exact;
use omr_train_tests::training::quantized::{FORMATS, load, rows_and_model, settings, sft};
use omr_train_tests::training::tiny::{self, device, rl_config, run_rl, run_rl_over, run_sft, sft_config};

use crate::cli::training::run;

#[test]
fn rl_on_a_quantised_base_samples_what_it_trains() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    rl_config(dir.path());
    // A model that answers some questions.
    let tuning = SftConfig { max_steps: Some(tiny::TUNING_STEPS), ..sft_config(dir.path()) };
    run_sft(&dir.path().join("tuning"), &tuning, 2, &[]);
    for base in FORMATS {
        let mut config = RlConfig { dtype: Dtype::Bf16, use_kl_loss: true, ..rl_config(dir.path()) };
        config.model = Some(dir.path().join("tuning/model"));
        config.optimizer.lora = Some(LoraConfig::default());
        config.optimizer.learning_rate = 1e-2;
        config.optimizer.quantization = Some(settings(base));
        let out = |name: &str| dir.path().join(base.name()).join(name);
        let whole = run_rl(&out("whole"), &config, 2, &[]);
        assert_exact(&whole);
        // New adapters are the reference policy itself.
        let kl = whole.figures("actor/kl_loss");
        assert!(kl[0] == 0.0 && kl[3] != 0.0, "{kl:?}");
        whole.assert_same(&run_rl(&out("stopped"), &config, 1, &[1, 3]), "stopped twice");
        whole.assert_same(&run_rl_over(&out("ranks"), &config, || device(1), &[2], &[]), "two ranks");
        // A run that continues the adapter measures the KL against the quantised model, too.
        let next = RlConfig { model: Some(out("whole/model")), total_training_steps: Some(1), ..config.clone() };
        assert_eq!(run_rl(&out("next"), &next, 2, &[]).figures("actor/kl_loss"), [0.0]);
        let rollouts = config.train_batch_size * config.rollout.n;
        assert_compares_last_batch(&out("whole"), config::to_yaml(&config).unwrap(), rollouts);
    }
}

/// Merges the adapter of the run in `dir` onto its original base, and checks that the log-probs of `count` sequences are
/// compared.
fn assert_compares_last_batch(dir: &Path, config: String, count: usize) {
    fs::write(dir.join("config.yaml"), config).unwrap();
    let [run_dir, out] = [dir.to_owned(), dir.with_extension("merged")].map(|path| path.display().to_string());
    let (code, _, err) = run(&["export", "--merge", &run_dir, "--out", &out, "--onto", "original"]);
    assert!(
        code == 0 && err.contains(&format!("the last training batch ({count} sequences) differ by at most")),
        "{err}"
    );
    let largest: f64 = err.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(largest > 0.0 && largest < 5.0, "{err}");
}

#[test]
fn a_merge_adds_to_the_values_that_were_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    rows_and_model(dir.path());
    for base in FORMATS {
        let config = sft(dir.path(), base, Dtype::Bf16);
        run_sft(&dir.path().join(base.name()), &config, 2, &[]);
        let (adapter, base_dir) = (dir.path().join(base.name()).join("model"), dir.path().join("base"));
        let merged = [Onto::Trained, Onto::Original].map(|onto| {
            let out = dir.path().join(format!("{base:?} {onto:?}"));
            let [adapter, folder] = [&adapter, &out].map(|path| path.display().to_string());
            let onto = if onto == Onto::Trained { "trained" } else { "original" };
            let (code, _, err) = run(&["export", "--merge", &adapter, "--out", &folder, "--onto", onto]);
            assert!(code == 0 && err.contains("was not measured"), "{err}");
            assert_eq!(WeightFiles::open(&out).unwrap().dtype(), DType::Bf16);
            assert!(ModelConfig::load(&out.join("config.json")).unwrap().quantization.is_none());
            out
        });
        // A matrix that has no adapter: the output matrix. tests/train/training/quantized.rs compares log-probs.
        let dev = &mut device(1);
        let head = |dev: &mut Device, dir: &Path, key| {
            let model = load(dev, dir, key, DType::Bf16);
            let (param, piece) = models::find(&model.layout, "lm_head.weight");
            if param.quantized.is_some() {
                let weight = model.decoder.lm_head.weight;
                let plain = dev
                    .alloc(Region::Overlay, DType::Bf16, &[weight.order.len(DType::Bf16, weight.n, weight.k)])
                    .unwrap();
                omr_runtime::ops::dequantize::fwd(dev, &weight, plain).unwrap();
                return dev.read::<half::bf16>(plain).unwrap();
            }
            assert_eq!(piece, 0);
            dev.read::<half::bf16>(param.tensor).unwrap()
        };
        let rows = metrics::read(&dir.path().join(base.name()).join("metrics.jsonl")).unwrap()[5]["num_rows"].as_u64();
        let text = config::to_yaml(&config).unwrap();
        assert_compares_last_batch(&dir.path().join(base.name()), text, rows.unwrap() as usize);
        let [trained, original] = merged.map(|dir| head(dev, &dir, None));
        assert!(trained == head(dev, &base_dir, config.optimizer.quantization.as_ref()), "{base:?}");
        assert!(original == head(dev, &base_dir, None) && original != trained, "{base:?}");
    }
}
