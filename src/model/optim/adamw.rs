//! AdamW over all parameters of a model: its moments, the low halves of bf16 weights, and the files of this state.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::nn::adapter::attach::Masters;
use crate::nn::weights::linear_layer::Adapter;
use crate::nn::weights::outgoing::OutFile;
use crate::nn::weights::params::Param;
use crate::nn::weights::part::Part;
use crate::nn::{Grads, ParamLayout};
use crate::optim::files::{self, StateSettings};
use crate::optim::state::State;
use omr_base::config::{OptimConfig, OptimizerName};
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::adamw::code8::BLOCK;
use omr_runtime::ops::adamw::{self, Coded, Moments, master};
use omr_runtime::ops::grad_norm;
use omr_runtime::ranks::{OneRank, Ranks, Shards, shards};
use omr_runtime::tensor::{DType, Tensor};

/// Statistics of the last update.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepStats {
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f32,
    /// Factor that the gradients were multiplied by.
    pub clip: f32,
    /// False if the norm, or a loss that guards the update, was not finite. In that case nothing was updated.
    pub finite: bool,
}

/// The optimizer, or the part of it that one rank owns.
pub struct Optimizer {
    config: OptimConfig,
    seed: u64,
    shards: Shards,
    rank: usize,
    /// State of each parameter, for the range that this rank owns, which may be empty. `None` if it is frozen.
    states: Vec<Option<State>>,
    kept: StateSettings,
    /// Indices of the parameters that the last update included.
    updated: Vec<usize>,
    /// Norm, clip factor and finite flag.
    norm: Tensor,
}

// Ensures that no partial sum of the norm and no scale of 8-bit Adam is split between two ranks.
const _: () = assert!(shards::CHUNK.is_multiple_of(grad_norm::CHUNK) && shards::CHUNK.is_multiple_of(BLOCK));

impl Optimizer {
    /// Creates zero moments for every trained parameter of `layout`, in [`Region::State`] or, if the config offloads
    /// them from a GPU, in [`Region::Host`]. `seed` is for stochastic rounding.
    pub fn new(dev: &mut Device, layout: &ParamLayout, config: OptimConfig, seed: u64) -> Result<Optimizer> {
        Optimizer::sharded(dev, layout, config, seed, &Shards::new(&layout.shares(), 1), 0)
    }

    /// Creates the optimizer as [`Optimizer::new`] does, for the part of each parameter that `rank` owns.
    pub fn sharded(
        dev: &mut Device,
        layout: &ParamLayout,
        config: OptimConfig,
        seed: u64,
        shards: &Shards,
        rank: usize,
    ) -> Result<Optimizer> {
        let region = if config.optimizer_offload && dev.kind().is_gpu() { Region::Host } else { Region::State };
        let mut states = Vec::new();
        for (param, own) in layout.params.iter().zip(shards.of(rank)) {
            if !param.trains {
                states.push(None);
                continue;
            }
            let len = own.len();
            let moments = zero_moments(dev, region, moments_of(param, config.optim), len)?;
            let lo = match layout.dtype {
                DType::Bf16 if !config.bf16_stochastic_round => Some(dev.zeros(region, DType::I16, &[len])?),
                _ => None,
            };
            states.push(Some(State { moments, lo, updates: 0 }));
        }
        let norm = dev.zeros(Region::State, DType::F32, &[3])?;
        let kept = StateSettings::new(dev, layout, &config);
        Ok(Optimizer { config, seed, shards: shards.clone(), rank, states, kept, updated: Vec::new(), norm })
    }

    /// Updates as [`Optimizer::step_guarded`] does, in a run of one rank and without a loss as guard.
    pub fn step(&mut self, dev: &mut Device, layout: &ParamLayout, grads: &Grads, lr: f64) -> Result<()> {
        let mut alone = OneRank::ALONE;
        self.step_guarded(&mut alone, dev, layout, grads, lr, None)
    }

