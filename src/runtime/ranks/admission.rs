//! Accepts connections from callers that prove knowledge of the run secret. Each caller has its own thread, so a slow
//! caller does not delay the others.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::descriptors::{self, AT_ONCE};
use super::secret::Keys;
use super::wire::{Message, Until};
use omr_base::error::{Error, Result};

/// Pause between two checks of a condition that is waited for.
pub const POLL: Duration = Duration::from_millis(20);

/// Time limit for a caller's proof and first message together.
pub const WORD: Duration = Duration::from_secs(5);

/// A caller of this run.
pub struct Caller {
    /// True if the caller has proved knowledge of the run secret, false if it only gives notice.
    pub has_secret: bool,
    /// The connection to the caller.
    pub stream: TcpStream,
    /// Address of the caller.
    pub from: SocketAddr,
    /// First message of the caller.
    pub word: Message,
}

/// A listener that accepts callers. When it is dropped, later callers are closed without an answer.
pub struct Admission {
    callers: Receiver<io::Result<Caller>>,
    unproven: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Admission {
    /// Starts to accept the callers that connect to `listener` and prove knowledge of one of the `keys`.
    pub fn open(listener: TcpListener, keys: Keys) -> Result<Admission> {
        let failed = |e: io::Error| Error::Failed(format!("listening for connections: {e}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let (sender, callers) = mpsc::channel();
        let (unproven, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over, open) = (unproven.clone(), closed.clone(), Arc::new(()));
        let serve = move || {
            while !over.load(Ordering::Relaxed) {
                let is_full = Arc::strong_count(&open) > AT_ONCE;
                let accepted = (!is_full).then(|| listener.accept());
                let (stream, from) = match accepted {
                    Some(Ok(accepted)) => accepted,
                    Some(Err(error)) if descriptors::are_exhausted(&error) => return drop(sender.send(Err(error))),
                    _ => {
                        std::thread::sleep(POLL);
                        continue;
                    }
                };
                let (sender, counted, keys, open) = (sender.clone(), counted.clone(), keys.clone(), open.clone());
                let hear = move || {
                    match read_message(&stream, &keys) {
                        Ok((has_secret, word)) => drop(sender.send(Ok(Caller { has_secret, stream, from, word }))),
                        Err(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    }
                    drop(open);
                };
                // If the system cannot create a thread, the connection is closed, and the caller may connect again.
                let _ = std::thread::Builder::new().name("caller".to_owned()).spawn(hear);
            }
        };
        std::thread::Builder::new().name("callers".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Admission { callers, unproven, closed })
    }

    /// Waits up to [`POLL`] for the next caller. Errors if this process cannot open more files.
    pub fn next(&self) -> Result<Option<Caller>> {
        match self.callers.recv_timeout(POLL) {
            Ok(caller) => caller.map(Some).map_err(|error| descriptors::exhausted(&error)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Failed("listening for connections has ended".to_owned())),
        }
    }

    /// Returns the number of callers that did not prove knowledge of the secret.
    pub fn unproven(&self) -> usize {
        self.unproven.load(Ordering::Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Returns whether a caller has proved knowledge of the secret, and its first message.
fn read_message(stream: &TcpStream, keys: &Keys) -> io::Result<(bool, Message)> {
    let deadline = Instant::now() + WORD;
    prepare(stream)?;
    let has_secret = keys.accept(stream, deadline)?;
    Ok((has_secret, Message::receive(Until { stream, deadline })?))
}

/// Configures a connection for use between ranks: writes are sent without delay, and reads block.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(None)
}
