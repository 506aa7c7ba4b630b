//! Ranks by NCCL: tensors go from card to card, everything else over TCP.
//!
//! NCCL itself knows no deadline and cannot say who is lost, so it is never waited for blindly: before each move all ranks
//! have said over TCP what they are about to move, and while it is under way the control plane and NCCL's own errors are
//! looked at. A rank that is lost, or an error, aborts the communicator; where that hangs as well, the plane ends the
//! process. Tested on processes and threads of one machine against a library that stands in for NCCL; two cards have not
//! run it.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::plane::Plane;
use super::tcp::Trouble;
use super::{Ranks, Tcp};
use crate::device::nccl::{Comm, Fault, Library, Piece, UniqueId};
use crate::device::{Device, Driver, On, Stream};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bytes of a card's memory that are no plan's where there are several ranks: an allowance for what NCCL takes, where it cannot be
/// measured. Its buffers are of 4 MiB (`NCCL_BUFFSIZE`), one for each channel, peer of the machine and direction: 7 peers by 16
/// channels are 0.9 GiB. A run takes what it finds NCCL to have taken at its start.
pub const CARD_OVERHEAD: u64 = 1 << 30;

/// Bytes that a rank sends in a group, at most: with 64 ranks 4 MiB to each, which is the buffer of one of NCCL's
/// connections, so that more would bring nothing; and less than a millisecond of NVLink, so that errors are looked at while
/// gigabytes move.
const GROUP_BYTES: usize = 256 << 20;

/// Where groups end, in what goes from one rank to another: the boundary of a card's allocations.
const BORDER: usize = 256;

/// Between two looks at what is under way.
const POLL: Duration = Duration::from_micros(20);

/// Bytes from each rank to each at the start.
const TRIAL: usize = 256;

type Tried<T> = std::result::Result<T, Trouble>;

/// A rank among others, whose tensors NCCL moves.
pub struct Nccl {
    /// None once it was aborted.
    comm: Option<Comm>,
    /// Keeps the card's context while the communicator lives.
    _driver: Box<dyn Driver>,
    tcp: Tcp,
    group_bytes: usize,
    taken: u64,
}