    /// Performs one update with learning rate `lr`. Gradients are clipped to the configured norm. Parameters without a
    /// gradient are neither updated nor decayed.
    ///
    /// If the norm or an element of `guard` (f64 losses) is not finite, no weight and no moment changes, and
    /// [`Optimizer::stats`] does not count the update.
    ///
    /// The ranks must all pass gradients for the same parameters and the same guard. Each rank's `grads` must contain
    /// the final gradient of the ranges that it owns. Each rank updates these ranges; afterwards all ranks have all
    /// weights. Does not wait for the device, except with ranks over TCP.
    pub fn step_guarded(
        &mut self,
        ranks: &mut dyn Ranks,
        dev: &mut Device,
        layout: &ParamLayout,
        grads: &Grads,
        lr: f64,
        guard: Option<Tensor>,
    ) -> Result<()> {
        dev.range(format_args!("optimizer"), |dev| {
            let touched: Vec<(usize, Tensor)> =
                (0..grads.num_params()).filter_map(|id| grads.get(id).map(|grad| (id, grad))).collect();
            self.measure(ranks, dev, &touched, guard)?;
            self.updated = touched.iter().map(|(id, _)| *id).collect();
            let clip = self.norm.slice(1, 3);
            for &(id, grad) in &touched {
                let (param, own) = (&layout.params[id], &self.shards.of(self.rank)[id]);
                let Some(state) = &mut self.states[id] else { continue };
                state.updates += 1;
                if own.is_empty() {
                    continue;
                }
                let decays = param.is_matrix || self.config.decay_norms_and_biases;
                let hp = adamw::AdamW {
                    lr: rate_of(&self.config, param, lr),
                    beta1: self.config.adam_beta1,
                    beta2: self.config.adam_beta2,
                    eps: self.config.adam_epsilon,
                    weight_decay: if decays { self.config.weight_decay } else { 0.0 },
                    step: state.updates,
                    seed: self.seed,
                    param: id as u32,
                };
                let w = param.tensor.slice(own.start, own.end);
                let (lo, moments) = (state.lo, state.moments);
                adamw::step(dev, adamw::Parameter { first: own.start, w, lo, grad, moments }, &hp, clip)?;
            }
            let updated = touched.iter().flat_map(|&(id, _)| {
                let part = move |range: Range<usize>| layout.params[id].tensor.slice(range.start, range.end);
                self.shards.owners(id).map(move |(rank, range)| (rank, part(range)))
            });
            ranks.all_gather(dev, "updated weights", &updated.collect::<Vec<_>>())?;
            let is_updated = |adapter: &&Adapter| touched.iter().any(|(id, _)| *id == adapter.b.id);
            layout.adapters.iter().filter(is_updated).try_for_each(|adapter| self.derive(ranks, dev, layout, adapter))
        })
    }

    /// Computes S of an adapter from the masters of B. Each rank has the masters of its own range.
    fn derive(&self, ranks: &mut dyn Ranks, dev: &mut Device, layout: &ParamLayout, adapter: &Adapter) -> Result<()> {
        let id = adapter.b.id;
        adapter.derive(dev, &layout.params[id], self.own()[id].clone(), self.low_halves(id), |dev, scaled| {
            let part = |(rank, range): (usize, Range<usize>)| (rank, scaled.slice(range.start, range.end));
            ranks.all_gather(dev, "updated adapters", &self.shards.owners(id).map(part).collect::<Vec<_>>())
        })
    }

    /// Sets the low halves of the adapters' weights to those of `masters`.
    pub fn set_adapters(&mut self, dev: &mut Device, layout: &ParamLayout, masters: &dyn Masters) -> Result<()> {
        for (id, state) in self.states.iter().enumerate() {
            let (param, Some(lo)) = (&layout.params[id], state.as_ref().and_then(|state| state.lo)) else { continue };
            param.fill_from::<i16>(dev, lo, self.own()[id].start, |piece, r, out| {
                masters.row(&param.pieces[piece], r, out);
                out.iter_mut().for_each(|x| *x = f32::from(master::split(*x).1));
            })?;
        }
        Ok(())
    }

    /// Returns the low halves of the masters of parameter `id` that this rank owns, if there are any.
    pub fn low_halves(&self, id: usize) -> Option<Tensor> {
        self.states[id].as_ref()?.lo
    }

    /// Computes norm, clip factor and finite flag of the gradients of the `touched` parameters. Each rank sums the
    /// chunks that it owns; then every rank adds the sums of all ranks in the order of the chunks.
    fn measure(
        &self,
        ranks: &mut dyn Ranks,
        dev: &mut Device,
        touched: &[(usize, Tensor)],
        guard: Option<Tensor>,
    ) -> Result<()> {
        dev.scope(Region::Workspace, |dev| {
            let chunks = |len: usize| len.div_ceil(grad_norm::CHUNK);
            let ranges = |id: usize| self.shards.owners(id).map(|(rank, range)| (rank, chunks(range.len())));
            let all = touched.iter().flat_map(|(id, _)| ranges(*id)).map(|(_, chunks)| chunks).sum();
            let partials = dev.alloc(Region::Workspace, DType::F64, &[all])?;
            let (mut end, mut owned) = (0, Vec::new());
            for (id, grad) in touched {
                for (rank, chunks) in ranges(*id) {
                    end += chunks;
                    owned.push((rank, partials.slice(end - chunks, end)));
                    if rank == self.rank {
                        grad_norm::partials(dev, &[*grad], partials.slice(end - chunks, end))?;
                    }
                }
            }
            ranks.all_gather(dev, "the gradient norm", &owned)?;
            grad_norm::finish(dev, partials, self.config.max_grad_norm as f32, guard, self.norm)
        })
    }

