//! Collectives over TCP. They are used in tests and in runs on the CPU. `Nccl` uses them for everything
//! except tensors.
//!
//! Tested with many ranks on one machine. Untested on several machines.

use std::io::Read;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use super::collectives::Parts;
use super::meet::{self, Rendezvous, Start};
use super::plane::ControlPlane;
use super::receive;
use super::wire::{At, Greeting, Header, Member};
use super::{Place, Ranks};
use crate::device::Device;
use crate::tensor::Tensor;
use omr_base::error::{Error, Result};

/// Number of tensor bytes that are read, sent and received at once.
const PIECE: usize = 1 << 20;

/// Returns the maximum host memory that one of `ranks` ranks holds for tensors in transfer. A rank is at most one piece
/// ahead of another.
pub fn host_bytes(ranks: usize) -> usize {
    (2 * (ranks - 1) + 1) * PIECE
}

/// A rank of a run in which each pair of ranks has a connection.
pub struct Tcp {
    rank: usize,
    plane: Arc<ControlPlane>,
    links: Vec<Option<Link>>,
    buffer: Vec<u8>,
    sent: u64,
    /// True if the current collective has a timeout.
    timed: bool,
    /// Spans of the collectives since the last call of [`Ranks::waits`].
    waits: Vec<Range<Instant>>,
}

/// The connection to another rank. Each connection has a thread that sends while the main thread receives, so two ranks
/// that send to each other cannot block.
struct Link {
    stream: TcpStream,
    queue: Sender<Arc<Vec<u8>>>,
}

/// The reason why a collective failed.
pub enum Trouble {
    /// The connection to a rank broke.
    Link(usize, std::io::Error),
    /// An error that a lost rank may have caused.
    Suspect(String),
    /// A rank is in another collective or failed otherwise.
    Other(String),
    /// An error of this rank.
    Own(Error),
}

/// Result of a part of a collective.
pub type Tried<T> = std::result::Result<T, Trouble>;

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Own(error)
    }
}

impl Tcp {
    /// Connects to the other ranks. Errors on all connected ranks if one of them runs another program, has another
    /// number of ranks, or is present twice, and if a rank does not connect in time. A rank of an earlier round of
    /// restarts gets an error.
    pub fn start(start: Start) -> Result<Tcp> {
        let (place, config) = (start.place, start.config);
        let met = meet(&start)?;
        let control = met.control.iter().map(|c| c.as_ref().map(TcpStream::try_clone).transpose());
        let control = control.collect::<std::io::Result<_>>().map_err(failed)?;
        let plane = ControlPlane::start(place.rank, met.members.clone(), control, config, start.stop, start.end)?;
        let waiting = || plane.check().and_then(|()| (start.waiting)());
        // From here on, dropping `tcp` closes the control plane, so the other ranks detect that this rank has ended.
        let mut tcp = Tcp {
            rank: place.rank,
            plane: plane.clone(),
            links: Vec::new(),
            buffer: Vec::new(),
            sent: 0,
            timed: true,
            waits: Vec::new(),
        };
        let streams = meet::mesh(&met, place.rank, Duration::from_secs_f64(config.timeout_s), &waiting)?;
        let shut = streams.iter().flatten().map(TcpStream::try_clone).collect::<std::io::Result<_>>();
        plane.links(shut.map_err(failed)?);
        tcp.links = streams.into_iter().map(|stream| stream.map(Link::new).transpose()).collect::<Result<_>>()?;
        Ok(tcp)
    }

