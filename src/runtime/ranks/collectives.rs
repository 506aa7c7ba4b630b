//! The collectives that the ranks of a run call together, and functions that are built on the collectives.

use std::ops::Range;
use std::time::Instant;

use crate::device::Device;
use crate::tensor::Tensor;
use omr_base::error::{Error, Result};

/// The tensors that a rank sends to each rank, or receives from each, by rank.
pub type Parts = [Vec<Tensor>];

/// The collectives of a run. All ranks must call the same collectives in the same order. `what` names a collective in
/// error messages. If a rank is lost, fails or runs another program, the collective ends on all other ranks within the
/// timeout, with an error that names the rank and its host. After an error no collective may be called.
pub trait Ranks {
    /// Returns the rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of processes of the run.
    fn size(&self) -> usize;

    /// Returns the name of a rank for messages, e.g. `rank 3 (node-2, process 4711)`.
    fn name(&self, rank: usize) -> String;

    /// Returns true if no lower rank is on this rank's host. The ranks of a host read the same files.
    fn leads_host(&self) -> bool {
        self.rank() == 0
    }

    /// Sends `bytes` to all ranks, and returns the bytes of each rank, by rank.
    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Does the same as [`Ranks::gather`], after work that takes much longer on some ranks than on others. The wait has
    /// no timeout, but a lost rank is still detected.
    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Sends the tensors `send[r]` to rank r, and receives the tensors of rank r in `recv[r]`, in order. Tensors that
    /// correspond must have the same number of bytes, which the ranks must have agreed on. The tensors that a rank sends
    /// to itself are copied. On a GPU the transfers are queued after earlier work of the stream that ops run on, and
    /// [`Ranks::settle`] waits for them. No tensor of `recv` may overlap a tensor of `send` or another tensor of `recv`.
    fn exchange(&mut self, dev: &mut Device, what: &'static str, send: &Parts, recv: &Parts) -> Result<()>;

    /// Waits until the transfers of [`Ranks::exchange`] on the side stream are done. Errors if a rank is lost.
    fn settle(&mut self, _dev: &mut Device, _what: &'static str) -> Result<()> {
        Ok(())
    }

    /// Overwrites the bytes of each tensor with the bytes that its owner (a rank) has.
    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()>;

    /// Returns the number of bytes sent to other ranks so far, without frame headers and heartbeats.
    fn sent(&self) -> u64 {
        0
    }

    /// Returns the spans of the collectives since the last call, by the host's clock.
    fn waits(&mut self) -> Vec<Range<Instant>> {
        Vec::new()
    }

    /// Reports how this rank's work ended. Each rank calls this function once, as its last collective call. After a
    /// success, or a stop that was requested on all ranks, the call waits until all ranks have made it. After an error,
    /// all other ranks end with that error and its exit status; if another rank's error came first, this call returns
    /// that error. A rank that is dropped without this call counts as lost.
    fn leave(&mut self, _outcome: std::result::Result<(), &Error>) -> Result<()> {
        Ok(())
    }

    /// Returns, for each flag, whether any rank has set it.
    fn any(&mut self, what: &'static str, flags: &[bool]) -> Result<Vec<bool>> {
        let bytes: Vec<u8> = flags.iter().map(|&flag| flag.into()).collect();
        let all = self.gather(what, &bytes)?;
        if let Some(rank) = all.iter().position(|of| of.len() != flags.len()) {
            let found = format!("{} flags of {}", all[rank].len(), self.name(rank));
            let expected = format!("{}, the number of {}", flags.len(), self.name(self.rank()));
            return Err(Error::input(what, found, expected));
        }
        Ok((0..flags.len()).map(|i| all.iter().any(|of| of[i] != 0)).collect())
    }

    /// Errors on every rank unless all have the same `value`. The message names a rank that differs from rank 0. An
    /// empty value means that a lower rank of the host has read it. The wait has no timeout, because ranks may need
    /// different times to read the value.
    fn same(&mut self, what: &'static str, value: &str) -> Result<()> {
        let all = self.await_all(what, value.as_bytes())?;
        let Some(rank) = all.iter().position(|of| !of.is_empty() && *of != all[0]) else { return Ok(()) };
        let [theirs, first] = [&all[rank], &all[0]].map(|value| String::from_utf8_lossy(value));
        let at = theirs.chars().zip(first.chars()).take_while(|(a, b)| a == b).count();
        let expected = format!("{}, the value of {}", around(&first, at), self.name(0));
        Err(Error::input(format!("{what} of {}", self.name(rank)), around(&theirs, at), expected))
    }
}

/// Returns `done`, unless a rank was asked to stop: then every rank returns [`Error::Stopped`]. Every rank must call
/// this function. If a rank has failed, the others receive an error.
pub fn agreed<T>(ranks: &mut dyn Ranks, what: &'static str, done: Result<T>) -> Result<T> {
    let Some(stops) = stops(&done) else { return done };
    if ranks.any(what, &[stops])?[0] { Err(Error::Stopped) } else { done }
}

/// Does the same as [`agreed`], after work that takes much longer on some ranks than on others; see
/// [`Ranks::await_all`].
pub fn agreed_at_last<T>(ranks: &mut dyn Ranks, what: &'static str, done: Result<T>) -> Result<T> {
    let Some(stops) = stops(&done) else { return done };
    let all = ranks.await_all(what, &[stops.into()])?;
    if all.iter().any(|of| of == &[1]) { Err(Error::Stopped) } else { done }
}

/// Returns true if a stop ended the work, false if it succeeded, and `None` if it failed.
fn stops<T>(done: &Result<T>) -> Option<bool> {
    match done {
        Ok(_) => Some(false),
        Err(Error::Stopped) => Some(true),
        Err(_) => None,
    }
}

/// Evaluates `is_there` on rank 0 and returns its result on all ranks. The other ranks wait without a timeout.
pub fn first_finds(ranks: &mut dyn Ranks, what: &'static str, is_there: impl FnOnce() -> bool) -> Result<bool> {
    let own = ranks.rank() == 0 && is_there();
    Ok(ranks.await_all(what, &[own.into()])?[0] == [1])
}

/// Runs `work` on rank 0 only. The other ranks wait for its end without a timeout.
pub fn by_first(ranks: &mut dyn Ranks, what: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = if ranks.rank() == 0 { work() } else { Ok(()) };
    agreed_at_last(ranks, what, done)
}

/// Leaves `ranks` because of `error`, and returns the error with which this process should end. If rank 0 has received
/// the error, rank 0 is the one that prints it.
pub fn report_failure(ranks: &mut dyn Ranks, error: Error) -> Error {
    let left = ranks.leave(Err(&error));
    match ranks.rank() > 0 && left.is_ok() && !matches!(error, Error::Stopped | Error::Rank { .. }) {
        true => Error::Rank { what: error.to_string(), exit_code: error.exit_code(), reported: true },
        false => error,
    }
}

/// Returns the part of `text` around its character `at`, or all of a short text.
fn around(text: &str, at: usize) -> String {
    const BESIDE: usize = 60;
    let (from, len) = (at.saturating_sub(BESIDE), text.chars().count());
    let part: String = text.chars().skip(from).take(2 * BESIDE).collect();
    let (before, after) = (if from > 0 { "..." } else { "" }, if from + 2 * BESIDE < len { "..." } else { "" });
    format!("{before}{part}{after}")
}
