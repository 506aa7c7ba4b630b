//! Tests complete SFT runs: exact resume, the loss, packs, and learning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use omr_base::config::{
    Dtype, ImageBackend, ImageConfig, LoraConfig, MicroBatchTokens, OptimConfig, OptimizerName, SftConfig,
    TrainingConfig,
};
use omr_base::observe::Silent;
use omr_data::image::Backend;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Form, Index, Shape, read, write};
use omr_model::nn::{LayerPolicy, Model, Policy};
use omr_model_tests::models::encoder;
use omr_runtime::device::{Device, Isa, Plan, Target};
use omr_runtime::tensor::DType;
use omr_train::plan::choose_micro_batch_tokens;
use omr_train::training::job::{Start, TrainingJob as _};
use omr_train::training::sft::{self, SftJob};
use omr_train::training::step;
use omr_train::training::updates::{Update, Updates};

use super::tiny::{Outcome, device, rows, run_sft, run_sft_on, run_sft_over, sft_config, text_rows, with};

#[test]
fn a_template_whose_blocks_end_before_the_end_of_the_turn_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let data = dir.path().join("text.parquet");
    write::write(&data, &text_rows(), Form::Sft).unwrap();
    let config = SftConfig { datasets: vec![read::entry(data)], ..config };
    let opened = |end: &str| {
        let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}\
            {% generation %}{{ m.content[0].text }}END{% else %}{{ m.content[0].text }}<|im_end|>{% endif %}\n{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let template = template.replace("m.content[0].text", "m.content if m.content is string else m.content[0].text");
        fs::write(config.model.as_ref().unwrap().join("chat_template.jinja"), template.replace("END", end)).unwrap();
        SftJob::new(&dir.path().join("run"), config.clone()).map(drop).map_err(|error| error.to_string())
    };
    let error = opened("{% endgeneration %}<|im_end|>").unwrap_err();
    assert!(error.contains("blocks that end before <|im_end|> in every sample, so it is never trained"), "{error}");
    assert_eq!(opened("<|im_end|>{% endgeneration %}"), Ok(()));
    assert_eq!(opened("{% endgeneration %}{% generation %}<|im_end|>{% endgeneration %}"), Ok(()), "another block");
}

#[test]
fn stopped_and_gone_on_is_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    for (dtype, optim) in [
        (Dtype::F32, OptimizerName::AdamwTorch),
        (Dtype::Bf16, OptimizerName::AdamwTorch),
        (Dtype::Bf16, OptimizerName::Adamw8bit),
    ] {
        let mut config = SftConfig { dtype, ..sft_config(dir.path()) };
        config.optimizer.optim = optim;
        let out = |name: &str| dir.path().join(dtype.name()).join(optim.name()).join(name);
        let whole = run_sft(&out("whole"), &config, 1, &[]);
        let steps: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!(whole.figures("step"), steps);
        whole.assert_same(&run_sft(&out("stopped"), &config, 2, &[3]), "stopped once, two threads");
        let often = SftConfig {
            save_steps: Some(2),
            training: TrainingConfig { save_total_limit: Some(1), ..config.training.clone() },
            ..config.clone()
        };
        whole.assert_same(&run_sft(&out("often"), &often, 1, &[1, 5, 6]), "stopped often, more checkpoints");
    }
}

#[test]
fn by_tiles_too_a_stopped_run_goes_on_as_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { dtype: Dtype::Bf16, ..sft_config(dir.path()) };
    let on = |threads| move || Device::cpu(&Plan::uniform(256 << 20), threads, Isa::AmxTwin).unwrap();
    let whole = run_sft_on(&dir.path().join("whole"), &config, on(1), &[]);
    let state = whole.files.iter().find(|(name, _)| name.ends_with("trainer/state.json")).unwrap();
    assert!(std::str::from_utf8(state.1).unwrap().contains("\"cpu_body\": \"avx512+amx\""), "{state:?}");
    whole.assert_same(&run_sft_on(&dir.path().join("stopped"), &config, on(2), &[3]), "stopped once, two threads");
}

