//! The exchange of gradients between the ranks of a run. Each round, every rank computes one micro-batch of the update.
//! When a bucket of parameters is complete in backward, every rank sends each piece of its gradients to the rank that
//! owns the piece (see [`Shards`]), and the owner adds the pieces to its sum in the order of the micro-batches. Therefore
//! the bits of the sums do not depend on the number of ranks. On a GPU, a bucket is exchanged on the side stream while
//! the compute stream continues with the next one, unless `dist.overlap` is false.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::timeline::Timeline;
use omr_base::error::Result;
use omr_model::nn::weights::params::{Bucket, Param};
use omr_model::nn::{GradMemory, GradientSink, Grads, ParamLayout};
use omr_runtime::device::Device;
use omr_runtime::ops::gradient::Gradient;
use omr_runtime::ops::lane_sum;
use omr_runtime::ranks::shards::CHUNK;
use omr_runtime::ranks::{Ranks, Shards};
use omr_runtime::tensor::Tensor;

/// Number of f32 elements that one exchange of a larger bucket receives at least: 256 MiB. Each exchange waits for
/// multiprocessors that backward frees, so a few large ones disturb it less than many small ones.
const AT_ONCE: usize = 1 << 26;

/// Mode in which gradients are exchanged. No result depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExchangeMode {
    /// True if a decoder layer is exchanged at once. It must be the same on all ranks.
    pub whole_layers: bool,
    /// True if backward continues during an exchange.
    pub overlap: bool,
}

/// The parts of the model to which a micro-batch has gradients. It is a function of the rows of the micro-batch, so
/// every rank knows it for all micro-batches of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// True if the micro-batch has tokens to predict. Otherwise it has no gradients.
    pub targets: bool,
    /// True if the micro-batch has images.
    pub images: bool,
}

impl Reach {
    fn includes(self, bucket: Bucket) -> bool {
        self.targets && (self.images || bucket != Bucket::Tower)
    }
}

/// The division of a run's gradients among its ranks.
pub struct Exchange {
    rank: usize,
    size: usize,
    shards: Shards,
    mode: ExchangeMode,
    /// Maximum number of elements that one exchange adds on a rank.
    width: usize,
    /// Maximum number of elements of a decoder layer that a rank owns.
    layer: usize,
    /// Share of the gradients in the last buckets of backward.
    exposed: f64,
}

impl Exchange {
    /// Divides the gradients of `layout` among `size` ranks, of which this process is `rank`.
    pub fn new(layout: &ParamLayout, rank: usize, size: usize) -> Exchange {
        let (shards, width) = (Shards::new(&layout.shares(), size), AT_ONCE.div_ceil(size).next_multiple_of(CHUNK));
        let mut trained = layout.params.iter().filter(|param| param.trains);
        let elements = |params: &mut dyn Iterator<Item = &Param>| params.map(|param| param.tensor.len()).sum::<usize>();
        let mut last = trained.clone().filter(|param| matches!(param.part.bucket(), Bucket::Tower | Bucket::Table));
        let exposed = elements(&mut last) as f64 / elements(&mut trained).max(1) as f64;
        let mut layers = BTreeMap::new();
        for rank in 0..size {
            for (param, own) in layout.params.iter().zip(shards.of(rank)).filter(|(param, _)| param.trains) {
                if let Bucket::Layer(layer) = param.part.bucket() {
                    *layers.entry((rank, layer)).or_insert(0) += Grads::padded(own.len());
                }
            }
        }
        let layer = layers.into_values().max().unwrap_or(0);
        let mode = ExchangeMode { whole_layers: false, overlap: true };
        Exchange { rank, size, shards, mode, width, layer, exposed }
    }

    /// Sets the mode.
    #[must_use]
    pub fn with(self, mode: ExchangeMode) -> Exchange {
        let width = if mode.whole_layers { self.width.max(self.layer) } else { self.width };
        Exchange { mode, width, ..self }
    }

    /// Limits exchanges to `width` elements of each rank.
    #[must_use]
    pub fn in_windows_of(self, width: usize) -> Exchange {
        Exchange { width, ..self }
    }

    /// Returns the share of the gradients whose exchange no backward overlaps, on a GPU: those of the vision tower and
    /// the token table, which are complete at the end. Without `overlap` it is 1.
    pub fn exposed(&self, overlap: bool) -> f64 {
        if overlap { self.exposed } else { 1.0 }
    }

