//! Tests that the optimizer state divided over ranks gives the same bits as on one rank, also on disk.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use half::bf16;
use omr_base::config::{OptimConfig, OptimizerName};
use omr_base::error::Result;
use omr_model::checkpoint::{Retention, Store};
use omr_model::nn::weights::WeightFiles;
use omr_model::nn::weights::layout::ParamLayout;
use omr_model::nn::weights::outgoing::{Content, OutFile, weights};
use omr_model::nn::weights::part::Part;
use omr_model::nn::{GradMemory, Grads, OutModel};
use omr_model::optim::Optimizer;
use omr_model_tests::training::checkpoint::state;
use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ranks::{Ranks, Shards, Tcp};
use omr_runtime::tensor::DType;
use omr_runtime_tests::ranks::over;
use omr_train::training::saving::{Saving, Snapshot};

/// The step after which a checkpoint is saved. The update of this step is skipped because of its loss.
const SAVED: usize = 4;

/// One rank's model and its part of the optimizer state.
struct Rank {
    dev: Device,
    layout: ParamLayout,
    shards: Shards,
    optimizer: Optimizer,
}

impl Rank {
    /// Creates parameters of several chunks of 65,536 elements, of one chunk, and of a few elements.
    fn new(ranks: &dyn Ranks, mut dev: Device, dtype: DType, config: OptimConfig) -> Rank {
        let mut layout = ParamLayout::new(dtype);
        layout.within(Part::Table).linear(&mut dev, "model.embed_tokens", [500, 200], [500, 200], false).unwrap();
        layout.within(Part::Head).gate_up(&mut dev, "mlp", 200, 390, true).unwrap();
        layout.within(Part::Head).norm(&mut dev, "norm", 5).unwrap();
        layout.within(Part::Head).linear(&mut dev, "lm_head", [300, 500], [300, 490], false).unwrap();
        let start = |piece: usize, r: usize, out: &mut [f32]| {
            out.iter_mut().enumerate().for_each(|(k, x)| *x = ((piece + 7 * r + 3 * k) % 19) as f32 * 0.01 - 0.09);
        };
        for param in &layout.params {
            match dtype {
                DType::Bf16 => param.fill::<bf16>(&mut dev, param.tensor, start).unwrap(),
                _ => param.fill::<f32>(&mut dev, param.tensor, start).unwrap(),
            }
        }
        let shards = Shards::new(&layout.shares(), ranks.size());
        let optimizer = Optimizer::sharded(&mut dev, &layout, config, 5, &shards, ranks.rank()).unwrap();
        Rank { dev, layout, shards, optimizer }
    }

    /// Runs update `step` on some of the parameters. The rank passes the gradients of the elements that it owns. Returns the norm and the clipping factor.
    fn update(&mut self, ranks: &mut dyn Ranks, step: usize) -> [u32; 2] {
        let Rank { dev, layout, shards, optimizer } = self;
        let mark = dev.mark(Region::Overlay);
        let own = shards.of(ranks.rank());
        let mut grads = Grads::sharded(dev, layout, own, GradMemory::ALONE).unwrap();
        for id in (0..grads.num_params()).filter(|id| !(id + step).is_multiple_of(3)) {
            let grad = grads.touch(id).unwrap();
            // Padding has no gradient.
            let row = |piece: usize, r: usize, out: &mut [f32]| {
                for (k, g) in out.iter_mut().enumerate() {
                    *g = ((piece + 37 * r + 5 * k + 11 * step + id) % 1009) as f32 * 1e-4 - 0.05;
                }
            };
            layout.params[id].fill_from::<f32>(dev, grad, own[id].start, row).unwrap();
        }
        let losses = dev.upload(Region::Overlay, &[1.0, if step == SAVED { f64::NAN } else { 2.0 }], &[2]).unwrap();
        optimizer.step_guarded(ranks, dev, layout, &grads, 1e-2, Some(losses)).unwrap();
        dev.release(mark);
        let seen = optimizer.stats(dev).unwrap();
        assert_eq!(seen.finite, step != SAVED);
        [seen.grad_norm.to_bits(), seen.clip.to_bits()]
    }

    fn weights(&mut self) -> Vec<u8> {
        self.layout.params.iter().flat_map(|param| self.dev.read_bytes(param.tensor).unwrap()).collect()
    }