    /// Returns the other ranks, starting with the next higher one, so that not all ranks begin with the same peer.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank, self.links.len());
        (1..size).map(move |step| (rank + step) % size)
    }

    /// Runs a collective. A failure at another rank is returned as the error that all ranks receive.
    fn collective<T>(&mut self, what: &'static str, run: impl FnOnce(&mut Tcp, u64) -> Tried<T>) -> Result<T> {
        let (number, start) = (self.plane.enter(what, self.timed)?, Instant::now());
        let out = run(self, number);
        self.plane.exit();
        self.waits.push(start..Instant::now());
        out.map_err(|trouble| match trouble {
            Trouble::Link(peer, error) => {
                self.plane.suspect(format!("the connection to {} broke: {error}", self.plane.name(peer)))
            }
            Trouble::Suspect(what) => self.plane.suspect(what),
            Trouble::Other(what) => self.plane.report(what, self.plane.status()),
            Trouble::Own(error) => error,
        })
    }

    fn link(&self, peer: usize) -> &Link {
        self.links[peer].as_ref().expect("a rank has no link to itself")
    }

    fn queue(&self, peer: usize, bytes: Arc<Vec<u8>>) -> Tried<()> {
        let closed = |_| Trouble::Link(peer, std::io::ErrorKind::BrokenPipe.into());
        self.link(peer).queue.send(bytes).map_err(closed)
    }

    /// Sends the header of a frame of `bytes` bytes in collective `number`.
    fn announce(&mut self, peer: usize, number: u64, what: &str, bytes: u64) -> Tried<()> {
        let header = Header { number, bytes, what: what.to_owned() };
        self.sent += bytes;
        self.queue(peer, Arc::new(header.encode()))
    }

    /// Reads the header of a frame from `peer` and returns its number of bytes. The frame must belong to this
    /// collective.
    fn header(&self, peer: usize, number: u64, what: &str) -> Tried<u64> {
        let header = Header::read(&self.link(peer).stream).map_err(|e| Trouble::Link(peer, e))?;
        let Header { number: number_there, bytes, what: there } = header;
        self.plane.is_at(peer, At { number: number_there, what: there.clone(), inside: true, timed: self.timed });
        if (number_there, there.as_str()) == (number, what) {
            return Ok(bytes);
        }
        let (theirs, own) = (self.plane.name(peer), self.plane.name(self.rank));
        let found = format!("{theirs} is in {there:?} (collective {number_there}), {own} in {what:?} ({number})");
        Err(Trouble::Other(found))
    }

    /// Tells each rank how many bytes of `send` it will receive in collective `number`, and checks that each rank will
    /// send the bytes that `recv` expects.
    fn agree(&mut self, number: u64, what: &str, send: &Parts, recv: &Parts) -> Tried<()> {
        for peer in self.others() {
            self.announce(peer, number, what, bytes(&send[peer]))?;
        }
        for peer in self.others() {
            let (found, expected) = (self.header(peer, number, what)?, bytes(&recv[peer]));
            if found != expected {
                let (theirs, own) = (self.plane.name(peer), self.plane.name(self.rank));
                return Err(Trouble::Other(format!("{what}: {theirs} sends {found} bytes, {own} expects {expected}")));
            }
        }
        Ok(())
    }

    /// Runs a collective whose tensors are moved by `work`, not over TCP. First, all ranks exchange over TCP what they
    /// are about to move, so a lost, slow or out-of-step rank is detected before anything can hang. `work` must check
    /// the control plane while it waits.
    pub fn beside(
        &mut self,
        what: &'static str,
        send: &Parts,
        recv: &Parts,
        work: impl FnOnce(&ControlPlane) -> Tried<()>,
    ) -> Result<()> {
        self.collective(what, |tcp, number| {
            tcp.agree(number, what, send, recv)?;
            work(&tcp.plane)
        })
    }

    /// Runs `work` as a collective, like [`Tcp::beside`] but without the exchange: the ranks have agreed earlier. This
    /// rank sends `sent` bytes.
    pub fn watched(
        &mut self,
        what: &'static str,
        sent: u64,
        work: impl FnOnce(&ControlPlane) -> Tried<()>,
    ) -> Result<()> {
        self.sent += sent;
        self.collective(what, |tcp, _| work(&tcp.plane))
    }

    /// Sends `send[r]` to every other rank r and receives `recv[r]` from it, as frames of collective `number`. The
    /// function alternates between sending one piece to each rank and receiving one piece from each rank, so a rank
    /// holds at most two unread pieces for each other rank.
    fn pieces(&mut self, dev: &mut Device, number: u64, what: &str, send: &Parts, recv: &Parts) -> Tried<()> {
        self.agree(number, what, send, recv)?;
        let send: Vec<Vec<Vec<Tensor>>> = send.iter().map(|tensors| runs(tensors, PIECE)).collect();
        let recv: Vec<Vec<Vec<Tensor>>> = recv.iter().map(|tensors| runs(tensors, PIECE)).collect();
        for at in 0..send.iter().chain(&recv).map(Vec::len).max().unwrap_or(0) {
            // A piece that is sent to several ranks is read from the device once.
            let mut last: Option<(&[Tensor], Arc<Vec<u8>>)> = None;
            for peer in self.others() {
                let Some(run) = send[peer].get(at) else { continue };
                if last.as_ref().is_none_or(|(of, _)| of != run) {
                    last = Some((run, Arc::new(read(dev, run)?)));
                }
                last.iter().try_for_each(|(_, bytes)| self.queue(peer, bytes.clone()))?;
            }
            for peer in self.others() {
                recv[peer].get(at).map_or(Ok(()), |run| self.receive(dev, peer, run))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, dev: &mut Device, peer: usize, tensors: &[Tensor]) -> Tried<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        for &tensor in tensors {
            let bytes = tensor.span().bytes;
            if buffer.len() < bytes {
                buffer.resize(bytes, 0);
            }
            let mut stream = &self.link(peer).stream;
            stream.read_exact(&mut buffer[..bytes]).map_err(|e| Trouble::Link(peer, e))?;
            dev.write_bytes(tensor, &buffer[..bytes])?;
        }
        self.buffer = buffer;
        Ok(())
    }
}

/// Returns the number of bytes of the tensors.
fn bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.span().bytes as u64).sum()
}

/// Returns the tensors as lists of slices. A list has at most `most` bytes.
pub fn runs(tensors: &[Tensor], most: usize) -> Vec<Vec<Tensor>> {
    let (mut out, mut room): (Vec<Vec<Tensor>>, usize) = (Vec::new(), 0);
    for tensor in tensors {
        let (flat, size) = (tensor.reshape(&[tensor.len()]), tensor.dtype.size());
        let mut from = 0;
        while from < flat.len() {
            if room < size {
                out.push(Vec::new());
                room = most;
            }
            let to = flat.len().min(from + room / size);
            if let Some(run) = out.last_mut() {
                run.push(flat.slice(from, to));
            }
            (room, from) = (room - (to - from) * size, to);
        }
    }
    out
}