/// Before, the bounds of the config did not reach the model: it was trained at 112 x 112 and evaluated at 64 x 64.
#[test]
fn a_model_trained_at_112_by_112_is_not_evaluated_at_64_by_64() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(1), ..sft_config(dir.path()) };
    let base = config.model.clone().unwrap().join("preprocessor_config.json");
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    // 784 is the minimum of the base.
    for (min, grid) in [(None, [4, 4]), (Some(784), [4, 4]), (Some(112 * 112), [8, 8])] {
        let out = dir.path().join(format!("{min:?}"));
        run_sft(&out, &with(&config, |c| c.training.images.image_min_pixels = min), 1, &[]);
        for model in ["model", "checkpoints/global_step_1"].map(|name| out.join(name)) {
            let processor = encoder(&model, EncodingPurpose::Train).processor.unwrap();
            assert_eq!(processor.grid(64, 64).unwrap(), grid, "{}", model.display());
            let file = model.join("preprocessor_config.json");
            assert_eq!(bytes(&file) == bytes(&base), grid == [4, 4], "{}", file.display());
        }
    }
    // The next stage uses the library of the model, whether its file was written by omr or by transformers.
    let out = dir.path().join("torchvision");
    run_sft(&out, &with(&config, |c| c.training.images.image_backend = ImageBackend::Torchvision), 1, &[]);
    let library = |model: &Path| encoder(model, EncodingPurpose::Ask).processor.unwrap().backend;
    assert_eq!((library(&out.join("model")), library(base.parent().unwrap())), (Backend::Torchvision, Backend::Pil));
    // The next stage, whose config has no bounds, uses those of its model.
    let trained = dir.path().join("Some(12544)/model");
    let start =
        Start::open(Some(&trained), EncodingPurpose::Ask, &ImageConfig::default(), &OptimConfig::default()).unwrap();
    assert_eq!(start.encoder.processor.unwrap().min_pixels, 112 * 112);
    let wrong =
        with(&config, |c| (c.training.images.image_max_pixels, c.training.images.image_min_pixels) = (Some(783), None));
    let error = SftJob::new(&dir.path().join("wrong"), wrong).err().unwrap().to_string();
    assert!(error.contains("image_min_pixels: found 784, expected at most image_max_pixels"), "{error}");
}

/// Returns the tensors of a model directory by name.
fn tensors(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    all.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

#[test]
fn parts_are_frozen_and_have_rates_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let plain = SftConfig { max_steps: Some(2), ..sft_config(dir.path()) };
    let part = |name: &str| match name {
        name if name.starts_with("visual.merger.") => "projector",
        name if name.starts_with("visual.") => "tower",
        _ => "language",
    };
    let base = tensors(&dir.path().join("base"));
    let run = |name: &str, change: fn(&mut OptimConfig)| {
        let mut config = plain.clone();
        change(&mut config.optimizer);
        let out = dir.path().join(name);
        let run = run_sft(&out, &config, 1, &[]);
        let after = tensors(&out.join("model"));
        let moved: BTreeSet<&str> =
            base.iter().filter(|(name, bytes)| after[name.as_str()] != **bytes).map(|(name, _)| part(name)).collect();
        (moved, run.figures("grad_norm"), after)
    };
    let all = BTreeSet::from(["tower", "projector", "language"]);
    let (moved, norms, weights) = run("plain", |_| ());
    assert_eq!(moved, all);
    let (moved, frozen, _) = run("tower", |c| c.freeze_vision_tower = true);
    assert_eq!(moved, BTreeSet::from(["projector", "language"]));
    assert!(frozen[0] < norms[0], "what is frozen is not in the norm: {frozen:?} {norms:?}");
    let (moved, ..) = run("projector", |c| c.freeze_multi_modal_projector = true);
    assert_eq!(moved, BTreeSet::from(["tower", "language"]));
    let (moved, ..) = run("language", |c| c.freeze_language_model = true);
    assert_eq!(moved, BTreeSet::from(["tower", "projector"]));
    // A learning rate of 0 changes no weights and applies no decay, but its gradient still counts for the norm.
    let (moved, still, _) = run("still", |c| (c.vision_tower_lr, c.multi_modal_projector_lr) = (Some(0.0), Some(0.0)));
    assert_eq!((moved, still[0]), (BTreeSet::from(["language"]), norms[0]));
    let (_, _, same) = run("same", |c| c.vision_tower_lr = Some(c.learning_rate));
    assert!(same == weights, "the same rate is the same run");
}