    /// Saves a checkpoint of step `step` after `change` has changed the files of the optimizer.
    fn save(
        &mut self,
        ranks: &mut dyn Ranks,
        store: &Store,
        step: u64,
        change: impl FnOnce(&mut Vec<OutFile>),
    ) -> Result<()> {
        let layout = Arc::new(self.layout.clone());
        let mut optimizer = self.optimizer.outgoing(&layout);
        change(&mut optimizer);
        let model = OutModel {
            configs: vec![("config.json", "{}\n".to_owned())],
            weights: weights(&layout, layout.dtype, self.optimizer.own()),
        };
        let snapshot = Snapshot {
            model,
            optimizer,
            state: state(step),
            companions: "none".into(),
            images: Default::default(),
            stops: None,
        };
        let saving = Saving::begin(ranks, &mut self.dev, store, None, snapshot)?;
        let Some(mut saving) = saving else { return Ok(()) };
        saving.poll(ranks)?;
        saving.finish(ranks, &mut self.dev)
    }

    fn load(&mut self, folder: &Path) {
        WeightFiles::open(folder).unwrap().load_part(&mut self.dev, &self.layout).unwrap();
        self.optimizer.load(&mut self.dev, &self.layout, &folder.join("trainer")).unwrap();
    }
}

fn config(optim: OptimizerName, bf16_stochastic_round: bool) -> OptimConfig {
    OptimConfig { optim, bf16_stochastic_round, weight_decay: 0.1, adam_beta2: 0.95, ..OptimConfig::default() }
}

/// Asserts that `sizes` ranks, and runs that continue from their checkpoint, give the same results as one rank.
fn alike(sizes: &[usize], dtype: DType, config: OptimConfig, dev: impl Fn() -> Device + Sync) {
    let run = tempfile::tempdir().unwrap();
    // Norms, weights when saved and one update later, and bytes of state.
    let train = |ranks: &mut Tcp, store: &Store| {
        let mut rank = Rank::new(ranks, dev(), dtype, config.clone());
        let norms: Vec<_> = (1..=SAVED).map(|step| rank.update(ranks, step)).collect();
        let saved = rank.weights();
        rank.save(ranks, store, SAVED as u64, |_| ()).unwrap();
        rank.update(ranks, SAVED + 1);
        (norms, saved, rank.weights(), rank.optimizer.bytes())
    };
    let manifest = |store: &Store| {
        let checkpoint = store.latest().unwrap().unwrap();
        (fs::read_to_string(checkpoint.path.join("MANIFEST")).unwrap(), checkpoint.path)
    };
    let store = |name: &str| Store::open(run.path().join(name), 1).unwrap();
    let alone = store("one");
    let one = over(1, |ranks| train(ranks, &alone)).swap_remove(0);
    for &size in sizes {
        let what = format!("{size} ranks, {dtype:?} {config:?}");
        let several = store(&size.to_string());
        let found = over(size, |ranks| train(ranks, &several));
        for of in &found {
            assert_eq!(of.0, one.0, "norm and factor of {what}");
            assert!(of.1 == one.1 && of.2 == one.2, "weights of {what}");
        }
        assert_eq!(found.iter().map(|of| of.3).sum::<usize>(), one.3, "the state is divided, not copied");
        let (files, folder) = manifest(&several);
        assert_eq!(files, manifest(&alone).0, "files of {what}");
        for resumed in [1, 2] {
            let found = over(resumed, |ranks| {
                let mut rank = Rank::new(ranks, dev(), dtype, config.clone());
                rank.load(&folder);
                rank.update(ranks, SAVED + 1);
                rank.weights()
            });
            assert!(found.iter().all(|weights| *weights == one.2), "{resumed} ranks after {what}");
        }
    }
}

fn cpu() -> Device {
    Device::cpu(&Plan::uniform(1 << 24), 1, Isa::detect()).unwrap()
}

#[test]
fn ranks_that_own_ranges_update_and_save_as_one_does() {
    for optim in [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit] {
        alike(&[3], DType::F32, config(optim, false), cpu);
        alike(&[2], DType::Bf16, config(optim, true), cpu);
        alike(&[4], DType::Bf16, config(optim, false), cpu);
    }
}

#[test]
fn kernels_on_ranges_update_and_save_as_on_the_whole() {
    alike(&[3], DType::Bf16, config(OptimizerName::Adamw8bit, true), omr_runtime_tests::kernels::emu);
}

