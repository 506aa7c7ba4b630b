//! The gradients of all parameters: those of the current micro-batch, bucket by bucket, and their sums over an update.
//!
//! The gradient of a micro-batch is computed from zero, in memory that holds nothing before. When backward has passed a
//! bucket (a decoder layer, for example), the bucket is added to its sum, so that only the buckets in use need memory
//! beside the sums. On a GPU that computes alone, the products of matrices that have one gradient per micro-batch add it
//! to the sum themselves. A rank of several holds the sums of the elements that it owns.

use std::cmp::Reverse;
use std::mem::replace;
use std::ops::Range;

use crate::nn::weights::layout::ParamLayout;
use crate::nn::weights::params::Param;
use crate::nn::weights::part::{self, Bucket};
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::gradient::{Gradient, Holds};
use omr_runtime::ops::lane_sum;
use omr_runtime::tensor::{DType, Tensor};

/// Alignment of a parameter's gradient in the memory of its bucket, in elements: 256 bytes.
const ALIGN: usize = 64;

/// Receives the gradients of a backward pass.
pub trait GradientSink {
    /// Returns the memory for the gradient of parameter `id`, f32 in the parameter's element order, or `None` if the
    /// parameter is frozen. The first call in a micro-batch returns memory that holds nothing, or the sum to which the
    /// caller's gradient is added.
    fn param(&mut self, dev: &mut Device, id: usize) -> Result<Option<Gradient>>;

    /// Ends the micro-batch: adds all gradients that were not added yet to their sums.
    fn finish(&mut self, dev: &mut Device) -> Result<()>;
}

/// Sizes of the memory beside the gradients of a micro-batch and their sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GradMemory {
    /// Number of memories that the decoder layers use in turn: 2 if a layer is exchanged while the next one is computed.
    pub in_turn: usize,
    /// Number of ranks that send gradients to this rank, this rank included, and the maximum number of elements that
    /// each of them sends at once. `[0, 0]` in a run of one rank.
    pub received: [usize; 2],
}

impl GradMemory {
    /// The memory of a run of one rank.
    pub const ALONE: GradMemory = GradMemory { in_turn: 1, received: [0, 0] };
}

/// The gradients of one bucket.
pub struct Part {
    /// The bucket.
    pub bucket: Bucket,
    /// Indices of the bucket's parameters that are trained.
    pub params: Vec<usize>,
    /// Gradients of the current micro-batch, f32, flat. Buckets that are not in use at the same time share the memory.
    gradient: Tensor,
    /// Sums of the elements that this rank owns, f32, flat: the range of each parameter, from a multiple of
    /// [`Grads::padded`].
    pub sums: Tensor,
    /// True if no other part uses the memory of `gradient`.
    pub is_alone: bool,
    /// True while `gradient` holds gradients of the current micro-batch.
    pub is_open: bool,
}

/// Position of a parameter's gradient.
#[derive(Clone)]
struct Place {
    /// Index of the parameter's [`Part`].
    part: usize,
    /// First element in the part's `gradient`, or `None` if products add to the sum.
    at: Option<usize>,
    /// The elements that this rank owns.
    own: Range<usize>,
    /// First element in the part's `sums`.
    own_at: usize,
}

/// The gradients of all trained parameters in f32, in [`Region::Overlay`].
pub struct Grads {
    /// The gradients by bucket, in the order of backward.
    pub parts: Vec<Part>,
    /// Positions by parameter. `None` if the parameter is frozen.
    places: Vec<Option<Place>>,
    lens: Vec<usize>,
    /// Memory for gradients that ranks send to this rank, f32, flat.
    received: Tensor,
    /// True for each parameter that has a gradient in this update.
    touched: Vec<bool>,
    /// True for each parameter of an open part whose memory has been handed out since the part was opened.
    started: Vec<bool>,
}

impl Grads {
    /// Allocates zero gradients for every parameter of `layout` that is trained.
    pub fn new(dev: &mut Device, layout: &ParamLayout) -> Result<Grads> {
        let all: Vec<Range<usize>> = layout.lens().into_iter().map(|len| 0..len).collect();
        Grads::sharded(dev, layout, &all, GradMemory::ALONE)
    }