#[test]
fn a_killed_run_repeats_the_steps_after_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { save_steps: Some(3), ..sft_config(dir.path()) };
    let whole = run_sft(&dir.path().join("whole"), &config, 1, &[]);
    // State after a kill between step 8 and its checkpoint: metrics up to step 8, checkpoints up to step 6.
    let killed = dir.path().join("killed");
    run_sft(&killed, &config, 1, &[]);
    for name in ["model", "checkpoints/global_step_8"] {
        std::fs::remove_dir_all(killed.join(name)).unwrap();
    }
    std::fs::remove_file(killed.join("summary.json")).unwrap();
    whole.assert_same(&run_sft(&killed, &config, 1, &[]), "killed");
}

#[test]
fn more_steps_go_on_from_a_finished_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = sft_config(dir.path());
    config.optimizer.lr_scheduler_type = omr_base::config::LrSchedulerType::Constant;
    let out = dir.path().join("out");
    run_sft(&out, &SftConfig { max_steps: Some(4), ..config.clone() }, 1, &[]);
    assert!(SftJob::new(&out, SftConfig { max_steps: Some(4), ..config.clone() }).unwrap().is_finished());
    assert!(!SftJob::new(&out, config.clone()).unwrap().is_finished());
    let longer = run_sft(&out, &config, 1, &[]);
    longer.assert_same(&run_sft(&dir.path().join("whole"), &config, 1, &[]), "four and four more");
}

#[test]
fn the_loss_is_the_mean_over_all_targets_of_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let job = SftJob::new(dir.path(), config.clone()).unwrap();
    let update = Updates::new(&config, &job.common.index).unwrap().next(0).unwrap().unwrap();
    assert_eq!(update.samples().count(), 4);

    let mut dev = device(1);
    let model = Model::load(&mut dev, &dir.path().join("base"), DType::F32).unwrap();
    let (mut sum, mut targets) = (0.0, 0);
    for i in update.samples() {
        let sample = job.samples.get(i).unwrap().unwrap();
        let sequences = [(&*sample).into()];
        let forward = step::forward(&mut dev, &model, &sequences, Policy::default(), LayerPolicy::All, false).unwrap();
        sum -= dev.read::<f32>(forward.log_prob).unwrap().iter().map(|&lp| f64::from(lp)).sum::<f64>();
        targets += forward.log_prob.len();
        forward.discard(&mut dev);
    }
    let by_hand = sum / targets as f64;

    let longest = job.common.index.shapes().map(|shape| shape.tokens).max().unwrap();
    let runs = [longest / 2, longest, 2 * longest, 4096].map(|micro_batch_tokens| {
        let config = SftConfig { micro_batch_tokens: micro_batch_tokens.into(), max_steps: Some(3), ..config.clone() };
        run_sft(&dir.path().join(micro_batch_tokens.to_string()), &config, 2, &[])
    });
    for run in &runs {
        let losses = run.figures("loss");
        // f64 sums of the same f32 log-probs in another order.
        assert!((losses[0] - by_hand).abs() < 1e-12, "{} is not {by_hand}", losses[0]);
        assert_eq!(run.metrics[0]["num_target_tokens"].as_u64(), Some(targets as u64));
        // Gradients are summed in f32 over at most twelve micro-batches, and Adam divides by their size. Every later loss
        // may therefore differ by a few rounding errors of 6e-8.
        for (a, b) in losses.iter().zip(runs[3].figures("loss")) {
            assert!((a - b).abs() < 1e-5 * b, "{a} is not {b}");
        }
    }
}

