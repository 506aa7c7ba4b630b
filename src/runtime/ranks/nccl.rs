//! Collectives over NCCL: tensors go directly from GPU to GPU, everything else goes over TCP.
//!
//! NCCL has no timeout and does not report which rank is lost, so the code never waits for NCCL without checks. All
//! ranks agree over TCP on what they are about to move: before each transfer, or once for all gradients of an update.
//! During the transfer, each rank polls the control plane and NCCL's own errors. A lost rank or an error aborts the
//! communicator; if the abort hangs as well, the control plane ends the process.
//!
//! Tested with processes and threads on one machine, against a library that replaces NCCL. Not tested on two GPUs.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::time::{Duration, Instant};

use super::collectives::Parts;
use super::plane::ControlPlane;
use super::tcp::{Tried, Trouble, runs};
use super::{Ranks, Tcp};
use crate::device::nccl::{Comm, Fault, Library, Piece, UniqueId};
use crate::device::{Device, Driver, On, Stream};
use crate::tensor::Tensor;
use omr_base::error::{Error, Result};

/// Bytes of GPU memory that plans leave free in a run of several ranks: an estimate of NCCL's memory, used where it
/// cannot be measured. NCCL has buffers of 4 MiB (`NCCL_BUFFSIZE`) for each channel, direction and peer on the machine;
/// 7 peers with 16 channels take 0.9 GiB. A run uses the amount that it measures at its start.
pub const GPU_OVERHEAD: u64 = 1 << 30;

/// Maximum number of bytes that a rank sends in a group. With 64 ranks this is 4 MiB to each, the buffer size of one
/// NCCL connection, so a larger group would not be faster. A group takes less than a millisecond over NVLink, so errors
/// are checked often while gigabytes move.
const GROUP_BYTES: usize = 256 << 20;

/// Alignment of the ends of groups in bytes, within the data from one rank to another. It is the alignment of GPU
/// allocations.
const BORDER: usize = 256;

/// Pause between two checks of a transfer.
const POLL: Duration = Duration::from_micros(20);

/// Number of bytes that each rank sends to each rank in the trial at the start.
const TRIAL: usize = 256;

/// A rank of a run in which NCCL moves the tensors.
pub struct Nccl {
    /// NCCL communicator. `None` after it was aborted.
    comm: Option<Comm>,
    /// Keeps the GPU's context alive as long as the communicator.
    _driver: Box<dyn Driver>,
    tcp: Tcp,
    group_bytes: usize,
    /// Bytes of device memory that NCCL took at the start. This is the maximum over all ranks, so that all ranks compute
    /// the same plan. 0 if no device can measure it.
    pub taken: u64,
}