    /// Returns the bytes that `grads` lacks to exchange a decoder layer at once.
    pub fn bytes_for_whole_layers(&self, grads: &Grads) -> usize {
        let widest = grads.parts.iter().map(|part| part.sums.len()).max().unwrap_or(0);
        let received = |width: usize| if self.size > 1 { self.size * width.min(widest) * size_of::<f32>() } else { 0 };
        // An allocation takes complete pages on the emulator.
        (received(self.width.max(self.layer)) - received(self.width)).next_multiple_of(4096)
    }

    /// Allocates the gradients of a rank that owns the range `own` of each parameter.
    pub fn new_grads(&self, dev: &mut Device, layout: &ParamLayout, own: &[Range<usize>]) -> Result<Grads> {
        let memory = match self.size {
            1 => GradMemory::ALONE,
            size => GradMemory { in_turn: if dev.kind().is_gpu() { 2 } else { 1 }, received: [size, self.width] },
        };
        Grads::sharded(dev, layout, own, memory)
    }

    /// Returns the pieces of a part that `rank` owns: for each parameter the range of its elements, and the position of
    /// the range in the rank's sums.
    fn pieces<'a>(&'a self, grads: &'a Grads, part: usize, rank: usize) -> impl Iterator<Item = Piece> + 'a {
        let at = Cell::new(0);
        grads.parts[part].params.iter().map(move |&id| {
            let range = self.shards.of(rank)[id].clone();
            Piece { id, at: at.replace(at.get() + Grads::padded(range.len())), range }
        })
    }

    /// Returns the number of elements of a part's sums on `rank`.
    fn len(&self, grads: &Grads, part: usize, rank: usize) -> usize {
        self.pieces(grads, part, rank).map(|piece| Grads::padded(piece.range.len())).sum()
    }
}

/// A range of elements of one parameter that a rank owns.
struct Piece {
    id: usize,
    range: Range<usize>,
    /// First element in the sums of the part.
    at: usize,
}

impl Piece {
    /// Returns the elements of the piece that are in `window` of the sums, or `None` if there are none.
    fn within(&self, window: &Range<usize>) -> Option<Piece> {
        let (from, to) = (self.at.max(window.start), (self.at + self.range.len()).min(window.end));
        let element = |at: usize| self.range.start + (at - self.at);
        (from < to).then(|| Piece { id: self.id, range: element(from)..element(to), at: from })
    }
}

/// Collects the gradients of the micro-batches of one round, and adds them to the sums of all ranks.
pub struct Collector<'a> {
    exchange: &'a Exchange,
    ranks: &'a mut dyn Ranks,
    grads: &'a mut Grads,
    /// The micro-batches of the round, by rank. The last ranks may have none.
    reaches: &'a [Reach],
    /// Parts that are not added yet, in the order of backward.
    left: std::vec::IntoIter<usize>,
    /// The part that is exchanged on the side stream.
    exchanging: Option<usize>,
    timeline: Option<&'a Timeline>,
}

