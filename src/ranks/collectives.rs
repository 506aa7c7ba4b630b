//! What the ranks of a run do together, and the few ways in which they wait for one of them.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

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