impl Nccl {
    /// Makes the communicator of the ranks of `tcp` with what `open` opens, the library and this rank's card, and calls all there
    /// is once, so that NCCL takes its memory now. Errors at all ranks where one has no NCCL or another version, and where
    /// bytes do not arrive.
    pub fn start(mut tcp: Tcp, open: impl FnOnce() -> Result<(&'static Library, Box<dyn Driver>)>) -> Result<Nccl> {
        let (library, mut driver) = match open() {
            Ok(opened) => opened,
            Err(error) => return Err(super::last_word(&mut tcp, error)),
        };
        let mut comm = None;
        match begin(&mut tcp, library, &mut *driver, &mut comm) {
            Ok(taken) => {
                let group_bytes = GROUP_BYTES / tcp.size().saturating_sub(1).max(1) / BORDER * BORDER;
                Ok(Nccl { comm, _driver: driver, tcp, group_bytes, taken })
            }
            // Behind that word what there is of a communicator is aborted, which may hang.
            Err(error) => Err(super::last_word(&mut tcp, error)),
        }
    }

    /// The same with groups of at most `bytes` to each rank.
    #[cfg_attr(private_tree, expect(dead_code, reason = "tests cut a few kilobytes into groups"))]
    pub fn in_groups_of(self, bytes: usize) -> Nccl {
        Nccl { group_bytes: bytes, ..self }
    }

    /// Bytes of device memory that NCCL took at the start: the most of any rank, so that all plan alike. 0 where no device can
    /// tell.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// `send[r]` to rank r, what it sends into `recv[r]`; not to oneself.
    fn moves(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        let On::Gpu(gpu) = dev.on() else {
            return Err(Error::Failed(format!("{what}: NCCL on a device that is no GPU")));
        };
        let rank = self.tcp.rank();
        let piece = |tensor: &Tensor| Piece { address: gpu.memory.address(tensor.span()), bytes: tensor.span().bytes };
        let pieces = |side: &[Vec<Tensor>]| -> Vec<Vec<Piece>> {
            let of =
                |(peer, tensors): (usize, &Vec<Tensor>)| tensors.iter().filter(|_| peer != rank).map(piece).collect();
            side.iter().enumerate().map(of).collect()
        };
        let comm = self.comm.as_ref().ok_or_else(|| Error::Failed(format!("{what}: NCCL was aborted")))?;
        let groups = Groups::new(&pieces(send), &pieces(recv), self.group_bytes);
        let name = self.tcp.name(rank);
        let done = self.tcp.beside(what, send, recv, |plane| {
            let way = Way { comm, plane, what, name: &name };
            way.run(gpu.driver, gpu.stream, &groups)
        });
        if done.is_err() {
            // Nothing of NCCL is waited for any more.
            self.comm = None;
        }
        done
    }
}

/// Makes the communicator, to be kept in `made`, and tries it out; bytes of memory that it took, the most of any rank.
fn begin(tcp: &mut Tcp, library: &'static Library, driver: &mut dyn Driver, made: &mut Option<Comm>) -> Result<u64> {
    const WHAT: &str = "NCCL's start";
    tcp.same("NCCL's version", &library.version())?;
    let (rank, size) = (tcp.rank(), tcp.size());
    let failed = |fault: Fault| Error::Failed(format!("{WHAT}: {fault}"));
    let own = if rank == 0 { library.unique_id().map_err(failed)?.to_vec() } else { Vec::new() };
    let id = tcp.gather("NCCL's unique id", &own)?.swap_remove(0);
    let id = UniqueId::try_from(id).map_err(|_| Error::Failed(format!("{WHAT}: no unique id")))?;
    let memory = [driver.map(size * TRIAL)?, driver.map(size * TRIAL)?];
    memory.iter().try_for_each(|address| driver.open(*address, size * TRIAL))?;
    let before = driver.free_memory()?;
    // From each rank to each, itself as well, so that all connections there will be are made.
    let name = tcp.name(rank);
    let nothing = vec![Vec::new(); size];
    let sent: Vec<u8> = (0..size * TRIAL).map(|i| trial(rank, i / TRIAL, i % TRIAL)).collect();
    driver.upload(Stream::COMPUTE, memory[0], &sent)?;
    tcp.beside(WHAT, &nothing, &nothing, |plane| {
        let comm = made.insert(Comm::init(library, &id, rank, size).map_err(|fault| trouble(WHAT, &name, &fault))?);
        let way = Way { comm, plane, what: WHAT, name: &name };
        way.over()?;
        let [send, recv] = memory.map(|base| {
            let piece = |peer: usize| vec![Piece { address: base + (peer * TRIAL) as u64, bytes: TRIAL }];
            (0..size).map(piece).collect::<Vec<_>>()
        });
        way.run(driver, Stream::COMPUTE, &Groups::new(&send, &recv, TRIAL))
    })?;
    let mut found = vec![0; size * TRIAL];
    driver.download(Stream::COMPUTE, memory[1], &mut found)?;
    if let Some(at) = (0..found.len()).find(|&i| found[i] != trial(i / TRIAL, rank, i % TRIAL)) {
        let from = tcp.name(at / TRIAL);
        return Err(Error::Failed(format!("{WHAT}: {name} has received other bytes than {from} has sent")));
    }
    let taken = match (before, driver.free_memory()?) {
        (Some(before), Some(after)) => before.saturating_sub(after),
        _ => 0,
    };
    let all = tcp.gather("NCCL's memory", &taken.to_le_bytes())?;
    let most = all.iter().filter_map(|bytes| Some(u64::from_le_bytes(bytes.as_slice().try_into().ok()?))).max();
    Ok(most.unwrap_or(taken))
}

/// Byte `i` of what `from` sends `to` at the start.
fn trial(from: usize, to: usize, i: usize) -> u8 {
    (from * 31 + to * 17 + i * 7 + 1) as u8
}

/// A fault of NCCL's as `name` has it.
fn trouble(what: &str, name: &str, fault: &Fault) -> Trouble {
    let said = format!("{what}: {name}: {fault}");
    if fault.is_of_a_peer() { Trouble::Suspect(said) } else { Trouble::Other(said) }
}

/// A move under way.
struct Way<'a> {
    comm: &'a Comm,
    plane: &'a Plane,
    what: &'static str,
    name: &'a str,
}