    /// Returns the range of each parameter whose state this rank owns.
    pub fn own(&self) -> &[Range<usize>] {
        self.shards.of(self.rank)
    }

    /// Returns the number of bytes of the moments and low halves that this rank owns.
    pub fn bytes(&self) -> usize {
        let tensors = self.states.iter().flatten().flat_map(|s| s.moments.tensors().into_iter().flatten().chain(s.lo));
        tensors.map(|t| t.span().bytes).sum()
    }

    /// Returns the statistics of the last update; waits for it. An update that changed nothing is not counted, so the
    /// bias correction of the next update is the same as if it had not happened.
    pub fn stats(&mut self, dev: &mut Device) -> Result<StepStats> {
        let norm = dev.read::<f32>(self.norm)?;
        let stats = StepStats { grad_norm: norm[0], clip: norm[1], finite: norm[2] != 0.0 };
        let updated = std::mem::take(&mut self.updated);
        if !stats.finite {
            for id in updated {
                self.states[id].iter_mut().for_each(|state| state.updates -= 1);
            }
        }
        Ok(stats)
    }

    /// Returns the state as files `optim-0000i-of-0000n.safetensors`. Every rank plans the same files and fills in the
    /// parts that it owns.
    ///
    /// f32 moments (`NAME.m`, `NAME.v`), low halves (`NAME.lo`, i16) and update counts (`NAME.step`, u32 `[1]`) have
    /// Hugging Face names and shapes, without padding. Moments with fewer bits are flat, in the parameter's own element
    /// order. The headers of the files contain this order and the settings.
    pub fn outgoing(&self, layout: &Arc<ParamLayout>) -> Vec<OutFile> {
        files::outgoing(layout, &self.states, self.own(), &self.kept)
    }

    /// Reads the part of the state that this rank owns, from files that any number of ranks wrote (see
    /// [`Optimizer::outgoing`]). Errors name the folder and the tensor that is missing or does not fit, or the setting
    /// that differs.
    pub fn load(&mut self, dev: &mut Device, layout: &ParamLayout, dir: &Path) -> Result<()> {
        files::load(dev, layout, &mut self.states, self.shards.of(self.rank), &self.kept, dir)
    }
}

/// Returns the learning rate of a parameter. `lr` is the current learning rate of the job.
fn rate_of(config: &OptimConfig, param: &Param, lr: f64) -> f64 {
    let own = match param.part {
        Part::Tower => config.vision_tower_lr,
        Part::Merger => config.multi_modal_projector_lr,
        Part::Table | Part::Layer(_) | Part::Head => None,
    };
    // If the configured rate of the job is 0, so is every other rate.
    let scaled = |own: f64| if config.learning_rate > 0.0 { lr * (own / config.learning_rate) } else { 0.0 };
    own.map_or(lr, scaled)
}

/// Returns the storage of a parameter's moments. Two kinds of parameters always use f32: norms and biases, because they
/// are small, and the token embedding, because the gradients of its rows are too uneven for 8-bit codes (bitsandbytes
/// recommends f32 for it, too).
fn moments_of(param: &Param, chosen: OptimizerName) -> OptimizerName {
    let exact = !param.is_matrix || param.part == Part::Table;
    if exact { OptimizerName::AdamwTorch } else { chosen }
}

