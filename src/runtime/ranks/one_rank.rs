//! A single rank that runs without the others: for runs of one process, and for plans.

use super::collectives::{Parts, Ranks};
use crate::device::Device;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Number of bytes exchanged between a rank and the others.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BytesExchanged {
    /// Bytes sent to other ranks.
    pub sent: u64,
    /// Bytes received from other ranks.
    pub received: u64,
}

impl BytesExchanged {
    /// Returns the bytes exchanged after `before`.
    pub fn since(self, before: BytesExchanged) -> BytesExchanged {
        BytesExchanged { sent: self.sent - before.sent, received: self.received - before.received }
    }
}

/// A rank that runs without the others. It is the only rank of a run of one process, or the rank whose memory and
/// traffic a plan counts. For the count, it assumes that each other rank sends as many host bytes as this rank does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneRank {
    rank: usize,
    size: usize,
    handed: BytesExchanged,
}

impl OneRank {
    /// The only rank of a run of one process.
    pub const ALONE: OneRank = OneRank::new(0, 1);

    /// Creates rank `rank` of `size`, without the others.
    pub const fn new(rank: usize, size: usize) -> OneRank {
        OneRank { rank, size, handed: BytesExchanged { sent: 0, received: 0 } }
    }

    /// Sets the count of bytes, for passes that are counted several times.
    pub fn set_handed(&mut self, handed: BytesExchanged) {
        self.handed = handed;
    }

    /// Returns the bytes that this rank would have exchanged so far.
    pub fn handed(&self) -> BytesExchanged {
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

    fn exchange(&mut self, dev: &mut Device, _: &'static str, send: &Parts, recv: &Parts) -> Result<()> {
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