impl Way<'_> {
    /// Queues all groups behind the work of `stream`, and waits until it is through with them.
    fn run(&self, driver: &mut dyn Driver, stream: Stream, groups: &Groups) -> Tried<()> {
        let own = |error: Error| Trouble::Other(format!("{}: {}: {error}", self.what, self.name));
        let handle = driver.handle(stream).map_err(own)?;
        for [send, recv] in &groups.0 {
            self.comm.group(handle, send, recv).map_err(|fault| self.trouble(&fault))?;
            self.over()?;
        }
        while !driver.is_idle(stream).map_err(own)? {
            self.look()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until NCCL's last call is over.
    fn over(&self) -> Tried<()> {
        while !self.look()? {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether NCCL's last call is over. Errors where the run is, or NCCL has failed.
    fn look(&self) -> Tried<bool> {
        self.plane.check()?;
        self.comm.is_done().map_err(|fault| self.trouble(&fault))
    }

    fn trouble(&self, fault: &Fault) -> Trouble {
        trouble(self.what, self.name, fault)
    }
}

/// What a rank sends and receives, by group; by rank inside.
struct Groups(Vec<[Vec<Vec<Piece>>; 2]>);

impl Groups {
    /// Groups end after so many `bytes` of what goes from one rank to another: both know where that is, and no group of one waits
    /// for a later one of another.
    fn new(send: &[Vec<Piece>], recv: &[Vec<Piece>], bytes: usize) -> Groups {
        let [send, recv] =
            [send, recv].map(|side| -> Vec<Vec<Vec<Piece>>> { side.iter().map(|pieces| cut(pieces, bytes)).collect() });
        let count = send.iter().chain(&recv).map(Vec::len).max().unwrap_or(0);
        let of = |side: &[Vec<Vec<Piece>>], group: usize| -> Vec<Vec<Piece>> {
            side.iter().map(|runs| runs.get(group).cloned().unwrap_or_default()).collect()
        };
        Groups((0..count).map(|group| [of(&send, group), of(&recv, group)]).collect())
    }
}

/// Pieces, cut into runs of `bytes`; the last may be less. Empty ones are left out.
fn cut(pieces: &[Piece], bytes: usize) -> Vec<Vec<Piece>> {
    let (mut runs, mut room): (Vec<Vec<Piece>>, usize) = (Vec::new(), 0);
    for piece in pieces {
        let mut from = 0;
        while from < piece.bytes {
            if room == 0 {
                runs.push(Vec::new());
                room = bytes;
            }
            let len = room.min(piece.bytes - from);
            if let Some(run) = runs.last_mut() {
                run.push(Piece { address: piece.address + from as u64, bytes: len });
            }
            (room, from) = (room - len, from + len);
        }
    }
    runs
}

impl Ranks for Nccl {
    fn rank(&self) -> usize {
        self.tcp.rank()
    }

    fn size(&self) -> usize {
        self.tcp.size()
    }

    fn name(&self, rank: usize) -> String {
        self.tcp.name(rank)
    }

    fn sent(&self) -> u64 {
        self.tcp.sent()
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.tcp.gather(what, bytes)
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.tcp.await_all(what, bytes)
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        let rank = self.rank();
        send[rank].iter().zip(&recv[rank]).try_for_each(|(from, to)| dev.copy(*from, *to))?;
        self.moves(dev, what, send, recv)
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        let mut recv = vec![Vec::new(); self.size()];
        owned.iter().for_each(|(owner, tensor)| recv[*owner].push(*tensor));
        let send = vec![recv[self.rank()].clone(); self.size()];
        self.moves(dev, what, &send, &recv)
    }

    fn leave(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        const WHAT: &str = "NCCL's end";
        let comm = match (outcome, self.comm.take()) {
            (Ok(()) | Err(Error::Stopped), Some(comm)) => comm,
            (_, comm) => {
                let left = self.tcp.leave(outcome);
                // All know by now: this is aborted, which may hang.
                drop(comm);
                return left;
            }
        };
        let (nothing, name) = (vec![Vec::new(); self.size()], self.name(self.rank()));
        self.tcp.beside(WHAT, &nothing, &nothing, |plane| {
            let way = Way { comm: &comm, plane, what: WHAT, name: &name };
            comm.finalize().map_err(|fault| way.trouble(&fault))?;
            way.over()
        })?;
        if let Err(fault) = comm.destroy() {
            return Err(super::last_word(&mut self.tcp, Error::Failed(format!("{WHAT}: {name}: {fault}"))));
        }
        self.tcp.leave(outcome)
    }
}
