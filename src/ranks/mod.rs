//! Many processes, one run: what the ranks of a run do together, and which part of the optimizer's state is whose.
//!
//! The bits of a run are those of its lanes (`gradient_lanes`), never of its ranks: nothing here adds anything up. What
//! ranks hand each other is summed by whoever owns it, in the order of lanes (DESIGN section 10).

mod admission;
mod meet;
mod nccl;
mod place;
mod plane;
mod secret;
pub mod shards;
mod tcp;
mod wire;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

pub use nccl::Nccl;
pub use place::{Launcher, Lookup, Place, restarts};
pub use secret::{Secret, VARIABLE as SECRET_VARIABLE};
pub use shards::Shards;
pub use tcp::{Start, Tcp, host_bytes};

/// The collectives. All ranks call the same ones in the same order; each is named by `what`, for the message that says
/// where a rank was lost. A rank that is lost, fails or is another program ends all of them within the deadline, with an
/// error that names it and its host; after one errored none may be called.
pub trait Ranks {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// Processes of the run.
    fn size(&self) -> usize;

    /// A rank as messages name it: `rank 3 (node-2, process 4711)`.
    fn name(&self, rank: usize) -> String;

    /// Host bytes of each rank, by rank.
    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// [`Ranks::gather`] behind work that takes some ranks much longer than others: those that wait have no deadline, and a rank
    /// that is lost is still found.
    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// `send[r]` goes to rank r and what rank r sends lands in `recv[r]`, in order: their bytes are alike pair by pair.
    /// What goes to oneself is copied. Where a device computes, the work is queued behind what it has. No tensor of `recv` may
    /// overlap one of `send` or another of `recv`.
    fn exchange(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()>;

    /// The bytes of each tensor are overwritten with those its owner (a rank) has.
    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()>;

    /// Bytes handed to other ranks so far, those of frames and beats aside.
    #[cfg_attr(private_tree, allow(dead_code, reason = "tests compare with it what a plan counts"))]
    fn sent(&self) -> u64 {
        0
    }

    /// The last call: says how this rank's part ended. A good end, and a stop that all were asked for, waits until all ranks are
    /// here; what an error says, and its exit status, all others end with: an error of this call where another's word came
    /// first. A rank that is dropped without is lost.
    fn leave(&mut self, _outcome: std::result::Result<(), &Error>) -> Result<()> {
        Ok(())
    }

    /// The flags that any rank has set.
    fn any(&mut self, what: &'static str, flags: &[bool]) -> Result<Vec<bool>> {
        let bytes: Vec<u8> = flags.iter().map(|&flag| flag.into()).collect();
        let all = self.gather(what, &bytes)?;
        if let Some(rank) = all.iter().position(|of| of.len() != flags.len()) {
            let found = format!("{} flags of {}", all[rank].len(), self.name(rank));
            return Err(Error::input(what, found, format!("{}, as {} has", flags.len(), self.name(self.rank()))));
        }
        Ok((0..flags.len()).map(|i| all.iter().any(|of| of[i] != 0)).collect())
    }

    /// Errors, at every rank, unless all have the same `value`; the message names who differs from rank 0. What is compared
    /// was read first, so that those that wait have no deadline.
    fn same(&mut self, what: &'static str, value: &str) -> Result<()> {
        let all = self.await_all(what, value.as_bytes())?;
        match all.iter().position(|of| *of != all[0]) {
            None => Ok(()),
            Some(rank) => {
                let [theirs, first] = [&all[rank], &all[0]].map(|value| String::from_utf8_lossy(value));
                let at = theirs.chars().zip(first.chars()).take_while(|(a, b)| a == b).count();
                let expected = format!("{}, as {}", around(&first, at), self.name(0));
                Err(Error::input(format!("{what} of {}", self.name(rank)), around(&theirs, at), expected))
            }
        }
    }
}

/// `done`, unless a rank was asked to stop: then [`Error::Stopped`] at every rank. All of them come here, but for one that
/// failed, whose end the others hear of.
pub fn agreed<T>(ranks: &mut dyn Ranks, what: &'static str, done: Result<T>) -> Result<T> {
    let Some(stops) = stops(&done) else { return done };
    if ranks.any(what, &[stops])?[0] { Err(Error::Stopped) } else { done }
}

/// [`agreed`] behind work that takes some ranks much longer than others; see [`Ranks::await_all`].
pub fn agreed_at_last<T>(ranks: &mut dyn Ranks, what: &'static str, done: Result<T>) -> Result<T> {
    let Some(stops) = stops(&done) else { return done };
    let all = ranks.await_all(what, &[stops.into()])?;
    if all.iter().any(|of| of == &[1]) { Err(Error::Stopped) } else { done }
}

/// Whether a stop ended the work; nothing of work that failed.
fn stops<T>(done: &Result<T>) -> Option<bool> {
    match done {
        Ok(_) => Some(false),
        Err(Error::Stopped) => Some(true),
        Err(_) => None,
    }
}

/// What rank 0 finds; the others wait for its word, however long that takes.
pub fn first_finds(ranks: &mut dyn Ranks, what: &'static str, is_there: impl FnOnce() -> bool) -> Result<bool> {
    let own = ranks.rank() == 0 && is_there();
    Ok(ranks.await_all(what, &[own.into()])?[0] == [1])
}

/// `work` that rank 0 does for all; the others wait for its end, however long it takes.
pub fn by_first(ranks: &mut dyn Ranks, what: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = if ranks.rank() == 0 { work() } else { Ok(()) };
    agreed_at_last(ranks, what, done)
}

/// Leaves `ranks` because of `error`; what this process ends with, which is said by rank 0 once it has heard of it.
pub fn last_word(ranks: &mut dyn Ranks, error: Error) -> Error {
    let left = ranks.leave(Err(&error));
    match ranks.rank() > 0 && left.is_ok() && !matches!(error, Error::Stopped | Error::Rank { .. }) {
        true => Error::Rank { what: error.to_string(), exit_code: error.exit_code(), told: true },
        false => error,
    }
}

/// What stands in `text` around its character `at`; all of a short one.
fn around(text: &str, at: usize) -> String {
    const BESIDE: usize = 60;
    let (from, len) = (at.saturating_sub(BESIDE), text.chars().count());
    let part: String = text.chars().skip(from).take(2 * BESIDE).collect();
    let (before, after) = (if from > 0 { "..." } else { "" }, if from + 2 * BESIDE < len { "..." } else { "" });
    format!("{before}{part}{after}")
}

/// Bytes of a card's memory that are no plan's where there are several ranks: an allowance for what NCCL takes, where it cannot be
/// measured. Its buffers are of 4 MiB (`NCCL_BUFFSIZE`), one for each channel, peer of the machine and direction: 7 peers by 16
/// channels are 0.9 GiB. A run takes what it finds NCCL to have taken at its start.
pub const CARD_OVERHEAD: u64 = 1 << 30;

/// Bytes between a rank and the others.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Handed {
    /// To them.
    pub sent: u64,
    /// From them.
    pub received: u64,
}

