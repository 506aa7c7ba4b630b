//! Gradient lanes fix which gradients an update adds and in which order, independent of the number of ranks.
//!
//! The number of lanes is the number of ranks at the start of the run, unless it is configured. A lane's gradient is
//! the sum of the gradients of its packs, added one after another as a single rank would add them. The update's
//! gradient is lane 0 + lane 1 + lane 2 and so on, from left to right, in f32.
//!
//! Rank r of R computes the lanes r, R + r, 2R + r and so on, one per round. After each round, every rank sends each
//! piece of its gradients to the rank that owns that piece (see [`Shards`]), and the owner adds it to its running sum.
//! Therefore the results depend on `gradient_lanes`, but not on the number of ranks.

use crate::device::{Device, Region};
use crate::error::{Error, Result};
use crate::model::Grads;
use crate::ops::lane_sum;
use crate::ranks::shards::CHUNK;
use crate::ranks::{Ranks, Shards};
use crate::tensor::{DType, Tensor};

/// Maximum number of f32 elements that one exchange holds in the workspace: 64 MiB. An exchange always holds at least
/// one chunk of each lane, even if that exceeds the maximum.
const AT_ONCE: usize = 1 << 24;

/// A range of elements of one parameter, given by the parameter's id.
type Piece = (usize, std::ops::Range<usize>);

/// One exchange of gradients within a round.
struct Exchange {
    round: usize,
    /// Number of the exchange within the round.
    at: usize,
    /// Index in the running sum of the first element of this exchange that this rank owns.
    first: usize,
}

/// The gradient lanes of a run and their distribution over its ranks.
pub struct Lanes {
    count: usize,
    rank: usize,
    size: usize,
    /// Pieces that each rank owns, by rank and then by exchange.
    pieces: Vec<Vec<Vec<Piece>>>,
    /// Running sum of the elements that this rank owns. It is used if there is more than one round, and it is on the
    /// host because the device has no room for a second copy of the gradients.
    sum: Vec<f32>,
    /// Bytes moved so far between the device and the running sum.
    moved: u64,
    touched: Vec<bool>,
}

impl Lanes {
    /// Distributes `count` lanes over `ranks`, whose parameters are divided by `shards`. Errors if there are fewer
    /// lanes than ranks.
    pub fn new(count: usize, ranks: &dyn Ranks, shards: &Shards) -> Result<Lanes> {
        let (rank, size) = (ranks.rank(), ranks.size());
        cover(count, size)?;
        let width = (AT_ONCE / (size + 1) / CHUNK).max(1) * CHUNK;
        let pieces: Vec<_> = (0..size).map(|rank| cut(shards.of(rank), width)).collect();
        Ok(Lanes { count, rank, size, pieces, sum: Vec::new(), moved: 0, touched: Vec::new() })
    }

    /// Returns the number of lanes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of rounds: the number of lanes per rank, rounded up. Some ranks may idle in the last round.
    pub fn rounds(&self) -> usize {
        self.count.div_ceil(self.size)
    }

    /// Returns the lane that this rank computes in `round`, or `None` if it idles.
    pub fn of_round(&self, round: usize) -> Option<usize> {
        Some(round * self.size + self.rank).filter(|lane| *lane < self.count)
    }

    /// Returns the lanes of this rank, in order.
    pub fn mine(&self) -> impl Iterator<Item = usize> + Clone + Send + use<> {
        (self.rank..self.count).step_by(self.size)
    }

    /// Returns the rank that computes each lane, by lane.
    pub fn owners(&self) -> impl Iterator<Item = usize> + use<> {
        let size = self.size;
        (0..self.count).map(move |lane| lane % size)
    }

    /// Returns the size of the running sum on the host, in bytes.
    pub fn host_bytes(&self) -> usize {
        let owned = || self.pieces[self.rank].iter().flatten().map(|(_, range)| range.len()).sum::<usize>();
        if self.rounds() > 1 { size_of::<f32>() * owned() } else { 0 }
    }

    /// Returns the bytes moved so far between the device and the running sum, in both directions.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Adds the lanes of `round` to the sum; each rank passes its own lane in `grads`. After the last round, `grads`
    /// holds the sum of all lanes for the elements that this rank owns, and every parameter that any lane has touched
    /// is marked as touched.
    pub fn add(&mut self, dev: &mut Device, ranks: &mut dyn Ranks, grads: &mut Grads, round: usize) -> Result<()> {
        let flags: Vec<bool> = (0..grads.num_params()).map(|id| grads.get(id).is_some()).collect();
        let flags = ranks.any("parameters with a gradient", &flags)?;
        let last = round + 1 == self.rounds();
        if round == 0 {
            self.touched = vec![false; flags.len()];
            self.sum.resize(if dev.counts_only() { 0 } else { self.host_bytes() / size_of::<f32>() }, 0.0);
        }
        self.touched.iter_mut().zip(flags).for_each(|(any, touched)| *any |= touched);
        if self.count > 1 {
            let mut first = 0;
            for at in 0..self.pieces.iter().map(Vec::len).max().unwrap_or(0) {
                let mark = dev.mark(Region::Workspace);
                let done = self.exchange(dev, ranks, grads, Exchange { round, at, first });
                dev.release(mark);
                first += done?;
            }
        }
        if last {
            grads.touch_all(&self.touched);
        }
        Ok(())
    }

