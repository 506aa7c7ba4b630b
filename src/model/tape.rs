//! The tape: forward passes leave behind what their backward needs, backward takes it up last in, first out.
//!
//! Activations lie in one region's stack and are freed as backward passes them; gradients of activations live in
//! the workspace's stack; gradients of parameters are added to [`Grads`] in f32. [`Tape::checkpoint`] drops what a
//! block left behind and replays the block in backward, which changes no bit. An inferring tape records nothing.

use std::collections::HashMap;

use crate::device::{Device, Mark, Region};
use crate::error::{Error, Result};
use crate::model::params::ParamLayout;
use crate::tensor::{DType, Elem, Tensor};

/// What a training forward keeps of a layer; backward computes the rest again. The bits of the gradients do not depend
/// on it, and attention is computed once at every level: at the lengths that need recomputation it costs as much as
/// the layer's matrices, and its result is no larger than the layer's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// All that backward reads.
    #[default]
    All,
    /// The input, q, k and v, attention's result and the sum after it: gate and up, their product and the norms are
    /// computed again.
    AllButGateUp,
    /// The input and attention's result: all matrices but the last are multiplied again.
    Inputs,
}

/// Levels of a stack of equal layers: how many keep how little, from the first layer on. What a later layer kept is
/// freed before an earlier one is computed again, so the first layers are those with room for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stack {
    /// So many layers keep [`Keep::Inputs`].
    pub inputs: usize,
    /// So many after them keep [`Keep::AllButGateUp`]; the rest keeps all.
    pub all_but_gate_up: usize,
}

impl Stack {
    /// The level of layer `index`.
    pub fn keep(&self, index: usize) -> Keep {
        match index.checked_sub(self.inputs) {
            None => Keep::Inputs,
            Some(after) if after < self.all_but_gate_up => Keep::AllButGateUp,
            Some(_) => Keep::All,
        }
    }
}

impl From<Keep> for Stack {
    /// All layers alike.
    fn from(keep: Keep) -> Stack {
        match keep {
            Keep::All => Stack::default(),
            Keep::AllButGateUp => Stack { inputs: 0, all_but_gate_up: usize::MAX },
            Keep::Inputs => Stack { inputs: usize::MAX, all_but_gate_up: 0 },
        }
    }
}

/// What a training forward keeps of the whole model. No bit of the gradients depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Levels {
    /// The decoder's layers.
    pub text: Stack,
    /// The vision tower's blocks.
    pub vision: Stack,
    /// Of the tower only pixels and merged rows outlast its forward: backward computes one chunk of images after the
    /// other again, keeping of the blocks what `vision` says.
    pub replay_tower: bool,
}

impl From<Keep> for Levels {
    /// All layers alike; the tower is replayed where inputs alone are kept.
    fn from(keep: Keep) -> Levels {
        Levels { text: keep.into(), vision: keep.into(), replay_tower: keep == Keep::Inputs }
    }
}

/// What a pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Backward follows; activations lie in [`Region::Overlay`].
    Train(Levels),
    /// Only the result counts; all lies in [`Region::Workspace`] and a layer's scratch is freed with the layer.
    Infer,
}

impl Mode {
    /// A training pass that keeps so much.
    pub fn train(keep: impl Into<Levels>) -> Mode {
        Mode::Train(keep.into())
    }
}

/// A value on the tape.
#[derive(Clone, Copy, Debug)]
pub struct Var {
    /// Where it lies.
    pub tensor: Tensor,
    id: usize,
}

impl Var {
    /// The same value under another shape.
    pub fn reshape(self, dims: &[usize]) -> Var {
        Var { tensor: self.tensor.reshape(dims), ..self }
    }
}

/// Gradients of all parameters, f32, each in its parameter's element order, in [`Region::Overlay`].
pub struct Grads {
    tensors: Vec<Tensor>,
    touched: Vec<bool>,
}

impl Grads {
    /// Zero gradients for every parameter of `layout`.
    pub fn new(dev: &mut Device, layout: &ParamLayout) -> Result<Grads> {
        let zeros = |p: &crate::model::params::Param| dev.zeros(Region::Overlay, DType::F32, &[p.tensor.len()]);
        let tensors = layout.params.iter().map(zeros).collect::<Result<Vec<Tensor>>>()?;
        Ok(Grads { touched: vec![false; tensors.len()], tensors })
    }

    /// Back to zero, nothing touched.
    pub fn zero(&mut self, dev: &mut Device) -> Result<()> {
        self.touched.fill(false);
        self.tensors.iter().try_for_each(|t| dev.fill_zero(*t))
    }

    /// The gradient of parameter `id`, or `None` when no backward has reached it since the last zero: such a
    /// parameter is left alone by the optimizer.
    pub fn get(&self, id: usize) -> Option<Tensor> {
        self.touched[id].then_some(self.tensors[id])
    }

    /// What lies where the gradient of parameter `id` is kept: zeros where no backward has reached it.
    pub fn tensor(&self, id: usize) -> Tensor {
        self.tensors[id]
    }