impl Nccl {
    /// Creates the communicator of the ranks of `tcp`. `open` opens the library and this rank's GPU. The call uses
    /// every connection once, so NCCL allocates all its memory now. Errors on all ranks if one of them has no NCCL or
    /// another version of it, and if the trial bytes do not arrive.
    pub fn start(mut tcp: Tcp, open: impl FnOnce() -> Result<(&'static Library, Box<dyn Driver>)>) -> Result<Nccl> {
        let (library, mut driver) = match open() {
            Ok(opened) => opened,
            Err(error) => return Err(super::report_failure(&mut tcp, error)),
        };
        let mut comm = None;
        match begin(&mut tcp, library, &mut *driver, &mut comm) {
            Ok(taken) => {
                let group_bytes = GROUP_BYTES / tcp.size().saturating_sub(1).max(1) / BORDER * BORDER;
                Ok(Nccl { comm, _driver: driver, tcp, group_bytes, taken })
            }
            // The error has been sent to all ranks at this point. Dropping the communicator aborts it, which may hang.
            Err(error) => Err(super::report_failure(&mut tcp, error)),
        }
    }

    /// Limits groups to `bytes` bytes to each rank.
    pub fn in_groups_of(self, bytes: usize) -> Nccl {
        Nccl { group_bytes: bytes, ..self }
    }

    /// Sends `send[r]` to rank r and receives in `recv[r]` what rank r sends. Skips this rank itself. If the ranks have
    /// agreed on the bytes, the transfer is only queued. Otherwise they agree now, and the call waits for the transfer.
    fn moves(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &Parts,
        recv: &Parts,
        has_agreed: bool,
    ) -> Result<()> {
        let On::Gpu(gpu) = dev.on() else {
            return Err(Error::Failed(format!("{what}: NCCL on a device that is not a GPU")));
        };
        let rank = self.tcp.rank();
        let piece = |tensor: &Tensor| Piece { address: gpu.memory.address(tensor.span()), bytes: tensor.span().bytes };
        let group_bytes = self.group_bytes;
        let pieces = |side: &Parts| -> Vec<Vec<Vec<Piece>>> {
            let of = |(peer, tensors): (usize, &Vec<Tensor>)| match peer == rank {
                true => Vec::new(),
                false => runs(tensors, group_bytes).iter().map(|run| run.iter().map(piece).collect()).collect(),
            };
            side.iter().enumerate().map(of).collect()
        };
        let comm = self.comm.as_ref().ok_or_else(|| Error::Failed(format!("{what}: NCCL was aborted")))?;
        let groups = Groups::new(&pieces(send), &pieces(recv));
        let name = self.tcp.name(rank);
        let done = match has_agreed {
            true => self.tcp.watched(what, groups.sent(), |plane| {
                Way { comm, plane, what, name: &name }.queue(gpu.driver, gpu.stream, &groups)
            }),
            false => self.tcp.beside(what, send, recv, |plane| {
                Way { comm, plane, what, name: &name }.run(gpu.driver, gpu.stream, &groups)
            }),
        };
        self.ended(done)
    }

    /// Drops the communicator after an error, because then nothing waits for NCCL any more.
    fn ended(&mut self, done: Result<()>) -> Result<()> {
        if done.is_err() {
            self.comm = None;
        }
        done
    }
}

/// Creates the communicator, stores it in `made`, and tests it with a trial exchange. Returns the bytes of memory that
/// the communicator took, as the maximum over all ranks.
fn begin(tcp: &mut Tcp, library: &'static Library, driver: &mut dyn Driver, made: &mut Option<Comm>) -> Result<u64> {
    const WHAT: &str = "NCCL's start";
    tcp.same("NCCL's version", &library.version())?;
    let (rank, size) = (tcp.rank(), tcp.size());
    let failed = |fault: Fault| Error::Failed(format!("{WHAT}: {fault}"));
    let own = if rank == 0 { library.unique_id().map_err(failed)?.to_vec() } else { Vec::new() };
    let id = tcp.gather("NCCL's unique id", &own)?.swap_remove(0);
    let id = UniqueId::try_from(id).map_err(|_| Error::Failed(format!("{WHAT}: an invalid unique id")))?;
    let memory = [driver.map(size * TRIAL)?, driver.map(size * TRIAL)?];
    memory.iter().try_for_each(|address| driver.open(*address, size * TRIAL))?;
    let before = driver.free_memory()?;
    // Each rank sends to every rank, including itself, so that NCCL creates every connection now.
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
        way.run(driver, Stream::COMPUTE, &Groups(vec![[send, recv]]))
    })?;
    let mut found = vec![0; size * TRIAL];
    driver.download(Stream::COMPUTE, memory[1], &mut found)?;
    if let Some(at) = (0..found.len()).find(|&i| found[i] != trial(i / TRIAL, rank, i % TRIAL)) {
        let what = format!("the bytes that {name} received differ from those that {} sent", tcp.name(at / TRIAL));
        return Err(Error::Failed(format!("{WHAT}: {what}")));
    }
    let taken = match (before, driver.free_memory()?) {
        (Some(before), Some(after)) => before.saturating_sub(after),
        _ => 0,
    };
    let all = tcp.gather("NCCL's memory", &taken.to_le_bytes())?;
    let most = all.iter().filter_map(|bytes| Some(u64::from_le_bytes(bytes.as_slice().try_into().ok()?))).max();
    Ok(most.unwrap_or(taken))
}

/// Returns byte `i` of the trial data that rank `from` sends to rank `to`.
fn trial(from: usize, to: usize, i: usize) -> u8 {
    (from * 31 + to * 17 + i * 7 + 1) as u8
}

/// Converts a fault of NCCL into a `Trouble` that names this rank.
fn trouble(what: &str, name: &str, fault: &Fault) -> Trouble {
    let said = format!("{what}: {name}: {fault}");
    if fault.is_of_a_peer() { Trouble::Suspect(said) } else { Trouble::Other(said) }
}

/// A transfer in progress.
struct Way<'a> {
    comm: &'a Comm,
    plane: &'a ControlPlane,
    what: &'static str,
    name: &'a str,
}