impl<'a> Collector<'a> {
    /// Begins the round of the micro-batches `reaches`, one for each rank.
    pub fn new(
        exchange: &'a Exchange,
        ranks: &'a mut dyn Ranks,
        grads: &'a mut Grads,
        reaches: &'a [Reach],
    ) -> Collector<'a> {
        let any = |bucket| reaches.iter().any(|reach| reach.includes(bucket));
        let left: Vec<usize> = (0..grads.parts.len()).filter(|part| any(grads.parts[*part].bucket)).collect();
        Collector { exchange, ranks, grads, reaches, left: left.into_iter(), exchanging: None, timeline: None }
    }

    /// Records in `timeline` where the forward pass ends.
    #[must_use]
    pub fn timed(self, timeline: &'a Timeline) -> Collector<'a> {
        Collector { timeline: Some(timeline), ..self }
    }

    /// Adds the next part of the round. A rank whose rows turned out to be unusable adds zeros.
    fn add(&mut self, dev: &mut Device, part: usize) -> Result<()> {
        let bucket = self.grads.parts[part].bucket;
        let adds = |rank: usize| self.reaches.get(rank).is_some_and(|reach| reach.includes(bucket));
        let Exchange { rank: own, width, .. } = *self.exchange;
        if adds(own) {
            self.open(dev, part)?;
        }
        if self.ranks.size() == 1 {
            return self.grads.add(dev, part);
        }
        if adds(own) {
            self.grads.complete(dev, part)?;
        }
        let from: Vec<usize> = (0..self.reaches.len()).filter(|rank| adds(*rank)).collect();
        let most = (0..self.ranks.size()).map(|rank| self.exchange.len(self.grads, part, rank)).max().unwrap_or(0);
        self.settle(dev)?;
        dev.on_side_stream(|dev| {
            let mut starts = (0..most).step_by(width);
            starts.try_for_each(|start| self.exchanged(dev, part, start..start + width, &from))
        })?;
        if !self.exchange.mode.overlap {
            dev.join_side_stream()?;
        }
        self.exchanging = Some(part);
        self.grads.close(part);
        Ok(())
    }

    /// Opens a part. If its memory is still being sent, the compute stream waits first.
    fn open(&mut self, dev: &mut Device, part: usize) -> Result<()> {
        if self.exchanging.is_some_and(|sent| self.grads.share_memory(sent, part)) {
            self.settle(dev)?;
        }
        self.grads.open(part);
        Ok(())
    }

    /// Ends the exchange in progress: later work of the compute stream runs after it.
    fn settle(&mut self, dev: &mut Device) -> Result<()> {
        if self.exchanging.take().is_some() {
            self.ranks.settle(dev, "gradients")?;
            dev.join_side_stream()?;
        }
        Ok(())
    }

    /// Exchanges the pieces in `window` of each rank's sums and adds those of this rank. `from` has the ranks that have
    /// gradients.
    fn exchanged(&mut self, dev: &mut Device, part: usize, window: Range<usize>, from: &[usize]) -> Result<()> {
        let (grads, exchange, own) = (&*self.grads, self.exchange, self.exchange.rank);
        let sums = grads.parts[part].sums;
        let pieces = |rank: usize| exchange.pieces(grads, part, rank).filter_map(|piece| piece.within(&window));
        let mine = window.start.min(sums.len())..window.end.min(sums.len());
        let rows = grads.received(from.len(), mine.len());
        let received: Vec<Piece> = pieces(own).collect();
        // Elements between two pieces belong to no parameter and are not received.
        if received.iter().map(|piece| piece.range.len()).sum::<usize>() < mine.len() {
            dev.fill_zero(rows)?;
        }
        let row = |i: usize| rows.slice(i, i + 1).reshape(&[mine.len()]);
        let gradient = |piece: Piece| Some(grads.gradient(piece.id)?.slice(piece.range.start, piece.range.end));
        let send = |owner: usize| match from.contains(&own) {
            true => pieces(owner).filter_map(gradient).collect(),
            false => Vec::new(),
        };
        let spread = |row: Tensor| {
            let place = |piece: &Piece| row.slice(piece.at - mine.start, piece.at - mine.start + piece.range.len());
            received.iter().map(place).collect()
        };
        let recv = |peer: usize| from.iter().position(|rank| *rank == peer).map_or(Vec::new(), |i| spread(row(i)));
        let size = self.ranks.size();
        let (send, recv): (Vec<_>, Vec<_>) = ((0..size).map(send).collect(), (0..size).map(recv).collect());
        self.ranks.exchange(dev, "gradients", &send, &recv)?;
        if !mine.is_empty() {
            lane_sum::fwd(dev, rows, sums.slice(mine.start, mine.end))?;
        }
        Ok(())
    }

    /// Adds the parts that backward has passed when it reaches `part`.
    fn add_before(&mut self, dev: &mut Device, part: usize) -> Result<()> {
        while let Some(next) = self.left.as_slice().first().copied().filter(|next| *next < part) {
            self.left.next();
            self.add(dev, next)?;
        }
        Ok(())
    }
}

impl GradientSink for Collector<'_> {
    fn param(&mut self, dev: &mut Device, id: usize) -> Result<Option<Gradient>> {
        self.timeline.map_or(Ok(()), |timeline| timeline.forward_ends(dev))?;
        let Some(part) = self.grads.part_of(id) else { return Ok(None) };
        if !self.grads.parts[part].is_open {
            // The gradient of a tied token table begins at the head, before the layers, and ends after them.
            if !self.grads.parts[part].is_alone {
                self.add_before(dev, part)?;
            }
            self.open(dev, part)?;
        }
        self.grads.start(id)
    }

    fn finish(&mut self, dev: &mut Device) -> Result<()> {
        self.add_before(dev, usize::MAX)?;
        self.settle(dev)
    }
}