    /// From here on those parameters have a gradient that `touched` says, and no others.
    pub fn touch_all(&mut self, touched: &[bool]) {
        self.touched.copy_from_slice(touched);
    }

    /// The gradient of parameter `id`, to be added to.
    pub fn touch(&mut self, id: usize) -> Tensor {
        self.touched[id] = true;
        self.tensors[id]
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        self.tensors.len()
    }
}

type Node = Box<dyn FnOnce(&mut Backward<'_>) -> Result<()>>;

/// The record of one pass.
pub struct Tape {
    mode: Mode,
    recording: bool,
    /// Each op's backward with the stack's height before its outputs.
    nodes: Vec<(Mark, Node)>,
    num_vars: usize,
    notes: Vec<(&'static str, usize, Tensor)>,
    start: [Mark; 2],
}

impl Tape {
    /// An empty tape. What is allocated on it lies on top of the device's stacks until [`Tape::finish`].
    pub fn new(dev: &Device, mode: Mode) -> Tape {
        Tape {
            mode,
            recording: mode != Mode::Infer,
            nodes: Vec::new(),
            num_vars: 0,
            notes: Vec::new(),
            start: [dev.mark(Region::Overlay), dev.mark(Region::Workspace)],
        }
    }

    /// Frees everything allocated since [`Tape::new`].
    pub fn finish(self, dev: &mut Device) {
        self.start.into_iter().for_each(|mark| dev.release(mark));
    }

    /// What the pass is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// True while ops leave their backward behind.
    pub fn recording(&self) -> bool {
        self.recording
    }

    /// Where activations lie.
    pub fn region(&self) -> Region {
        if self.mode == Mode::Infer { Region::Workspace } else { Region::Overlay }
    }

    /// A value on top of the activation stack; its content is undefined.
    pub fn alloc(&mut self, dev: &mut Device, dtype: DType, dims: &[usize]) -> Result<Var> {
        let tensor = dev.alloc(self.region(), dtype, dims)?;
        Ok(self.var(tensor))
    }

    /// A tensor that lies elsewhere, as a value.
    pub fn var(&mut self, tensor: Tensor) -> Var {
        self.num_vars += 1;
        Var { tensor, id: self.num_vars - 1 }
    }

    /// Host data on top of the activation stack.
    pub fn upload<T: Elem>(&self, dev: &mut Device, data: &[T], dims: &[usize]) -> Result<Tensor> {
        dev.upload(self.region(), data, dims)
    }

    /// Leaves an op's backward behind. `mark` is the stack's height before the op's outputs were allocated.
    pub fn record(&mut self, mark: Mark, backward: impl FnOnce(&mut Backward<'_>) -> Result<()> + 'static) {
        if self.recording {
            self.nodes.push((mark, Box::new(backward)));
        }
    }

    /// Gives a value a name and an index to find it by while the tape lives. Values of replayed blocks are gone
    /// when the pass returns and carry no name.
    pub fn note(&mut self, name: &'static str, index: usize, value: Var) {
        if self.recording {
            self.notes.push((name, index, value.tensor));
        }
    }

    /// The named values, in the order they were computed.
    #[cfg_attr(private_tree, expect(dead_code, reason = "goldens compare the values between layers"))]
    pub fn notes(&self) -> &[(&'static str, usize, Tensor)] {
        &self.notes
    }

    /// What a training pass keeps; all on a tape that infers.
    pub fn levels(&self) -> Levels {
        match self.mode {
            Mode::Train(levels) => levels,
            Mode::Infer => Levels::default(),
        }
    }

    /// Runs `block`, whose results lie in values allocated before. With `replay` what it leaves behind is dropped
    /// and backward runs it again first, telling it so: values from before then hold what the first run wrote, and need
    /// not be computed again. On an inferring tape its scratch is freed.
    pub fn checkpoint(
        &mut self,
        dev: &mut Device,
        replay: bool,
        block: impl Fn(&mut Tape, &mut Device, Again) -> Result<()> + 'static,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        if self.recording && !replay {
            return block(self, dev, Again(false));
        }
        self.unrecorded(dev, |tape, dev| block(tape, dev, Again(false)))?;
        self.record(mark, move |b| b.replay(&block));
        Ok(())
    }

    /// Runs `block`, whose results lie in values allocated before, without backward; what it allocated is freed.
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

    /// [`Tape::checkpoint`] of several blocks that do not depend on one another. Backward takes them up in the order
    /// they ran in, so that sums over all blocks' rows go on ascending over the borders between them.
    pub fn checkpoints<B>(&mut self, dev: &mut Device, replay: bool, blocks: Vec<B>) -> Result<()>
    where
        B: Fn(&mut Tape, &mut Device, Again) -> Result<()> + 'static,
    {
        let mark = dev.mark(self.region());
        if self.recording && !replay && blocks.len() == 1 {
            return blocks[0](self, dev, Again(false));
        }
        if !self.recording || replay {
            for block in &blocks {
                self.unrecorded(dev, |tape, dev| block(tape, dev, Again(false)))?;
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
            block(self, dev, Again(false))?;
            parts.push(self.nodes.split_off(start));
        }
        // The last part lies on top: nothing of the forward's is freed before all are done.
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

    /// A stack of `count` layers that keep the shape of `x`: `layer(tape, dev, i, x, out)` writes layer i's result.
    /// `x` is given up: a pass that leaves nothing behind reuses its memory.
    pub fn layers(
        &mut self,
        dev: &mut Device,
        name: &'static str,
        mut x: Var,
        count: usize,
        layer: impl Fn(&mut Tape, &mut Device, usize, Var, Var) -> Result<()> + Clone + 'static,
    ) -> Result<Var> {
        let mut spare = None;
        for i in 0..count {
            dev.go_on()?;
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

    /// Backward from the given values' gradients: adds every parameter's gradient to `grads` and frees the
    /// activations. A value without a gradient costs nothing.
    pub fn backward(&mut self, dev: &mut Device, grads: &mut Grads, seeds: &[(Var, Tensor)]) -> Result<()> {
        if self.mode == Mode::Infer {
            return Err(Error::Failed("backward on a tape that only inferred".into()));
        }
        let slots = seeds.iter().map(|(var, tensor)| (var.id, Slot { tensor: *tensor, place: None })).collect();
        let mut backward = Backward { tape: self, dev, grads, slots, stack: Vec::new() };
        backward.run_to(0)
    }
}

/// Whether a block runs for the second time, in backward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Again(pub bool);

/// A value's gradient: its memory and its place in the gradients' stack (none: the caller's).
#[derive(Clone, Copy)]
struct Slot {
    tensor: Tensor,
    place: Option<usize>,
}

/// A backward pass under way: what an op's backward works with.
pub struct Backward<'a> {
    tape: &'a mut Tape,
    /// The device.
    pub dev: &'a mut Device,
    grads: &'a mut Grads,
    slots: HashMap<usize, Slot>,
    /// Stack heights below each gradient, and whether it is in use.
    stack: Vec<(Mark, bool)>,
}

/// A gradient taken out of its slot, to be given to [`Backward::free`] or [`Backward::pass_on`].
#[must_use]
pub struct Taken {
    /// The gradient.
    pub tensor: Tensor,
    place: Option<usize>,
}

impl Backward<'_> {
    /// Runs a checkpointed block again, and its backward.
    fn replay(&mut self, block: &impl Fn(&mut Tape, &mut Device, Again) -> Result<()>) -> Result<()> {
        let start = self.tape.nodes.len();
        block(self.tape, self.dev, Again(true))?;
        self.run_to(start)
    }

    fn run_to(&mut self, len: usize) -> Result<()> {
        while self.tape.nodes.len() > len {
            let Some((mark, node)) = self.tape.nodes.pop() else { break };
            self.dev.go_on()?;
            node(self)?;
            self.dev.release(mark);
        }
        Ok(())
    }

    /// The whole gradient of `y`, or `None` when nothing depends on `y`.
    pub fn take(&mut self, y: Var) -> Option<Taken> {
        let slot = self.slots.remove(&y.id)?;
        Some(Taken { tensor: slot.tensor.reshape(&y.tensor.shape), place: slot.place })
    }

    /// The whole gradient of `y`, left in its slot: for ops that change a value in place.
    pub fn peek(&self, y: Var) -> Option<Tensor> {
        self.slots.get(&y.id).map(|slot| slot.tensor.reshape(&y.tensor.shape))
    }

    /// The gradient of `x` to write (false) or to add to (true).
    pub fn of(&mut self, x: Var) -> Result<(Tensor, bool)> {
        if let Some(slot) = self.slots.get(&x.id) {
            return Ok((slot.tensor.reshape(&x.tensor.shape), true));
        }
        let mark = self.dev.mark(Region::Workspace);
        let tensor = self.dev.alloc(Region::Workspace, x.tensor.dtype, &x.tensor.shape)?;
        self.slots.insert(x.id, Slot { tensor, place: Some(self.stack.len()) });
        self.stack.push((mark, true));
        Ok((tensor, false))
    }

    /// Makes a gradient that was `y`'s the gradient of `x`: dx = dy. `x` has none yet.
    pub fn pass_on(&mut self, taken: Taken, x: Var) {
        let before = self.slots.insert(x.id, Slot { tensor: taken.tensor, place: taken.place });
        assert!(before.is_none(), "a residual is used by nothing after the layer that adds it");
    }

    /// Frees a gradient, and all freed ones below that it covered.
    pub fn free(&mut self, taken: Taken) {
        if let Some(place) = taken.place {
            self.stack[place].1 = false;
        }
        while let Some(&(mark, false)) = self.stack.last() {
            self.dev.release(mark);
            self.stack.pop();
        }
    }

    /// The gradient of parameter `id`, to be added to.
    pub fn param(&mut self, id: usize) -> Tensor {
        self.grads.touch(id)
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
