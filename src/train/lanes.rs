//! Gradient lanes: what an update adds up and in which order, whatever number of ranks computes it.
//!
//! A run has as many lanes as it began with ranks. A lane's gradient is that of its packs, added one after another as one
//! rank adds all; the update's is lane 0's plus lane 1's plus lane 2's, from left to right, in f32. Rank r computes the
//! lanes r, R + r, 2R + r and so on, one a round; after each round the pieces go to their owners (see [`Shards`]), who add
//! them to their running sum. So the bits are those of the lanes alone: `gradient_lanes` is a setting that decides results,
//! the number of ranks is none.

use crate::device::{Device, Region};
use crate::error::{Error, Result};
use crate::model::Grads;
use crate::ops::lane_sum;
use crate::ranks::shards::CHUNK;
use crate::ranks::{Ranks, Shards};
use crate::tensor::{DType, Tensor};

/// Elements of all pieces that one exchange adds up, at most: 64 MiB of workspace; a chunk of each lane at least.
const AT_ONCE: usize = 1 << 24;

/// A range of a parameter.
type Piece = (usize, std::ops::Range<usize>);

/// One exchange of a round.
struct Exchange {
    round: usize,
    /// Its number in the round.
    at: usize,
    /// Index in the running sum of the first element of it that this rank owns.
    first: usize,
}

/// Lanes over ranks.
pub struct Lanes {
    count: usize,
    rank: usize,
    size: usize,
    /// By rank, by exchange: what it owns.
    pieces: Vec<Vec<Vec<Piece>>>,
    /// The running sum of what this rank owns, on the host, where there is more than one round: no device has room for
    /// gradients twice.
    sum: Vec<f32>,
    /// Bytes that have gone to the host and back for it.
    moved: u64,
    touched: Vec<bool>,
}

impl Lanes {
    /// `count` lanes over `ranks`, whose parameters are divided as `shards` says. Errors when there are fewer lanes than
    /// ranks.
    pub fn new(count: usize, ranks: &dyn Ranks, shards: &Shards) -> Result<Lanes> {
        let (rank, size) = (ranks.rank(), ranks.size());
        cover(count, size)?;
        let width = (AT_ONCE / (size + 1) / CHUNK).max(1) * CHUNK;
        let pieces: Vec<_> = (0..size).map(|rank| cut(shards.of(rank), width)).collect();
        Ok(Lanes { count, rank, size, pieces, sum: Vec::new(), moved: 0, touched: Vec::new() })
    }

    /// Lanes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Lanes that each rank computes, those that idle in the last round included.
    pub fn rounds(&self) -> usize {
        self.count.div_ceil(self.size)
    }

    /// The lane that this rank computes in `round`; none where it idles.
    pub fn of_round(&self, round: usize) -> Option<usize> {
        Some(round * self.size + self.rank).filter(|lane| *lane < self.count)
    }

    /// The lanes of this rank, in order.
    pub fn mine(&self) -> impl Iterator<Item = usize> + Clone + Send + use<> {
        (self.rank..self.count).step_by(self.size)
    }

    /// Who computes each lane.
    pub fn owners(&self) -> impl Iterator<Item = usize> + use<> {
        let size = self.size;
        (0..self.count).map(move |lane| lane % size)
    }

    /// Bytes of the running sum, on the host.
    pub fn host_bytes(&self) -> usize {
        let owned = || self.pieces[self.rank].iter().flatten().map(|(_, range)| range.len()).sum::<usize>();
        if self.rounds() > 1 { size_of::<f32>() * owned() } else { 0 }
    }

    /// Bytes that have gone between the device and the running sum so far, either way.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Adds the lanes of `round`, which lie in each rank's `grads`, to the sum. After the last round `grads` holds the sum of
    /// all lanes where this rank owns it, and knows of every parameter that any lane has touched.
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

    /// Makes one exchange, and returns how many elements of it this rank owns.
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
        // The lanes of this round, of ranks 0 to `lanes`; before them what the rounds so far came to.
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

/// Errors when there are fewer lanes than `ranks`.
pub fn cover(lanes: usize, ranks: usize) -> Result<()> {
    if ranks <= lanes {
        return Ok(());
    }
    let expected = format!("at most {lanes} ranks: so many gradient_lanes the run began with");
    Err(Error::input_hint("gpus", ranks.to_string(), expected, "its bits are those of its lanes"))
}

/// Errors unless each of the lanes has something to do in an update of so many `parts`, as `key` says.
pub fn check(lanes: usize, key: &str, parts: usize) -> Result<()> {
    if lanes <= parts {
        return Ok(());
    }
    let expected = format!("at least {lanes}, one for each of the gradient lanes");
    Err(Error::input_hint(key, parts.to_string(), expected, "it counts those of all ranks together"))
}

/// A flat tensor as the pieces that lie in it one after another.
fn spread(tensor: Tensor, pieces: &[Piece]) -> Vec<Tensor> {
    let mut from = 0;
    let part = |(_, range): &Piece| {
        from += range.len();
        tensor.slice(from - range.len(), from)
    };
    pieces.iter().map(part).collect()
}

/// Ranges of parameters, cut into runs of at most `width` elements.
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
