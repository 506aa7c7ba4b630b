//! The tape for automatic differentiation: forward passes record what their backward needs, and backward processes the
//! records in reverse order.
//!
//! Activations are allocated on the stack of one region and are freed as backward passes them. Gradients of activations
//! are on the workspace's stack; gradients of parameters go to a [`GradientSink`] in f32. [`Tape::checkpoint`] discards
//! what a block recorded and runs the block again in backward, with bitwise identical results. A tape in inference mode
//! records nothing.

pub(crate) mod gather;
pub mod grads;
pub mod layer;
pub mod layers;
pub mod prompts;
pub mod qkv;
pub mod spread;

use std::collections::HashMap;
use std::ops::Range;

use self::grads::GradientSink;
use super::weights::linear_layer::Adapted;
use super::weights::params::Linear;
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Mark, Region};
use omr_runtime::ops::gradient::Gradient;
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Activation checkpointing policy of one layer: what a training forward keeps, so that backward recomputes the rest.
/// Gradients do not depend on it. Attention is never recomputed: at the lengths that need recomputation it costs as
/// much as the layer's matrices, while its result is no larger than the layer's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LayerPolicy {
    /// Keeps everything that backward reads.
    #[default]
    All,
    /// Keeps the input, q, k and v, the result of attention and the sum after it. Backward recomputes gate and up,
    /// their product, and the norms.
    AllButGateUp,
    /// Keeps the input and the result of attention. Backward recomputes all matrix products except the last one.
    Inputs,
}

/// Policies of a stack of equal layers: how many layers, counted from the first one, keep less. The first layers keep
/// less because backward recomputes them last, when the memory of later layers is already free.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stack {
    /// Number of first layers that use [`LayerPolicy::Inputs`].
    pub inputs: usize,
    /// Number of layers after those that use [`LayerPolicy::AllButGateUp`]. The remaining layers keep everything.
    pub all_but_gate_up: usize,
}

impl Stack {
    /// Returns the policy of layer `index`.
    pub fn keep(&self, index: usize) -> LayerPolicy {
        match index.checked_sub(self.inputs) {
            None => LayerPolicy::Inputs,
            Some(after) if after < self.all_but_gate_up => LayerPolicy::AllButGateUp,
            Some(_) => LayerPolicy::All,
        }
    }
}

impl From<LayerPolicy> for Stack {
    /// Uses the same policy for all layers.
    fn from(keep: LayerPolicy) -> Stack {
        match keep {
            LayerPolicy::All => Stack::default(),
            LayerPolicy::AllButGateUp => Stack { inputs: 0, all_but_gate_up: usize::MAX },
            LayerPolicy::Inputs => Stack { inputs: usize::MAX, all_but_gate_up: 0 },
        }
    }
}

/// Activation checkpointing policy of the whole model. Gradients do not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CheckpointPolicy {
    /// Policy of the decoder's layers.
    pub text: Stack,
    /// Policy of the vision tower's blocks.
    pub vision: Stack,
    /// True if only the pixels and the merged rows are kept after the tower's forward pass. Backward then recomputes
    /// one chunk of images after the other; within a chunk, the blocks follow `vision`.
    pub replay_tower: bool,
}

impl From<LayerPolicy> for CheckpointPolicy {
    /// Uses the same policy for all layers. The tower is recomputed if only inputs are kept.
    fn from(keep: LayerPolicy) -> CheckpointPolicy {
        CheckpointPolicy { text: keep.into(), vision: keep.into(), replay_tower: keep == LayerPolicy::Inputs }
    }
}

/// The purpose of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Training: backward follows, and activations are in [`Region::Overlay`].
    Train(CheckpointPolicy),
    /// Inference: everything is in [`Region::Workspace`], and a layer's scratch is freed at the end of the layer.
    Infer,
}

impl Mode {
    /// Returns the mode of a training pass with the policy `keep`.
    pub fn train(keep: impl Into<CheckpointPolicy>) -> Mode {
        Mode::Train(keep.into())
    }
}

/// A value on the tape.
#[derive(Clone, Copy, Debug)]
pub struct Var {
    /// Memory of the value.
    pub tensor: Tensor,
    id: usize,
}

impl Var {
    /// Returns the same value with another shape.
    pub fn reshape(self, dims: &[usize]) -> Var {
        Var { tensor: self.tensor.reshape(dims), ..self }
    }
}

