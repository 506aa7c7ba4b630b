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

/// What a training forward keeps of each layer. The bits of the gradients do not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// All that backward reads.
    #[default]
    All,
    /// All but the MLP's gate, up and product, which are computed again.
    AllButGateUp,
    /// Only the layer's input; of the vision tower only the pixels.
    Inputs,
}

/// What a pass is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Backward follows; activations lie in [`Region::Overlay`].
    Train(Keep),
    /// Only the result counts; all lies in [`Region::Workspace`] and a layer's scratch is freed with the layer.
    Infer,
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

    /// The gradient of parameter `id`, to be added to.
    pub fn touch(&mut self, id: usize) -> Tensor {
        self.touched[id] = true;
        self.tensors[id]
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True for a model without parameters.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
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
    pub fn notes(&self) -> &[(&'static str, usize, Tensor)] {
        &self.notes
    }

    /// Runs `block`, whose results lie in values allocated before. With `replay` what it leaves behind is dropped
    /// and backward runs it again first. On an inferring tape its scratch is freed.
    pub fn checkpoint(
        &mut self,
        dev: &mut Device,
        replay: bool,
        block: impl Fn(&mut Tape, &mut Device) -> Result<()> + 'static,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        if self.recording && !replay {
            return block(self, dev);
        }
        let recording = std::mem::replace(&mut self.recording, false);
        let done = block(self, dev);
        self.recording = recording;
        dev.release(mark);
        done?;
        self.record(mark, move |b| {
            let start = b.tape.nodes.len();
            block(b.tape, b.dev)?;
            b.run_to(start)
        });
        Ok(())
    }

    /// A stack of `count` layers that keep the shape of `x`: `layer(tape, dev, i, x, out)` writes layer i's result.
    /// `x` is given up: an inferring tape reuses its memory.
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
            let replay = self.mode == Mode::Train(Keep::Inputs);
            dev.range(format_args!("{name} {i}"), |dev| {
                self.checkpoint(dev, replay, move |tape, dev| layer(tape, dev, i, x, out))
            })?;
            if ranges {
                self.record(dev.mark(self.region()), move |b| {
                    b.dev.open_range(format_args!("{name} {i}"));
                    Ok(())
                });
            }
            self.note(name, i, out);
            if self.mode == Mode::Infer {
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
    fn run_to(&mut self, len: usize) -> Result<()> {
        while self.tape.nodes.len() > len {
            let Some((mark, node)) = self.tape.nodes.pop() else { break };
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