/// The bits do not depend on the number of ranks, nor on a stop, if rows are longer than `micro_batch_tokens`.
#[test]
fn parts_of_packs_give_the_same_bits_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let training = TrainingConfig { gradient_lanes: Some(2), ..config.training.clone() };
    let config = SftConfig {
        micro_batch_tokens: 60.into(),
        train_batch_size: None,
        gradient_accumulation_steps: 4,
        max_steps: Some(3),
        training,
        ..config
    };
    for (name, lora) in [("full", None), ("lora", Some(LoraConfig { rank: 6, ..LoraConfig::default() }))] {
        let config = with(&config, |c| c.optimizer.lora = lora);
        let out = |run: &str| dir.path().join(name).join(run);
        let one = run_sft(&out("one"), &config, 2, &[]);
        let numbers: Vec<u64> = one.metrics.iter().filter_map(|m| m["num_micro_batches"].as_u64()).collect();
        assert!(numbers.iter().all(|&number| number > 4), "{numbers:?}: packs are not cut");
        one.assert_same(&run_sft(&out("stopped"), &config, 1, &[1, 2]), "stopped twice");
        for (sizes, stops) in [(&[2][..], &[][..]), (&[3, 2], &[2])] {
            let over = run_sft_over(&out(&format!("{sizes:?}")), &config, || device(1), sizes, stops);
            one.assert_same(&over, &format!("{name}, {sizes:?} ranks, stops {stops:?}"));
        }
        // Whole packs have the same loss, up to the order of sums (the bound of the test above).
        let packs = run_sft(&out("packs"), &with(&config, |c| c.micro_batch_tokens = 256.into()), 1, &[]);
        for (a, b) in one.figures("loss").iter().zip(packs.figures("loss")) {
            assert!((a - b).abs() < 1e-5 * b, "{name}: {a} is not {b}");
        }
    }
}

/// If micro-batches are smaller than packs, those of a lane are in descending order; otherwise in the order of the rows.
#[test]
fn micro_batches_of_a_lane_descend_only_if_they_are_parts_of_packs() {
    let mut index = Index::default();
    let lengths = [3, 9, 4, 4, 20, 1, 2, 8];
    lengths.iter().for_each(|&tokens| index.push(Shape { tokens, targets: tokens - 1, grids: &[] }));
    let update = Update { lanes: vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]], consumed: 8 };
    let cut = |tokens: usize, packing_length| {
        let micro_batch_tokens = tokens.into();
        sft::micro_batches(&index, &update, &SftConfig { micro_batch_tokens, packing_length, ..SftConfig::default() })
    };
    assert_eq!(cut(10, 20), [vec![1], vec![4], vec![2, 3], vec![7], vec![0], vec![5, 6]]);
    assert_eq!(cut(20, 20), [vec![0, 1, 2, 3], vec![4], vec![5, 6, 7]]);
    assert_eq!(cut(10, 10), [vec![0], vec![4], vec![1], vec![5, 6], vec![2, 3], vec![7]]);
}

#[test]
fn a_small_set_is_learned() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(60), ..sft_config(dir.path()) };
    let losses = run_sft(&dir.path().join("out"), &config, 2, &[]).figures("loss");
    println!("loss {} to {}", losses[0], losses[59]);
    assert!(losses[0] > 4.0 && losses[59] < 1.0, "{losses:?}");
}

