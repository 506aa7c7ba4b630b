//! Ranks as threads of one process: what a test of several ranks runs over where processes are not what it is about.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use omr::device::Device;
use omr::dist::Ranks;
use omr::error::{Error, Result};
use omr::tensor::Tensor;

/// One rank.
pub struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// What each of `size` ranks makes of `work`, by rank.
pub fn over<T: Send>(size: usize, work: impl Fn(&mut Threads) -> T + Sync) -> Vec<T> {
    let mut ranks: Vec<Threads> = (0..size).map(|rank| Threads { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = channel();
            ranks[from].to.push(sender);
            ranks[to].from.push(receiver);
        }
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = ranks.into_iter().map(|mut rank| scope.spawn(move || work(&mut rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Threads {
    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<()> {
        self.to[to].send(bytes).map_err(|_| Error::Failed(format!("rank {to} is gone")))
    }

    fn take(&self, from: usize, what: &str) -> Result<Vec<u8>> {
        let lost = |_| Error::Failed(format!("rank {from} is lost in {what}"));
        self.from[from].recv_timeout(Duration::from_secs(60)).map_err(lost)
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        (0..self.size()).try_for_each(|to| self.send(to, bytes.to_vec()))?;
        (0..self.size()).map(|from| self.take(from, what)).collect()
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        for (to, tensors) in send.iter().enumerate() {
            tensors.iter().try_for_each(|t| self.send(to, dev.read_bytes(*t)?))?;
        }
        for (from, tensors) in recv.iter().enumerate() {
            tensors.iter().try_for_each(|t| dev.write_bytes(*t, &self.take(from, what)?))?;
        }
        Ok(())
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        let of = |owner: usize| owned.iter().filter(move |(rank, _)| *rank == owner).map(|(_, t)| *t).collect();
        let all: Vec<Vec<Tensor>> = (0..self.size()).map(of).collect();
        self.exchange(dev, what, &vec![all[self.rank].clone(); self.size()], &all)
    }
}