/// Reads the bytes of the tensors, one after another.
fn read(dev: &mut Device, tensors: &[Tensor]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes(tensors) as usize);
    tensors.iter().try_for_each(|&tensor| dev.read_bytes(tensor).map(|bytes| out.extend(bytes)))?;
    Ok(out)
}

impl Ranks for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.links.len()
    }

    fn name(&self, rank: usize) -> String {
        self.plane.name(rank)
    }

    fn leads_host(&self) -> bool {
        self.plane.leads_host(self.rank)
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn waits(&mut self) -> Vec<Range<Instant>> {
        std::mem::take(&mut self.waits)
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.collective(what, |tcp, number| {
            let own = Arc::new(bytes.to_vec());
            for peer in tcp.others() {
                tcp.announce(peer, number, what, own.len() as u64)?;
                tcp.queue(peer, own.clone())?;
            }
            let mut all = vec![Vec::new(); tcp.links.len()];
            all[tcp.rank] = bytes.to_vec();
            for peer in tcp.others() {
                let len = tcp.header(peer, number, what)?;
                let read = (&tcp.link(peer).stream).take(len).read_to_end(&mut all[peer]);
                let short = |read: usize| (read as u64 != len).then(|| std::io::ErrorKind::UnexpectedEof.into());
                match read.map(short) {
                    Ok(None) => {}
                    Ok(Some(error)) | Err(error) => return Err(Trouble::Link(peer, error)),
                }
            }
            Ok(all)
        })
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.timed = false;
        let all = self.gather(what, bytes);
        self.timed = true;
        all
    }

    fn exchange(&mut self, dev: &mut Device, what: &'static str, send: &Parts, recv: &Parts) -> Result<()> {
        self.collective(what, |tcp, number| {
            send[tcp.rank].iter().zip(&recv[tcp.rank]).try_for_each(|(from, to)| dev.copy(*from, *to))?;
            tcp.pieces(dev, number, what, send, recv)
        })
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        self.collective(what, |tcp, number| {
            let mut recv = vec![Vec::new(); tcp.links.len()];
            owned.iter().for_each(|(owner, tensor)| recv[*owner].push(*tensor));
            let send = vec![recv[tcp.rank].clone(); tcp.links.len()];
            tcp.pieces(dev, number, what, &send, &recv)
        })
    }

    fn leave(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        match outcome {
            Ok(()) | Err(Error::Stopped) => {
                self.gather("goodbye", &[])?;
                self.plane.goodbye()
            }
            Err(error) => {
                let (name, text) = (self.plane.name(self.rank), error.to_string());
                let report = || self.plane.report(format!("{name} has ended: {text}"), error.exit_code());
                let said = self.plane.check().err().unwrap_or_else(report);
                self.plane.report_failure();
                match &said {
                    Error::Rank { what, reported: true, .. } if what.contains(&text) => Ok(()),
                    _ => Err(said),
                }
            }
        }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.plane.close();
    }
}

impl Link {
    fn new(stream: TcpStream) -> Result<Link> {
        let (queue, parts) = mpsc::channel::<Arc<Vec<u8>>>();
        let mut to = stream.try_clone().map_err(failed)?;
        let send = move || {
            use std::io::Write;
            // A send error is ignored here, because the thread that reads from the connection detects the cause.
            let _ = parts.iter().try_for_each(|part| to.write_all(&part));
        };
        std::thread::Builder::new().name("send".to_owned()).spawn(send).map_err(failed)?;
        Ok(Link { stream, queue })
    }
}

fn meet(start: &Start) -> Result<Rendezvous> {
    let (own, port) = (greeting(start), start.port()?);
    if own.rank != 0 {
        return meet::greet(start, own, port);
    }
    let listener = match &start.listener {
        Some(listener) => listener.try_clone().map_err(failed)?,
        None => meet::listen(start.place, port)?,
    };
    receive::receive(start, listener, &own)
}

/// Returns what this rank says of itself.
fn greeting(start: &Start) -> Greeting {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unnamed host".to_owned() } else { host.trim().to_owned() };
    let address = (std::net::Ipv4Addr::UNSPECIFIED, start.port().unwrap_or(0)).into();
    let member = Member { host, pid: std::process::id(), address };
    let Place { rank, size, round, ref run, .. } = *start.place;
    Greeting { program: start.program.clone(), run: run.clone(), round, size, rank, member }
}

/// Tells the ranks that wait for this one that it has failed with `error` before it met them. Gives up after ten seconds.
pub fn tell_early(start: &Start, error: &Error) -> Result<()> {
    receive::tell_early(start, &greeting(start), error)
}

fn failed(error: std::io::Error) -> Error {
    Error::Failed(format!("the connections between ranks: {error}"))
}