    /// Does the same as [`Grads::new`] for a rank that owns the range `own` of each parameter.
    pub fn sharded(dev: &mut Device, layout: &ParamLayout, own: &[Range<usize>], memory: GradMemory) -> Result<Grads> {
        let (lens, mut places) = (layout.lens(), vec![None; layout.params.len()]);
        let trained = layout.params.iter().enumerate().filter(|(_, p)| p.trains);
        let alone = dev.kind().is_gpu() && memory == GradMemory::ALONE;
        // Matrices of decoder layers and of the head are in one product of a micro-batch. Those of a tower are in one for
        // each chunk of images, and a table that is also the output matrix gets the gradients of the tokens, too.
        let is_summed = |id: usize, param: &Param| {
            let once =
                matches!(param.part, part::Part::Layer(_) | part::Part::Head) && param.is_matrix && !param.is_adapter;
            alone && once && own[id].len() == lens[id]
        };
        // Matrices whose products add to the sums come last, so that the sums of the others lie as their gradients do.
        let mut by_bucket: Vec<(Bucket, bool, usize)> =
            trained.map(|(id, p)| (p.part.bucket(), is_summed(id, p), id)).collect();
        by_bucket.sort_unstable();
        // The gradient of a table that is also the output matrix begins at the head and ends after all layers.
        let is_tied =
            !layout.params.iter().any(|param| param.part == part::Part::Head && param.is_matrix && !param.is_adapter);
        let is_alone = |bucket| bucket == Bucket::Table && is_tied;
        // Index of the memory that a bucket shares with others.
        let turn = |bucket| if let Bucket::Layer(Reverse(layer)) = bucket { layer % memory.in_turn } else { 0 };
        let (mut parts, mut widest, mut widest_sums) = (Vec::new(), vec![0; memory.in_turn], 0);
        for ids in by_bucket.chunk_by(|a, b| a.0 == b.0) {
            let (mut at, mut own_at) = (0, 0);
            for &(_, is_summed, id) in ids {
                let place = (!is_summed).then_some(at);
                places[id] = Some(Place { part: parts.len(), at: place, own: own[id].clone(), own_at });
                at += if is_summed { 0 } else { Grads::padded(lens[id]) };
                own_at += Grads::padded(own[id].len());
            }
            let sums = dev.zeros(Region::Overlay, DType::F32, &[own_at])?;
            let params = ids.iter().map(|(_, _, id)| *id).collect();
            parts.push((ids[0].0, params, at, sums));
            widest_sums = widest_sums.max(own_at);
            if !is_alone(ids[0].0) {
                let widest = &mut widest[turn(ids[0].0)];
                *widest = at.max(*widest);
            }
        }
        let mut zeros = |len: usize| dev.zeros(Region::Overlay, DType::F32, &[len]);
        let shared = widest.into_iter().map(&mut zeros).collect::<Result<Vec<_>>>()?;
        let [ranks, at_once] = memory.received;
        let received = zeros(ranks * at_once.min(widest_sums))?;
        let part = |(bucket, params, len, sums)| -> Result<Part> {
            let is_alone = is_alone(bucket);
            let gradient = if is_alone { zeros(len)? } else { shared[turn(bucket)].slice(0, len) };
            Ok(Part { bucket, params, gradient, sums, is_alone, is_open: false })
        };
        let parts = parts.into_iter().map(part).collect::<Result<_>>()?;
        Ok(Grads {
            parts,
            touched: vec![false; places.len()],
            started: vec![false; places.len()],
            places,
            lens,
            received,
        })
    }

    /// Sets all sums to zero and marks all parameters as untouched, for a new update.
    pub fn zero(&mut self, dev: &mut Device) -> Result<()> {
        self.touched.fill(false);
        for part in &mut self.parts {
            part.is_open = false;
            dev.fill_zero(part.sums)?;
        }
        Ok(())
    }

    /// Returns the sum of parameter `id` over the elements that this rank owns, or `None` if no micro-batch of the
    /// update has a gradient for it. The optimizer does not update such a parameter.
    pub fn get(&self, id: usize) -> Option<Tensor> {
        self.touched[id].then(|| self.tensor(id)).flatten()
    }

    /// Returns the memory of the sum of parameter `id`, or `None` if the parameter is frozen.
    pub fn tensor(&self, id: usize) -> Option<Tensor> {
        let place = self.places[id].as_ref()?;
        Some(self.parts[place.part].sums.slice(place.own_at, place.own_at + place.own.len()))
    }

    /// Marks parameter `id` as touched and returns the memory of its sum, or `None` if the parameter is frozen.
    pub fn touch(&mut self, id: usize) -> Option<Tensor> {
        self.touched[id] = true;
        self.tensor(id)
    }

    /// Returns the number of parameters, frozen ones included.
    pub fn num_params(&self) -> usize {
        self.places.len()
    }