type Node = Box<dyn FnOnce(&mut Backward<'_>) -> Result<()>>;

/// The record of one pass.
pub struct Tape {
    /// Purpose of the pass.
    pub(super) mode: Mode,
    /// True if ops record their backward.
    pub(super) recording: bool,
    /// Backward function of each op, with the height of the stack before the op's outputs.
    nodes: Vec<(Mark, Node)>,
    /// True for each value that depends on parameters that are trained.
    trained: Vec<bool>,
    /// False if all parameters except those of adapters are frozen.
    pub(super) trains_base: bool,
    /// The rows of the following layers to which adapters apply.
    pub adapted: Adapted,
    notes: Vec<(&'static str, usize, Tensor)>,
    start: [Mark; 2],
}

impl Tape {
    /// Creates an empty tape. Its allocations are on top of the device's stacks until [`Tape::finish`].
    pub fn new(dev: &Device, mode: Mode) -> Tape {
        Tape {
            mode,
            recording: mode != Mode::Infer,
            nodes: Vec::new(),
            trained: Vec::new(),
            trains_base: true,
            adapted: Adapted::All,
            notes: Vec::new(),
            start: [dev.mark(Region::Overlay), dev.mark(Region::Workspace)],
        }
    }

    /// Frees everything allocated since [`Tape::new`].
    pub fn finish(self, dev: &mut Device) {
        self.start.into_iter().for_each(|mark| dev.release(mark));
    }

    /// Returns the region of activations.
    pub fn region(&self) -> Region {
        if self.mode == Mode::Infer { Region::Workspace } else { Region::Overlay }
    }

    /// Allocates a value on top of the activation stack. Its content is undefined.
    pub fn alloc(&mut self, dev: &mut Device, dtype: DType, dims: &[usize]) -> Result<Var> {
        let tensor = dev.alloc(self.region(), dtype, dims)?;
        Ok(self.var(tensor))
    }

    /// Turns a tensor that was allocated elsewhere into a value.
    pub fn var(&mut self, tensor: Tensor) -> Var {
        self.trained.push(true);
        Var { tensor, id: self.trained.len() - 1 }
    }

    /// Returns true if parameters of `layer` are trained.
    pub fn trains(&self, layer: &Linear) -> bool {
        self.trains_base || layer.adapter.is_some()
    }

    /// Returns true if `x` depends on parameters that are trained. Otherwise its gradient is not computed.
    pub fn is_trained(&self, x: Var) -> bool {
        self.trained[x.id]
    }

    /// States whether `x` depends on parameters that are trained, and returns true if its op must record its backward.
    pub fn set_trained(&mut self, x: Var, is_trained: bool) -> bool {
        self.trained[x.id] = is_trained;
        is_trained && self.recording
    }

    /// Copies host data to the top of the activation stack.
    pub fn upload<T: Elem>(&self, dev: &mut Device, data: &[T], dims: &[usize]) -> Result<Tensor> {
        dev.upload(self.region(), data, dims)
    }

    /// Records an op's backward. `mark` is the height of the stack before the op's outputs were allocated.
    pub fn record(&mut self, mark: Mark, backward: impl FnOnce(&mut Backward<'_>) -> Result<()> + 'static) {
        if self.recording {
            self.nodes.push((mark, Box::new(backward)));
        }
    }

    /// States whether `y` depends on parameters that are trained. If it does, records `backward(b, dy)` of its op, where dy
    /// is the complete gradient of `y`, which is then freed. It is not called if nothing depends on `y`.
    pub fn record_of(
        &mut self,
        mark: Mark,
        y: Var,
        is_trained: bool,
        backward: impl FnOnce(&mut Backward<'_>, Tensor) -> Result<()> + 'static,
    ) {
        if self.set_trained(y, is_trained) {
            self.record(mark, move |b| {
                let Some(dy) = b.take(y) else { return Ok(()) };
                backward(b, dy.tensor)?;
                b.free(dy);
                Ok(())
            });
        }
    }

    /// Names a value, so that it can be found by name and index as long as the tape exists. Values inside recomputed
    /// blocks are not named, because they are freed before the pass returns.
    pub fn note(&mut self, name: &'static str, index: usize, value: Var) {
        if self.recording {
            self.notes.push((name, index, value.tensor));
        }
    }

    /// Returns the named values, in the order in which they were computed.
    pub fn notes(&self) -> &[(&'static str, usize, Tensor)] {
        &self.notes
    }

    /// Returns the activation checkpointing policy. A tape in inference mode returns the default.
    pub fn levels(&self) -> CheckpointPolicy {
        match self.mode {
            Mode::Train(levels) => levels,
            Mode::Infer => CheckpointPolicy::default(),
        }
    }

    /// Runs `block`, whose results are in values allocated before. With `replay`, its records are discarded, and
    /// backward runs the block again before its backward; that run receives `Recompute(true)`. Values allocated before the
    /// block then still hold the results of the first run, so the block need not compute these again. On a tape in
    /// inference mode the block's scratch is freed.
    pub fn checkpoint(
        &mut self,
        dev: &mut Device,
        replay: bool,
        block: impl Fn(&mut Tape, &mut Device, Recompute) -> Result<()> + 'static,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        if self.recording && !replay {
            return block(self, dev, Recompute(false));
        }
        self.unrecorded(dev, |tape, dev| block(tape, dev, Recompute(false)))?;
        self.record(mark, move |b| b.replay(&block));
        Ok(())
    }

    /// Runs `block`, whose results are in values allocated before, without recording. Frees what it allocated.
    pub fn unrecorded<R>(
        &mut self,
        dev: &mut Device,
        block: impl FnOnce(&mut Tape, &mut Device) -> Result<R>,
    ) -> Result<R> {
        let mark = dev.mark(self.region());
        let recording = std::mem::replace(&mut self.recording, false);
        let done = block(self, dev);
        self.recording = recording;
        dev.release(mark);
        done
    }

    /// Does the same as [`Tape::checkpoint`] for several blocks that do not depend on one another. Backward processes
    /// the blocks in their forward order. Therefore sums over the rows of all blocks are accumulated in ascending order
    /// across blocks.
    pub fn checkpoints<B>(&mut self, dev: &mut Device, replay: bool, blocks: Vec<B>) -> Result<()>
    where
        B: Fn(&mut Tape, &mut Device, Recompute) -> Result<()> + 'static,
    {
        let mark = dev.mark(self.region());
        if self.recording && !replay && blocks.len() == 1 {
            return blocks[0](self, dev, Recompute(false));
        }
        if !self.recording || replay {
            for block in &blocks {
                self.unrecorded(dev, |tape, dev| block(tape, dev, Recompute(false)))?;
            }
            self.record(mark, move |b| {
                blocks.iter().try_for_each(|block| {
                    b.replay(block)?;
                    b.dev.release(mark);
                    Ok(())
                })
            });
            return Ok(());
        }
        let mut parts: Vec<Vec<(Mark, Node)>> = Vec::with_capacity(blocks.len());
        for block in &blocks {
            let start = self.nodes.len();
            block(self, dev, Recompute(false))?;
            parts.push(self.nodes.split_off(start));
        }
        // The last block's values are on top of the stack, so nothing of the forward is freed before all blocks are
        // done.
        self.record(mark, move |b| {
            let top = b.dev.mark(b.tape.region());
            for (_, node) in parts.into_iter().flat_map(|part| part.into_iter().rev()) {
                node(b)?;
                b.dev.release(top);
            }
            Ok(())
        });
        Ok(())
    }

    /// Runs the layers of a stack that keep the shape of `x`: `layer(tape, dev, i, x, out)` writes the result of layer i.
    /// The memory of `x` may be reused if nothing is recorded.
    pub fn layers(
        &mut self,
        dev: &mut Device,
        name: &'static str,
        mut x: Var,
        layers: Range<usize>,
        layer: impl Fn(&mut Tape, &mut Device, usize, Var, Var) -> Result<()> + Clone + 'static,
    ) -> Result<Var> {
        let mut spare = None;
        for i in layers {
            dev.check_stop()?;
            let out = match spare.take() {
                Some(tensor) => self.var(tensor),
                None => self.alloc(dev, x.tensor.dtype, &x.tensor.shape)?,
            };
            let layer = layer.clone();
            let ranges = self.recording && dev.records_ranges();
            if ranges {
                self.record(dev.mark(self.region()), |b| {
                    b.dev.close_range();
                    Ok(())
                });
            }
            dev.range(format_args!("{name} {i}"), |dev| {
                self.checkpoint(dev, false, move |tape, dev, _| layer(tape, dev, i, x, out))
            })?;
            if ranges {
                self.record(dev.mark(self.region()), move |b| {
                    b.dev.open_range(format_args!("{name} {i}"));
                    Ok(())
                });
            }
            self.note(name, i, out);
            if !self.recording {
                spare = Some(x.tensor);
            }
            x = out;
        }
        Ok(x)
    }

    /// Runs backward from the gradients of the given values, adds every parameter's gradient to `grads`, and frees the
    /// activations. This is one micro-batch of `grads`. Ops whose result has no gradient are skipped.
    pub fn backward(&mut self, dev: &mut Device, grads: &mut dyn GradientSink, seeds: &[(Var, Tensor)]) -> Result<()> {
        if self.mode == Mode::Infer {
            return Err(Error::Failed("backward on a tape that recorded inference only".into()));
        }
        let found = seeds.iter().map(|(var, tensor)| (var.id, Taken { tensor: *tensor, place: None })).collect();
        let mut backward = Backward { tape: self, dev, grads, found, stack: Vec::new() };
        backward.run_to(0)?;
        grads.finish(dev)
    }
}

/// True if a block is being recomputed in backward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recompute(pub bool);

/// A backward pass in progress. The backward functions of ops use it.
pub struct Backward<'a> {
    tape: &'a mut Tape,
    /// The device.
    pub dev: &'a mut Device,
    grads: &'a mut dyn GradientSink,
    /// The gradients of values.
    found: HashMap<usize, Taken>,
    /// Height of the stack below each gradient, and true if the gradient is in use.
    stack: Vec<(Mark, bool)>,
}

/// A gradient taken from its value. It must be passed to [`Backward::free`] or [`Backward::pass_on`].
#[must_use]
pub struct Taken {
    /// The gradient.
    pub tensor: Tensor,
    /// Index in the stack of gradients, or `None` if the caller owns the memory.
    place: Option<usize>,
}

impl Backward<'_> {
    /// Recomputes a checkpointed block and runs its backward.
    fn replay(&mut self, block: &impl Fn(&mut Tape, &mut Device, Recompute) -> Result<()>) -> Result<()> {
        let start = self.tape.nodes.len();
        block(self.tape, self.dev, Recompute(true))?;
        self.run_to(start)
    }

    fn run_to(&mut self, len: usize) -> Result<()> {
        while self.tape.nodes.len() > len {
            let Some((mark, node)) = self.tape.nodes.pop() else { break };
            self.dev.check_stop()?;
            node(self)?;
            self.dev.release(mark);
        }
        Ok(())
    }

    /// Takes the complete gradient of `y`, or returns `None` if nothing depends on `y`.
    pub fn take(&mut self, y: Var) -> Option<Taken> {
        let taken = self.found.remove(&y.id)?;
        Some(Taken { tensor: taken.tensor.reshape(&y.tensor.shape), ..taken })
    }

    /// Returns the complete gradient of `y` and leaves it in place, for ops that change a value in place.
    pub fn peek(&self, y: Var) -> Option<Tensor> {
        self.found.get(&y.id).map(|found| found.tensor.reshape(&y.tensor.shape))
    }

    /// Returns the memory for the gradient of `x`, and true if the caller must add to it or false if the caller must
    /// write it.
    pub fn of(&mut self, x: Var) -> Result<(Tensor, bool)> {
        if let Some(found) = self.found.get(&x.id) {
            return Ok((found.tensor.reshape(&x.tensor.shape), true));
        }
        let mark = self.dev.mark(Region::Workspace);
        let tensor = self.dev.alloc(Region::Workspace, x.tensor.dtype, &x.tensor.shape)?;
        self.found.insert(x.id, Taken { tensor, place: Some(self.stack.len()) });
        self.stack.push((mark, true));
        Ok((tensor, false))
    }

    /// Does the same as [`Backward::of`] if the gradient of `x` is needed.
    pub fn of_trained(&mut self, x: Var) -> Result<Option<(Tensor, bool)>> {
        if self.tape.is_trained(x) { self.of(x).map(Some) } else { Ok(None) }
    }

    /// Makes the gradient of `y` the gradient of `x`, for dx = dy, or frees it if the gradient of `x` is not needed. `x` must not have a gradient yet.
    pub fn pass_on(&mut self, taken: Taken, x: Var) {
        if !self.tape.is_trained(x) {
            return self.free(taken);
        }
        let before = self.found.insert(x.id, taken);
        assert!(before.is_none(), "a residual must not be used after the layer that adds it");
    }

    /// Frees a gradient, and all gradients below it on the stack that were already freed.
    pub fn free(&mut self, taken: Taken) {
        if let Some(place) = taken.place {
            self.stack[place].1 = false;
        }
        while let Some(&(mark, false)) = self.stack.last() {
            self.dev.release(mark);
            self.stack.pop();
        }
    }

    /// Returns the gradient of parameter `id`, or `None` if the parameter is frozen. The caller adds to it.
    pub fn param(&mut self, id: usize) -> Result<Option<Tensor>> {
        let gradient = self.gradient(id)?;
        gradient.map(|gradient| gradient.zeroed(self.dev)).transpose()
    }

    /// Returns the gradient of parameter `id` as [`GradientSink::param`] does, for products.
    pub fn gradient(&mut self, id: usize) -> Result<Option<Gradient>> {
        self.grads.param(self.dev, id)
    }

    /// Runs `f` with scratch of `dtype` and `dims` on top of the workspace.
    pub fn with_scratch<R>(
        &mut self,
        dtype: DType,
        dims: &[usize],
        f: impl FnOnce(&mut Self, Tensor) -> Result<R>,
    ) -> Result<R> {
        let mark = self.dev.mark(Region::Workspace);
        let tensor = self.dev.alloc(Region::Workspace, dtype, dims)?;
        let done = f(self, tensor);
        self.dev.release(mark);
        done
    }
}