fn zero_moments(dev: &mut Device, region: Region, storage: OptimizerName, len: usize) -> Result<Moments> {
    let mut zeros = |dtype, len| dev.zeros(region, dtype, &[len]);
    Ok(match storage {
        OptimizerName::AdamwTorch => Moments::F32 { m: zeros(DType::F32, len)?, v: zeros(DType::F32, len)? },
        OptimizerName::AdamwBf16 => Moments::Bf16 { m: zeros(DType::Bf16, len)?, v: zeros(DType::Bf16, len)? },
        OptimizerName::Adamw8bit => {
            let mut coded = || -> Result<Coded> {
                Ok(Coded { codes: zeros(DType::U8, len)?, scales: zeros(DType::F32, len.div_ceil(BLOCK))? })
            };
            Moments::Code8 { m: coded()?, v: coded()? }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::weights::WeightFiles;
    use crate::nn::weights::outgoing::{create_files, fill_files, weights};
    use omr_runtime::device::{Isa, Plan, Target};

    fn config() -> OptimConfig {
        OptimConfig { weight_decay: 0.1, adam_beta2: 0.95, ..OptimConfig::default() }
    }

    fn setup(dtype: DType) -> (Device, ParamLayout, Optimizer) {
        setup_with(dtype, config())
    }

    fn setup_with(dtype: DType, config: OptimConfig) -> (Device, ParamLayout, Optimizer) {
        let mut dev = Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap();
        let mut layout = ParamLayout::new(dtype);
        layout.within(Part::Head).gate_up(&mut dev, "m", 40, 9, true).unwrap();
        layout.within(Part::Head).norm(&mut dev, "norm", 5).unwrap();
        let optimizer = Optimizer::new(&mut dev, &layout, config, 1).unwrap();
        (dev, layout, optimizer)
    }

    fn bytes(dev: &mut Device, layout: &ParamLayout, optimizer: &Optimizer) -> Vec<u8> {
        let states =
            optimizer.states.iter().flatten().flat_map(|s| s.moments.tensors().into_iter().flatten().chain(s.lo));
        let all = layout.params.iter().map(|p| p.tensor).chain(states);
        all.flat_map(|t| dev.read_bytes(t).unwrap()).collect()
    }

    /// Updates the first `params` parameters with generated gradients; padding has gradient 0.
    fn update(dev: &mut Device, layout: &ParamLayout, optimizer: &mut Optimizer, params: usize, salt: usize) {
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(dev, layout).unwrap();
        for (id, param) in layout.params.iter().enumerate().take(params) {
            let grad = grads.touch(id).unwrap();
            param
                .fill::<f32>(dev, grad, |piece, r, out| {
                    out.iter_mut()
                        .enumerate()
                        .for_each(|(k, g)| *g = ((piece + 3 * r + 7 * k + salt) % 13) as f32 - 6.0);
                })
                .unwrap();
        }
        optimizer.step(dev, layout, &grads, 1e-2).unwrap();
        dev.release(mark);
    }

    fn save(dev: &mut Device, layout: &ParamLayout, optimizer: &Optimizer, dir: &Path) {
        let files = optimizer.outgoing(&Arc::new(layout.clone()));
        write(dev, files, dir);
    }

    fn write(dev: &mut Device, files: Vec<OutFile>, dir: &Path) {
        create_files(dir, &files).unwrap();
        fill_files(dir, files, &mut |t| dev.read_bytes(t)).unwrap();
    }

    /// Returns every combination of weight and moment storage.
    fn variants() -> Vec<(DType, OptimConfig)> {
        let mut all = Vec::new();
        for optim in [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit] {
            all.push((DType::F32, OptimConfig { optim, ..config() }));
            for bf16_stochastic_round in [false, true] {
                all.push((DType::Bf16, OptimConfig { optim, bf16_stochastic_round, ..config() }));
            }
        }
        all
    }

    #[test]
    fn saved_state_goes_on_with_the_same_bits() {
        for (dtype, config) in variants() {
            let dir = tempfile::tempdir().unwrap();
            let (mut dev, layout, mut optimizer) = setup_with(dtype, config.clone());
            update(&mut dev, &layout, &mut optimizer, 3, 1);
            update(&mut dev, &layout, &mut optimizer, 2, 2);
            save(&mut dev, &layout, &optimizer, dir.path());
            let shared = Arc::new(layout.clone());
            write(&mut dev, weights(&shared, dtype, optimizer.own()), dir.path());

            let (mut fresh, copy, mut resumed) = setup_with(dtype, config.clone());
            WeightFiles::open(dir.path()).unwrap().load_part(&mut fresh, &copy).unwrap();
            resumed.load(&mut fresh, &copy, dir.path()).unwrap();
            assert_eq!(
                bytes(&mut dev, &layout, &optimizer),
                bytes(&mut fresh, &copy, &resumed),
                "{dtype:?} {config:?}"
            );
            update(&mut dev, &layout, &mut optimizer, 3, 3);
            update(&mut fresh, &copy, &mut resumed, 3, 3);
            assert_eq!(
                bytes(&mut dev, &layout, &optimizer),
                bytes(&mut fresh, &copy, &resumed),
                "{dtype:?} {config:?}"
            );
        }
    }

    #[test]
    fn state_of_another_setting_or_layout_is_refused_by_name() {
        for (dtype, saved) in variants() {
            let dir = tempfile::tempdir().unwrap();
            let (mut dev, layout, mut optimizer) = setup_with(dtype, saved.clone());
            update(&mut dev, &layout, &mut optimizer, 3, 1);
            save(&mut dev, &layout, &optimizer, dir.path());
            for (other_dtype, other) in variants() {
                let (mut fresh, copy, mut resumed) = setup_with(other_dtype, other.clone());
                let loaded = resumed.load(&mut fresh, &copy, dir.path());
                let exact = saved.optim == OptimizerName::AdamwTorch;
                let same_order = dtype == other_dtype || exact;
                let key = if saved.optim != other.optim {
                    ": optim:"
                } else if saved.bf16_stochastic_round != other.bf16_stochastic_round {
                    "bf16_stochastic_round"
                } else if !same_order {
                    "order"
                } else {
                    // f32 moments do not depend on the type of the weights, but low halves do.
                    assert_eq!(loaded.is_ok(), dtype == other_dtype, "{dtype:?} to {other_dtype:?}");
                    continue;
                };
                let error = loaded.unwrap_err();
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().contains(key), "{error}");
            }
        }
    }

    #[test]
    fn files_from_before_the_choice_was_noted_are_of_f32_moments() {
        for (dtype, config) in variants() {
            let dir = tempfile::tempdir().unwrap();
            let (mut dev, layout, mut optimizer) = setup_with(dtype, config.clone());
            update(&mut dev, &layout, &mut optimizer, 3, 1);
            let mut files = optimizer.outgoing(&Arc::new(layout.clone()));
            files.iter_mut().for_each(|file| file.notes.clear());
            write(&mut dev, files, dir.path());
            let (mut fresh, copy, mut resumed) = setup_with(dtype, config.clone());
            let plain = config.optim == OptimizerName::AdamwTorch && !config.bf16_stochastic_round;
            assert_eq!(resumed.load(&mut fresh, &copy, dir.path()).is_ok(), plain);
        }
    }

    #[test]
    fn memory_is_a_byte_a_moment_and_a_scale_for_256() {
        let mut dev = Device::count_for(Target::cpu(1));
        let mut layout = ParamLayout::new(DType::Bf16);
        layout.within(Part::Head).linear(&mut dev, "w", [1024, 1024], [1024, 1024], true).unwrap();
        let mut state = |optim| {
            let before = dev.high_water().bytes(Region::State);
            Optimizer::new(&mut dev, &layout, OptimConfig { optim, ..config() }, 1).unwrap();
            dev.high_water().bytes(Region::State) - before
        };
        let (matrix, bias, norm) = (1 << 20, 1024 * (8 + 2), 64);
        assert_eq!(state(OptimizerName::AdamwTorch), matrix * (8 + 2) + bias + norm);
        assert_eq!(state(OptimizerName::AdamwBf16), matrix * (4 + 2) + bias + norm);
        assert_eq!(state(OptimizerName::Adamw8bit), matrix * (2 + 2) + 2 * 4 * matrix / BLOCK + bias + norm);
    }

    #[test]
    fn without_a_gradient_nothing_moves_or_decays() {
        let (mut dev, layout, mut optimizer) = setup(DType::F32);
        let ones = |_: usize, _: usize, out: &mut [f32]| out.fill(1.0);
        layout.params.iter().for_each(|p| p.fill::<f32>(&mut dev, p.tensor, ones).unwrap());
        update(&mut dev, &layout, &mut optimizer, 1, 0);
        assert!(dev.read::<f32>(layout.params[2].tensor).unwrap().iter().all(|w| *w == 1.0));
        assert!(dev.read::<f32>(layout.params[0].tensor).unwrap().iter().any(|w| *w != 1.0 && *w != 0.0));
        assert!(optimizer.stats(&mut dev).unwrap().finite);
    }

    #[test]
    fn a_set_with_a_missing_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut dev, layout, mut optimizer) = setup(DType::F32);
        assert_eq!(optimizer.load(&mut dev, &layout, dir.path()).unwrap_err().exit_code(), 2);
        std::fs::write(dir.path().join("optim-00001-of-00002.safetensors"), "").unwrap();
        assert!(optimizer.load(&mut dev, &layout, dir.path()).is_err());
    }
}