#[test]
fn a_run_directory_that_is_moved_or_replaced_gets_no_more_files() {
    let dir = tempfile::tempdir().unwrap();
    let (run, moved) = (dir.path().join("run"), dir.path().join("moved"));
    fs::create_dir(&run).unwrap();
    let store = Store::open(&run, 1).unwrap();
    drop(store.begin(1).unwrap());
    fs::rename(&run, &moved).unwrap();
    for _ in 0..2 {
        let error = store.begin(2).unwrap_err().to_string();
        assert!(error.contains("which was here when the run started") && !run.join("checkpoints").exists(), "{error}");
        let _ = fs::create_dir(&run);
    }
    fs::remove_dir(&run).unwrap();
    fs::rename(&moved, &run).unwrap();
    drop(store.begin(2).unwrap());
}

#[test]
fn checkpoints_by_time_do_not_push_out_those_of_save_steps() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), Retention { newest: 2, every: None, interval: Some(4) }).unwrap();
    for step in 1..=13 {
        fs::create_dir_all(run.path().join(format!("checkpoints/global_step_{step}"))).unwrap();
        store.settle(step, None).unwrap();
    }
    let left: Vec<u64> = store.list().unwrap().iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!(left, [8, 12, 13]);
}

#[test]
fn a_start_with_other_settings_keeps_the_checkpoints_that_were_to_stay() {
    let run = tempfile::tempdir().unwrap();
    let saved = |keep: Retention, steps: &[u64]| {
        let store = Store::open(run.path(), keep).unwrap();
        for &step in steps {
            store.begin(step).unwrap().commit(None, &[]).unwrap();
        }
        store.list().unwrap().iter().map(|checkpoint| checkpoint.step).collect::<Vec<u64>>()
    };
    let first = Retention { newest: 2, every: Some(10), interval: Some(5) };
    assert_eq!(saved(first, &[5, 10, 15, 20, 25]), [10, 20, 25]);
    assert_eq!(saved(Retention { newest: 3, every: None, interval: Some(7) }, &[28, 30]), [10, 20, 25, 28, 30]);
    // The limit of `save_total_limit: null`. Step 30 is none of save_steps. Without an interval, all checkpoints count.
    let all = [10, 20, 25, 28, 35, 42, 49, 56, 63];
    assert_eq!(saved(Retention { newest: usize::MAX, every: None, interval: Some(7) }, &[35, 42, 49, 56, 63]), all);
    assert_eq!(saved(Retention { newest: usize::MAX, every: None, interval: None }, &[64]), [&all[..], &[64]].concat());
}

#[test]
fn a_write_that_fails_at_one_rank_fails_the_checkpoint_and_names_it() {
    for dev in [cpu as fn() -> Device, omr_runtime_tests::kernels::emu] {
        let run = tempfile::tempdir().unwrap();
        let store = Store::open(run.path(), 2).unwrap();
        let errors = over(3, |ranks| {
            let mut rank = Rank::new(ranks, dev(), DType::Bf16, config(OptimizerName::AdamwTorch, false));
            rank.save(ranks, &store, 1, |_| ()).unwrap();
            let is_broken = ranks.rank() == 1;
            let rename = |files: &mut Vec<OutFile>| {
                files.iter_mut().take(usize::from(is_broken)).for_each(|file| file.name = "elsewhere/optim".to_owned());
            };
            rank.save(ranks, &store, 2, rename).unwrap_err().to_string()
        });
        assert!(errors[1].contains("elsewhere/optim"), "{}", errors[1]);
        for error in [&errors[0], &errors[2]] {
            assert!(error.contains("rank 1") && error.contains("elsewhere/optim"), "{error}");
        }
        let left: Vec<_> =
            fs::read_dir(run.path().join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["global_step_1"], "the older one stays, nothing else");
    }
}

#[test]
fn a_part_that_no_rank_has_written_fails_the_checkpoint() {
    for dev in [cpu as fn() -> Device, omr_runtime_tests::kernels::emu] {
        let run = tempfile::tempdir().unwrap();
        let store = Store::open(run.path(), 2).unwrap();
        let errors = over(2, |ranks| {
            let mut rank = Rank::new(ranks, dev(), DType::Bf16, config(OptimizerName::AdamwTorch, false));
            let is_idle = ranks.rank() == 1;
            let idle = |files: &mut Vec<OutFile>| {
                let of_tensors = files.iter_mut().flat_map(|file| &mut file.tensors);
                of_tensors.filter(|_| is_idle).for_each(|tensor| tensor.content = Content::Elsewhere);
            };
            rank.save(ranks, &store, 1, idle).unwrap_err().to_string()
        });
        for error in &errors {
            assert!(error.contains("/trainer/optim") && error.contains("exactly one process"), "{error}");
        }
        assert!(store.list().unwrap().is_empty());
    }
}