impl Way<'_> {
    /// Queues all groups after the work of `stream`, and waits until the stream has finished them.
    fn run(&self, driver: &mut dyn Driver, stream: Stream, groups: &Groups) -> Tried<()> {
        self.queue(driver, stream, groups)?;
        self.until(|| driver.is_idle(stream))
    }

    /// Queues all groups after the work of `stream`.
    fn queue(&self, driver: &mut dyn Driver, stream: Stream, groups: &Groups) -> Tried<()> {
        let handle = driver.handle(stream).map_err(|error| self.own(&error))?;
        for [send, recv] in &groups.0 {
            self.comm.group(handle, send, recv).map_err(|fault| trouble(self.what, self.name, &fault))?;
            self.over()?;
        }
        Ok(())
    }

    /// Waits until `is_idle` returns true.
    fn until(&self, mut is_idle: impl FnMut() -> Result<bool>) -> Tried<()> {
        while !is_idle().map_err(|error| self.own(&error))? {
            self.look()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until NCCL's last call has finished.
    fn over(&self) -> Tried<()> {
        while !self.look()? {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Returns true if NCCL's last call has finished. Errors if the run has ended or NCCL has failed.
    fn look(&self) -> Tried<bool> {
        self.plane.check()?;
        self.comm.is_done().map_err(|fault| trouble(self.what, self.name, &fault))
    }

    fn own(&self, error: &Error) -> Trouble {
        Trouble::Other(format!("{}: {}: {error}", self.what, self.name))
    }
}

/// The pieces that a rank sends and receives, by group and then by rank.
struct Groups(Vec<[Vec<Vec<Piece>>; 2]>);

impl Groups {
    /// Joins the runs of pieces to and from each rank into groups. Both ranks compute the same runs, so no group of one
    /// rank waits for a later group of another.
    fn new(send: &[Vec<Vec<Piece>>], recv: &[Vec<Vec<Piece>>]) -> Groups {
        let count = send.iter().chain(recv).map(Vec::len).max().unwrap_or(0);
        let of = |side: &[Vec<Vec<Piece>>], group: usize| -> Vec<Vec<Piece>> {
            side.iter().map(|runs| runs.get(group).cloned().unwrap_or_default()).collect()
        };
        Groups((0..count).map(|group| [of(send, group), of(recv, group)]).collect())
    }

    /// Returns the number of bytes that this rank sends.
    fn sent(&self) -> u64 {
        self.0.iter().flat_map(|[send, _]| send.iter().flatten()).map(|piece| piece.bytes as u64).sum()
    }
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

    fn leads_host(&self) -> bool {
        self.tcp.leads_host()
    }

    fn sent(&self) -> u64 {
        self.tcp.sent()
    }

    fn waits(&mut self) -> Vec<Range<Instant>> {
        self.tcp.waits()
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.tcp.gather(what, bytes)
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.tcp.await_all(what, bytes)
    }

    fn exchange(&mut self, dev: &mut Device, what: &'static str, send: &Parts, recv: &Parts) -> Result<()> {
        let rank = self.rank();
        send[rank].iter().zip(&recv[rank]).try_for_each(|(from, to)| dev.copy(*from, *to))?;
        self.moves(dev, what, send, recv, true)
    }

    fn settle(&mut self, dev: &mut Device, what: &'static str) -> Result<()> {
        let comm = self.comm.as_ref().ok_or_else(|| Error::Failed(format!("{what}: NCCL was aborted")))?;
        let name = self.tcp.name(self.tcp.rank());
        let done = self
            .tcp
            .watched(what, 0, |plane| Way { comm, plane, what, name: &name }.until(|| dev.side_stream_is_idle()));
        self.ended(done)
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        let mut recv = vec![Vec::new(); self.size()];
        owned.iter().for_each(|(owner, tensor)| recv[*owner].push(*tensor));
        let send = vec![recv[self.rank()].clone(); self.size()];
        self.moves(dev, what, &send, &recv, false)
    }

    fn leave(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        const WHAT: &str = "NCCL's end";
        let comm = match (outcome, self.comm.take()) {
            (Ok(()) | Err(Error::Stopped), Some(comm)) => comm,
            (_, comm) => {
                let left = self.tcp.leave(outcome);
                // The error has been sent to all ranks at this point. Dropping the communicator aborts it, which may
                // hang.
                drop(comm);
                return left;
            }
        };
        let (nothing, name) = (vec![Vec::new(); self.size()], self.name(self.rank()));
        self.tcp.beside(WHAT, &nothing, &nothing, |plane| {
            let way = Way { comm: &comm, plane, what: WHAT, name: &name };
            comm.finalize().map_err(|fault| trouble(WHAT, &name, &fault))?;
            way.over()
        })?;
        if let Err(fault) = comm.destroy() {
            return Err(super::report_failure(&mut self.tcp, Error::Failed(format!("{WHAT}: {name}: {fault}"))));
        }
        self.tcp.leave(outcome)
    }
}