    /// Returns the index of the part of parameter `id`, or `None` if the parameter is frozen.
    pub fn part_of(&self, id: usize) -> Option<usize> {
        self.places[id].as_ref().map(|place| place.part)
    }

    /// Returns the gradient of the current micro-batch for parameter `id` of an open part, or `None` if the parameter is
    /// frozen or has only a sum.
    pub fn gradient(&self, id: usize) -> Option<Tensor> {
        let place = self.places[id].as_ref()?;
        let at = place.at?;
        Some(self.parts[place.part].gradient.slice(at, at + self.lens[id]))
    }

    /// Returns memory for the gradients `[ranks, len]` that ranks send to this rank.
    pub fn received(&self, ranks: usize, len: usize) -> Tensor {
        self.received.slice(0, ranks * len).reshape(&[ranks, len])
    }

    /// Returns the number of elements that a range of `len` elements takes in the sums of its part.
    pub fn padded(len: usize) -> usize {
        len.next_multiple_of(ALIGN)
    }

    /// Returns true if the gradients of two parts use the same memory.
    pub fn share_memory(&self, one: usize, other: usize) -> bool {
        self.parts[one].gradient.span().offset == self.parts[other].gradient.span().offset
    }

    /// Opens a part, unless it is already open: the memory of its gradients is new.
    pub fn open(&mut self, part: usize) {
        let part = &mut self.parts[part];
        if !part.is_open {
            part.is_open = true;
            part.params.iter().for_each(|&id| self.started[id] = false);
        }
    }

    /// Sets to zero what backward has not written of an open part: parameters without a gradient, and the elements
    /// between two parameters.
    pub fn complete(&mut self, dev: &mut Device, part: usize) -> Result<()> {
        let Part { gradient, params, .. } = &self.parts[part];
        for &id in params {
            let Some(Place { at: Some(at), .. }) = self.places[id] else { continue };
            let (len, end) = (self.lens[id], at + Grads::padded(self.lens[id]));
            let rest = gradient.slice(if self.started[id] { at + len } else { at }, end);
            if !rest.is_empty() {
                dev.fill_zero(rest)?;
            }
        }
        Ok(())
    }

    /// Returns the memory for the gradient of parameter `id` of an open part, or `None` if the parameter is frozen. Returns
    /// an error if a gradient was already added to the sum of the parameter.
    pub fn start(&mut self, id: usize) -> Result<Option<Gradient>> {
        let started = replace(&mut self.started[id], true);
        let (tensor, holds) = match self.gradient(id) {
            Some(tensor) => (tensor, if started { Holds::Gradient } else { Holds::Nothing }),
            None if started => return Err(Error::Failed("a matrix has two gradients in one micro-batch".into())),
            None => match self.tensor(id) {
                Some(sum) => (sum, Holds::Sum),
                None => return Ok(None),
            },
        };
        Ok(Some(Gradient { tensor, holds }))
    }

    /// Closes a part whose gradients have been added to the sums of this rank and of all others.
    pub fn close(&mut self, part: usize) {
        let part = &mut self.parts[part];
        part.is_open = false;
        part.params.iter().for_each(|&id| self.touched[id] = true);
    }

    /// Adds the gradients of an open part to its sums, in a run of one rank, and closes the part.
    pub fn add(&mut self, dev: &mut Device, part: usize) -> Result<()> {
        self.complete(dev, part)?;
        let Part { gradient, sums, .. } = self.parts[part];
        if !gradient.is_empty() {
            let sums = sums.slice(0, sums.len().min(gradient.len()));
            lane_sum::fwd(dev, gradient.reshape(&[1, gradient.len()]), sums)?;
        }
        self.close(part);
        Ok(())
    }

    fn add_open(&mut self, dev: &mut Device, which: impl Fn(&Grads, usize) -> bool) -> Result<()> {
        for part in 0..self.parts.len() {
            if self.parts[part].is_open && which(self, part) {
                self.add(dev, part)?;
            }
        }
        Ok(())
    }
}

impl GradientSink for Grads {
    fn param(&mut self, dev: &mut Device, id: usize) -> Result<Option<Gradient>> {
        let Some(part) = self.part_of(id) else { return Ok(None) };
        if !self.parts[part].is_open {
            if !self.parts[part].is_alone {
                self.add_open(dev, |grads, open| !grads.parts[open].is_alone)?;
            }
            self.open(part);
        }
        self.start(id)
    }

    fn finish(&mut self, dev: &mut Device) -> Result<()> {
        self.add_open(dev, |_, _| true)
    }
}