    /// Makes one exchange and returns the number of its elements that this rank owns.
    fn exchange(
        &mut self,
        dev: &mut Device,
        ranks: &mut dyn Ranks,
        grads: &Grads,
        Exchange { round, at, first }: Exchange,
    ) -> Result<usize> {
        let of = |rank: usize| self.pieces[rank].get(at).map_or(&[][..], Vec::as_slice);
        let lies = |piece: &Piece| grads.tensor(piece.0).slice(piece.1.start, piece.1.end);
        let own = of(self.rank);
        let len: usize = own.iter().map(|(_, range)| range.len()).sum();
        // The first row holds the sum of the earlier rounds, if there are any. The next rows hold the lanes of this
        // round, from rank 0 to rank `lanes - 1`.
        let (lanes, before) = ((self.count - round * self.size).min(self.size), usize::from(round > 0));
        let rows = dev.alloc(Region::Workspace, DType::F32, &[before + lanes, len])?;
        let row = |i: usize| rows.slice(i, i + 1).reshape(&[len]);
        let keeps = !self.sum.is_empty();
        if before == 1 {
            self.moved += (size_of::<f32>() * len) as u64;
            if keeps {
                dev.write(row(0), &self.sum[first..first + len])?;
            }
        }
        let send = |owner| if self.rank < lanes { of(owner).iter().map(lies).collect() } else { Vec::new() };
        let recv = |from| if from < lanes { spread(row(before + from), own) } else { Vec::new() };
        let (send, recv): (Vec<_>, Vec<_>) = ((0..self.size).map(send).collect(), (0..self.size).map(recv).collect());
        ranks.exchange(dev, "gradients", &send, &recv)?;
        if len == 0 {
            return Ok(0);
        }
        lane_sum::fwd(dev, rows, row(0))?;
        let adds = (before + lanes - 1) * len;
        dev.note_work("lane_sum", adds as f64, (size_of::<f32>() * (before + lanes + 1) * len) as f64);
        if round + 1 == self.rounds() {
            own.iter().zip(spread(row(0), own)).try_for_each(|(piece, sum)| dev.copy(sum, lies(piece)))?;
        } else {
            self.moved += (size_of::<f32>() * len) as u64;
            if keeps {
                self.sum[first..first + len].copy_from_slice(&dev.read::<f32>(row(0))?);
            }
        }
        Ok(len)
    }
}

/// Errors if there are fewer lanes than `ranks`.
pub fn cover(lanes: usize, ranks: usize) -> Result<()> {
    if ranks <= lanes {
        return Ok(());
    }
    let expected = format!("at most {lanes} ranks: the run was started with gradient_lanes={lanes}");
    Err(Error::input_hint("gpus", ranks.to_string(), expected, "results depend on the number of gradient lanes"))
}

/// Errors unless an update has at least one of its `parts` for every lane. `key` is the config key that sets `parts`.
pub fn check(lanes: usize, key: &str, parts: usize) -> Result<()> {
    if lanes <= parts {
        return Ok(());
    }
    let expected = format!("at least {lanes}, one for each gradient lane");
    Err(Error::input_hint(key, parts.to_string(), expected, "this number is the total over all ranks"))
}

/// Divides a flat tensor into consecutive tensors, one for each piece.
fn spread(tensor: Tensor, pieces: &[Piece]) -> Vec<Tensor> {
    let mut from = 0;
    let part = |(_, range): &Piece| {
        from += range.len();
        tensor.slice(from - range.len(), from)
    };
    pieces.iter().map(part).collect()
}

/// Cuts the ranges of all parameters into groups of pieces with at most `width` elements per group.
fn cut(ranges: &[std::ops::Range<usize>], width: usize) -> Vec<Vec<Piece>> {
    let (mut out, mut room): (Vec<Vec<Piece>>, usize) = (Vec::new(), 0);
    for (id, range) in ranges.iter().enumerate() {
        let mut from = range.start;
        while from < range.end {
            if room == 0 {
                out.push(Vec::new());
                room = width;
            }
            let to = range.end.min(from + room);
            if let Some(run) = out.last_mut() {
                run.push((id, from..to));
            }
            (room, from) = (room - (to - from), to);
        }
    }
    out
}