/// One rank of a run without the others: the only rank of a run of one process, or the rank whose memory and traffic a plan
/// counts. It takes each other rank to send as many host bytes as it sends itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneRank {
    rank: usize,
    size: usize,
    handed: Handed,
}

impl OneRank {
    /// The only rank.
    pub const ALONE: OneRank = OneRank::new(0, 1);

    /// Rank `rank` of `size`, without the others.
    pub const fn new(rank: usize, size: usize) -> OneRank {
        OneRank { rank, size, handed: Handed { sent: 0, received: 0 } }
    }

    /// What it would have handed over so far, and been handed.
    pub fn handed(&self) -> Handed {
        self.handed
    }
}

impl Ranks for OneRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    fn sent(&self) -> u64 {
        self.handed.sent
    }

    fn gather(&mut self, _: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let others = (bytes.len() * (self.size - 1)) as u64;
        self.handed.sent += others;
        self.handed.received += others;
        Ok(vec![bytes.to_vec(); self.size])
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.gather(what, bytes)
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        _: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        let others = |of: &[Vec<Tensor>]| -> u64 {
            let other = of.iter().enumerate().filter(|(peer, _)| *peer != self.rank);
            other.flat_map(|(_, tensors)| tensors).map(|tensor| tensor.span().bytes as u64).sum()
        };
        let (sent, received) = (others(send), others(recv));
        self.handed.sent += sent;
        self.handed.received += received;
        send[self.rank].iter().zip(&recv[self.rank]).try_for_each(|(from, to)| dev.copy(*from, *to))
    }

    fn all_gather(&mut self, _: &mut Device, _: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        for (owner, tensor) in owned {
            let bytes = tensor.span().bytes as u64;
            match *owner == self.rank {
                true => self.handed.sent += bytes * (self.size as u64 - 1),
                false => self.handed.received += bytes,
            }
        }
        Ok(())
    }
}