#[test]
fn packs_and_epochs_use_every_row_that_fits_once_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let job = SftJob::new(dir.path(), config.clone()).unwrap();
    let mut lengths: Vec<usize> = job.common.index.shapes().map(|shape| shape.tokens).collect();
    lengths.sort_unstable();
    // The longest rows do not fit.
    let packing_length = lengths[lengths.len() - 1] - 1;
    let fitting = lengths.iter().filter(|&&l| l <= packing_length).count();
    let config = SftConfig {
        train_batch_size: None,
        gradient_accumulation_steps: 2,
        packing_length,
        max_steps: None,
        num_train_epochs: 2.0,
        ..config
    };
    let job = SftJob::new(dir.path(), config.clone()).unwrap();
    let whole = run_sft(&dir.path().join("whole"), &config, 1, &[]);
    assert_eq!(whole.metrics.len() as u64, job.common.total_steps);
    assert_eq!(whole.figures("num_rows").iter().sum::<f64>(), 2.0 * fitting as f64);
    let rejected = std::fs::read_to_string(dir.path().join("whole/rejected.jsonl")).unwrap();
    let overlong = rejected.lines().filter(|line| line.contains("\"reason\":\"overlong\"")).count();
    assert_eq!((overlong, rejected.lines().count()), (lengths.len() - fitting, lengths.len() - fitting));
    assert!(whole.figures("num_tokens").iter().all(|&n| n <= 2.0 * packing_length as f64));
    assert_eq!(whole.figures("epoch").last(), Some(&2.0));
    whole.assert_same(&run_sft(&dir.path().join("stopped"), &config, 1, &[2, 4]), "packs, stopped");
}

/// `auto` is a number that fits and depends on the rows and the memory alone, and the run of this number has the same bits.
/// Less memory gives a smaller number, and a size that does not fit is refused with one that does.
#[test]
fn a_size_that_is_chosen_fits_and_is_a_number_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (sft_config(dir.path()), dir.path().join("many.parquet"));
    write::write(&data, &(0..6).flat_map(|_| rows()).collect::<Vec<_>>(), Form::Sft).unwrap();
    let config = SftConfig {
        datasets: vec![read::entry(data)],
        packing_length: 4096,
        train_batch_size: Some(60),
        max_steps: Some(2),
        micro_batch_tokens: MicroBatchTokens::Auto,
        ..config
    };
    let chosen = |target: Target| {
        let mut job = SftJob::new(&dir.path().join("job"), config.clone()).unwrap();
        choose_micro_batch_tokens(&mut job, target).map(|()| (job.config.micro_batch_tokens, job.plan(target).unwrap()))
    };
    let (largest, all) = chosen(Target::cpu(2)).unwrap();
    assert_eq!(largest, 4096.into(), "nothing is recomputed without a limit");
    let below = |share: f64| Target::cpu(2).within(Some((all.total() as f64 * share) as usize));
    let mut sizes = Vec::new();
    let mut smallest = (1.0, largest);
    for share in [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3] {
        let Ok((size, plan)) = chosen(below(share)) else { continue };
        assert!(plan.total() <= (all.total() as f64 * share) as usize, "{share}");
        assert_eq!(chosen(below(share)).unwrap().0, size);
        sizes.push(size.get());
        smallest = (share, size);
    }
    println!("sizes with less memory: {sizes:?}");
    assert!(sizes.is_sorted_by(|a, b| a >= b) && !sizes.is_empty(), "{sizes:?}");
    let error = chosen(below(0.01)).unwrap_err().to_string();
    assert!(error.contains("memory: found a run that needs at least"), "{error}");
    // A run whose size was chosen for a small device continues on a large one with its number and its bits. The number of
    // a large device is refused on a small one, with one that fits.
    let run = |name: &str, targets: &[Target]| {
        for (steps, target) in (1..).zip(targets) {
            let config = SftConfig { max_steps: Some(steps), micro_batch_tokens: smallest.1, ..config.clone() };
            let mut job = SftJob::new(&dir.path().join(name), config).unwrap();
            let plan = job.plan(*target).unwrap();
            job.run(&mut Device::cpu(&plan, 2, Isa::detect()).unwrap(), &Silent).unwrap();
        }
        Outcome::of(&dir.path().join(name))
    };
    let (small, large) = (below(smallest.0), Target::cpu(2));
    run("large", &[large, large]).assert_same(&run("moved", &[small, large]), "begun on a small device");
    let mut job = SftJob::new(&dir.path().join("job"), with(&config, |c| c.micro_batch_tokens = largest)).unwrap();
    let error = job.plan(small).unwrap_err().to_string();
    assert!(error.contains("it fits with micro_batch_tokens="), "{error}");
}
