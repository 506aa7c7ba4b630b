//! Tests of ranks that run as threads of one process, over loopback.

pub mod collectives;
pub mod early;
pub mod lost;
pub mod nccl;
pub mod nodes;
pub mod place;
pub mod shards;
pub mod wire;

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use omr_base::config::DistConfig;
use omr_base::error::{Error, Result};
use omr_runtime::ranks::{Launcher, Place, Ranks, Secret, Start, Tcp};

/// Arguments with which one rank joins the run. Tests change single fields.
pub struct Entry {
    place: Place,
    listener: Option<TcpListener>,
    secret: Secret,
    program: String,
    pub config: DistConfig,
    stop: Arc<AtomicBool>,
    /// Notes that the rank has printed.
    notes: Arc<Mutex<Vec<String>>>,
}

/// Returns the entries of `size` ranks that meet at a port on which rank 0 listens.
pub fn entries(size: usize) -> Vec<Entry> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut listener = Some(listener);
    let entry = |rank| Entry {
        place: Place {
            rank,
            size,
            local_rank: rank,
            local_size: size,
            address: "127.0.0.1".to_owned(),
            port: Some(port),
            round: 0,
            run: String::new(),
            launcher: Launcher::Torchrun,
        },
        listener: listener.take().filter(|_| rank == 0),
        secret: Secret::Given("of this test".to_owned()),
        program: "omr of this test".to_owned(),
        config: DistConfig { timeout_s: 60.0, heartbeat_s: 30.0, ..DistConfig::default() },
        stop: Arc::new(AtomicBool::new(false)),
        notes: Arc::default(),
    };
    (0..size).map(entry).collect()
}

pub fn start(entry: &mut Entry) -> Result<Tcp> {
    start_with(entry, Box::new(|_| {}))
}

/// Starts a rank like [`start`]. `end` is called to end a process that cannot end by itself.
fn start_with(entry: &mut Entry, end: Box<dyn Fn(&Error) + Send + Sync>) -> Result<Tcp> {
    with_start(entry, end, Tcp::start)
}

/// Passes everything that a rank needs to find the others to `act`.
fn with_start<T>(
    entry: &mut Entry,
    end: Box<dyn Fn(&Error) + Send + Sync>,
    act: impl FnOnce(Start) -> Result<T>,
) -> Result<T> {
    act(Start {
        place: &entry.place,
        listener: entry.listener.take(),
        secret: &entry.secret,
        program: entry.program.clone(),
        config: &entry.config,
        stop: entry.stop.clone(),
        end,
        waiting: &|| Ok(()),
        say: &|text| entry.notes.lock().unwrap().push(text.to_owned()),
    })
}

/// Runs `work` for each rank on its own thread. Returns the results by rank.
pub fn by_rank<T: Send>(entries: Vec<Entry>, work: impl Fn(Result<Tcp>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads = entries.into_iter().map(|mut entry| scope.spawn(move || work(start(&mut entry))));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs `work` on all ranks and ends the run properly.
pub fn all_well<T: Send>(entries: Vec<Entry>, work: impl Fn(&mut Tcp) -> Result<T> + Sync) -> Vec<T> {
    by_rank(entries, |tcp| {
        let mut tcp = tcp.unwrap();
        let out = work(&mut tcp).unwrap();
        tcp.leave(Ok(())).unwrap();
        out
    })
}

/// Returns the results of `work` on each of `size` ranks, by rank.
pub fn over<T: Send>(size: usize, work: impl Fn(&mut Tcp) -> T + Sync) -> Vec<T> {
    all_well(entries(size), |tcp| Ok(work(tcp)))
}

/// Runs `work` on all ranks, which must fail on each. Returns the errors.
fn all_end(entries: Vec<Entry>, work: impl Fn(&mut Tcp) -> Result<()> + Sync) -> Vec<Error> {
    by_rank(entries, |tcp| {
        let mut tcp = match tcp {
            Ok(tcp) => tcp,
            Err(error) => return error,
        };
        let error = work(&mut tcp).unwrap_err();
        let _ = tcp.leave(Err(&error));
        error
    })
}
